"""Docs from spaCy's binary files."""

from collections.abc import Iterator
from pathlib import Path

from spacy.tokens import Doc, DocBin
from spacy.training.corpus import FILE_TYPE, walk_corpus
from spacy.vocab import Vocab

from .errors import Errors


def stream_docs(path: Path, vocab: Vocab) -> Iterator[Doc]:
    """Stream the docs of a `.spacy` file, with the user data that it has.

    RAISES: FileNotFoundError; ValueError for a file that is none of spaCy's.
    """
    if not path.is_file():
        raise FileNotFoundError(Errors.E064.format(path=path))
    try:
        yield from DocBin(store_user_data=True).from_disk(path).get_docs(vocab)
    except (ValueError, KeyError, TypeError) as error:  # spaCy's, msgpack's, and of content that is another's
        raise ValueError(Errors.E090.format(path=path, reason=str(error).strip())) from error


def read_docs(path: Path, vocab: Vocab) -> list[Doc]:
    """Read docs.

    path: A `.spacy` file, or a folder of such.
    RETURNS: The docs, without empty ones.
    RAISES: FileNotFoundError; ValueError for a file that is none of spaCy's, or if there are no docs.
    """
    files = walk_corpus(path, FILE_TYPE) if path.is_dir() else [path]
    docs = [doc for file in files for doc in stream_docs(Path(file), vocab) if len(doc)]
    if not docs:
        raise ValueError(Errors.E091.format(path=path))
    return docs

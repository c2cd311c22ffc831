"""What `annotate` reads: plain texts, `.spacy` files and corpora, as docs without entities."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Errors

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

    from ..corpora import Document

    Input = Doc | Document


def read_inputs(path: Path, format: str, nlp: "Language") -> Iterator["Input"]:
    """Read the input as a stream of docs, or of documents that are yet to become docs."""
    from ..corpora import Document, read_corpus
    from ..docbin import stream_docs

    if format == "spacy" or (format == "auto" and path.suffix == ".spacy"):
        yield from stream_docs(path, nlp.vocab)
    elif texts := _texts(path, format):
        yield from (Document(text.stem, _read(text), ()) for text in texts)
    elif format == "txt":
        raise FileNotFoundError(Errors.E078.format(path=path))
    else:
        try:
            # Entities are left out, so it does not matter what those without a label are called.
            yield from read_corpus(path, format, label="ENTITY", mentions=False)
        except ValueError as error:
            raise ValueError(Errors.E079.format(path=path, reason=error)) from error


def _read(text: Path) -> str:
    """Read a plain text without its byte order mark; one of brat with it, since offsets there count it."""
    from ..files import read_text

    return read_text(text) if _is_of_brat(text) else read_text(text).removeprefix("\ufeff")


def _is_of_brat(text: Path) -> bool:
    return text.with_suffix(".ann").is_file()


def _texts(path: Path, format: str) -> list[Path]:
    """Give the plain text files that a path names: itself, or those in a folder; none if it is something else.

    RAISES: ValueError for a folder of corpus files.
    """
    from ..corpora import detect_format

    def is_plain(text: Path) -> bool:
        if format == "txt" or _is_of_brat(text):  # whose entities are left out anyway
            return True
        try:
            detect_format(text)
        except ValueError:  # no format that we know
            return True
        return False

    if format not in ("auto", "txt"):
        return []
    if not path.is_dir():
        named = format == "txt" or path.suffix.lower() == ".txt"
        return [path] if named and path.is_file() and is_plain(path) else []
    texts = sorted(text for text in path.iterdir() if text.suffix.lower() == ".txt" and text.is_file())
    for text in texts:
        if not is_plain(text):
            raise ValueError(Errors.E075.format(path=text))
    return texts


def bare_doc(given: "Input", nlp: "Language") -> "Doc":
    """Make a doc without entities; sentences are left to the pipeline, if it finds them."""
    from ..corpora import Document, Report, to_doc

    if not isinstance(given, Document):
        clear(given)
        return given
    doc = to_doc(replace(given, mentions=()), nlp, report=Report())
    if not given.is_sentence and _finds_sentences(nlp):
        begins = {passage.start for passage in given.passages}
        for token in doc:
            token.is_sent_start = True if token.idx in begins else None
    return doc


def _finds_sentences(nlp: "Language") -> bool:
    found = {"token.is_sent_start", "doc.sents"}
    return any(found & {*nlp.get_pipe_meta(name).assigns} for name in nlp.pipe_names)


def clear(doc: "Doc") -> None:
    """Take entities and candidates out of a doc."""
    from ..annotations import remove_votes

    doc.set_ents([])
    remove_votes(doc)

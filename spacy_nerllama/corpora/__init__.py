"""Readers and writers of corpora, one module a format: file <-> documents <-> `Doc`s."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from spacy.tokens import Doc

from ..errors import Errors
from .bc2gm import read_bc2gm
from .bioc import read_bioc, write_bioc
from .brat import read_brat, write_brat
from .detect import detect_format
from .docs import Misaligned, Report, sentence_docs, to_doc, to_documents
from .documents import Document, Mention, Passage
from .hf import read_hf
from .iob import read_iob
from .jsonl import read_jsonl, write_jsonl
from .mark import read_mark
from .pubtator import read_pubtator, write_pubtator

FORMATS = ("auto", "pubtator", "bioc", "bc2gm", "iob", "brat", "mark", "jsonl", "hf")
WRITERS = {"pubtator": write_pubtator, "bioc": write_bioc, "brat": write_brat, "jsonl": write_jsonl}

__all__ = [
    "FORMATS",
    "WRITERS",
    "Document",
    "Mention",
    "Misaligned",
    "Passage",
    "Report",
    "detect_format",
    "read_bc2gm",
    "read_bioc",
    "read_brat",
    "read_corpus",
    "read_hf",
    "read_iob",
    "read_jsonl",
    "read_mark",
    "read_pubtator",
    "sentence_docs",
    "to_doc",
    "to_documents",
    "write_bioc",
    "write_brat",
    "write_corpus",
    "write_jsonl",
    "write_pubtator",
]


def read_corpus(
    path: str | Path,
    format: str = "auto",
    *,
    label: str | None = None,
    columns: tuple[int, int] = (0, -1),
    separator: str | None = "\t",
    split: str | None = None,
    mentions: bool = True,
) -> Iterator[Document]:
    """Stream the documents of a corpus.

    path: The file; for `brat` and `hf` it may be a folder, and for `hf` the name of a dataset of the hub. A
        missing file is an error at once.
    format: One of `FORMATS`; "auto" recognises it.
    label: The label of mentions for which the file has none: IOB tags without a type, marks, JSONL spans.
    columns, separator: As `read_iob` takes them.
    split: As `read_hf` takes it.
    mentions: Whether to read mentions. Without, nothing can be wrong with them, but in formats that have them in
        the text (`iob`, `mark`, and `hf` with tags) they are read all the same.
    RAISES: ValueError for an unknown format or broken content; FileNotFoundError.
    """
    if format not in FORMATS:
        raise ValueError(Errors.E110.format(format=format, formats=", ".join(FORMATS)))
    if format == "auto":
        format = detect_format(path)
    if format == "hf":
        return read_hf(path, label, split, mentions)
    if not (Path(path).is_file() or (format == "brat" and Path(path).is_dir())):
        raise FileNotFoundError(Errors.E111.format(path=path))
    match format:
        case "pubtator":
            return read_pubtator(path, mentions)
        case "bc2gm":
            return read_bc2gm(path, mentions=mentions)
        case "brat":
            return read_brat(path, mentions)
        case "iob":
            return read_iob(path, label, columns=columns, separator=separator)
        case "mark":
            return read_mark(path, label)
    labelled = {"bioc": read_bioc, "jsonl": read_jsonl}
    return labelled[format](path, label, mentions)


def write_corpus(docs: Iterable[Doc], path: str | Path, format: str) -> None:
    """Write docs with their entities as a corpus, with the ids, passages and offsets of the corpus they are from.

    docs: From `to_doc` or from any pipeline, which are taken as they come.
    path: The file, or for `brat` the folder, which appears whole or not at all. Of `bioc`, a name that ends in
        .json gives JSON.
    format: One of `WRITERS`.
    RAISES: ValueError for an unknown format; FileExistsError if a folder is there and not empty.
    """
    if format not in WRITERS:
        raise ValueError(Errors.E127.format(format=format, formats=", ".join(WRITERS)))
    WRITERS[format](to_documents(docs), path)

"""Readers and writers of corpora, one module a format: file <-> documents <-> `Doc`s."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from spacy.tokens import Doc

from ..errors import Errors
from .bc2gm import read_bc2gm
from .bioc import read_bioc, write_bioc
from .brat import read_brat, write_brat
from .detect import detect_format
from .docs import Misaligned, Misplaced, Report, sentence_docs, to_doc, to_documents
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
    "Misplaced",
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
    misplaced: Misplaced = "error",
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
    misplaced: What to do about a mention whose offsets give another text, or none, and do not miss it by little:
        "error", or "drop" it, as the readers of the formats do (see `Document.misplaced`).
    RAISES: ValueError for an unknown format or broken content; FileNotFoundError.
    """
    if format not in FORMATS:
        raise ValueError(Errors.E110.format(format=format, formats=", ".join(FORMATS)))
    if misplaced not in get_args(Misplaced):
        raise ValueError(Errors.E128.format(what="misplaced", choices="error or drop", value=misplaced))
    if format == "auto":
        format = detect_format(path)
    if format != "hf" and not (Path(path).is_file() or (format == "brat" and Path(path).is_dir())):
        raise FileNotFoundError(Errors.E111.format(path=path))
    documents: Iterator[Document]
    match format:
        case "pubtator":
            documents = read_pubtator(path, mentions)
        case "bc2gm":
            documents = read_bc2gm(path, mentions=mentions)
        case "brat":
            documents = read_brat(path, mentions)
        case "iob":
            documents = read_iob(path, label, columns=columns, separator=separator)
        case "mark":
            documents = read_mark(path, label)
        case "hf":
            documents = read_hf(path, label, split, mentions)
        case "bioc":
            documents = read_bioc(path, label, mentions)
        case _:
            documents = read_jsonl(path, label, mentions)
    return documents if misplaced == "drop" else map(_all_placed, documents)


def _all_placed(document: Document) -> Document:
    if document.misplaced:
        raise ValueError(document.misplaced[0])
    return document


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

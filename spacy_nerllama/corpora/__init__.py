"""Readers of corpus files, one module a format: file -> documents -> `Doc`s."""

from collections.abc import Iterator
from pathlib import Path

from ..errors import Errors
from .bc2gm import read_bc2gm
from .documents import Document, Mention, Misaligned, Report, to_doc
from .iob import read_iob
from .pubtator import read_pubtator

FORMATS = ("pubtator", "bc2gm", "iob")

__all__ = [
    "FORMATS",
    "Document",
    "Mention",
    "Misaligned",
    "Report",
    "read_bc2gm",
    "read_corpus",
    "read_iob",
    "read_pubtator",
    "to_doc",
]


def read_corpus(path: str | Path, format: str, *, label: str | None = None) -> Iterator[Document]:
    """Stream the documents of a corpus file.

    path: The file; a directory or a missing file is an error at once.
    format: One of `FORMATS`.
    label: The label of mentions whose IOB tags name no type; other formats do not need it.
    RAISES: ValueError for an unknown format or broken content; FileNotFoundError.
    """
    if format not in FORMATS:
        raise ValueError(Errors.E110.format(format=format, formats=", ".join(FORMATS)))
    if not Path(path).is_file():
        raise FileNotFoundError(Errors.E111.format(path=path))
    if format == "iob":
        return read_iob(path, label)
    return read_pubtator(path) if format == "pubtator" else read_bc2gm(path)

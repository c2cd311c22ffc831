"""Inline marks: a sentence on each line, `<mark>` and `</mark>` around its mentions (NLM-Gene as released)."""

import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import Errors
from ..files import numbered_lines
from .documents import Document, Mention

_MARK = re.compile("(</?mark>)")


def read_mark(path: str | Path, label: str | None = None) -> Iterator[Document]:
    """Stream the sentences of a file with inline marks, one document a sentence; blank lines are skipped.

    Only `<mark>` and `</mark>` are taken out: what else looks like XML is text.

    path: The file.
    label: The label of all mentions.
    RAISES: ValueError, naming file and line, for marks that are empty, nested or not closed, or where no label
        is given.
    """
    path = Path(path)
    for number, line in numbered_lines(path):
        if line.strip():
            where = f"{path}, line {number}"
            if not label:
                raise ValueError(Errors.E109.format(where=where, tag="<mark>"))
            yield _document(f"{path.stem}-{number}", line, label, where)


def _document(id_: str, line: str, label: str, where: str) -> Document:
    text, mentions = "", list[Mention]()
    start: int | None = None
    for part in _MARK.split(line):
        if part == "<mark>" and start is None:
            start = len(text)
        elif part == "</mark>" and start is not None and text[start:].strip():
            mentions.append(Mention(start, len(text), label, text[start:]))
            start = None
        elif _MARK.fullmatch(part):
            raise ValueError(Errors.E116.format(where=where, mark=part, content=text[-40:]))
        else:
            text += part
    if start is not None:
        raise ValueError(Errors.E116.format(where=where, mark="<mark>", content=text[start:][:40]))
    return Document(id_, text, tuple(mentions), is_sentence=True)

"""PubTator files: title, abstract and mentions, a blank line between documents (NCBI-disease, BC5CDR)."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import Errors
from ..files import as_offset, numbered_lines, replacing
from .documents import Annotations, Document, join_passages

TEXT_LINE = re.compile(r"([^|\t]+)\|([ta])\|(.*)", re.DOTALL)
_FLAT = str.maketrans("\t\n\r", "   ")
_FLAT_ID = str.maketrans("\t\n\r|", "____")
_Row = tuple[int, list[str]]


def read_pubtator(path: str | Path, mentions: bool = True) -> Iterator[Document]:
    """Stream the documents of a PubTator file.

    The text is the title, a space, and the abstract: PubTator's offsets count one character between them.
    Relations (lines with a word where a mention has its start) are skipped.

    mentions: Whether to read mentions.
    RAISES: ValueError, naming file and line, for a broken line, or offsets that do not give the
        mention's text.
    """
    path = Path(path)
    id_, title, abstract, rows = "", None, None, list[_Row]()
    for number, line in numbered_lines(path):
        text = TEXT_LINE.fullmatch(line)
        if title is not None and (not line.strip() or (text and text[2] == "t")):
            yield _document(path, id_, title, abstract, rows)
            title, abstract, rows = None, None, []
        if not line.strip():
            continue
        fields = [text[1]] if text else line.split("\t")
        if text and text[2] == "t":
            id_, title = text[1], text[3]
        elif title is None or fields[0] != id_:
            raise ValueError(Errors.E103.format(path=path, line=number, content=line[:80]))
        elif text and abstract is None:
            abstract = text[3]
        elif not mentions:
            continue
        elif text or len(fields) < 4:
            raise ValueError(Errors.E101.format(path=path, line=number, content=line[:80]))
        elif not _is_relation(fields):
            rows.append((number, fields))
    if title is not None:
        yield _document(path, id_, title, abstract, rows)


def _is_relation(fields: list[str]) -> bool:
    """Whether a line has a word where a mention has its start: `CID`, `CPR:3`, or `R1` before it."""
    word = fields[1]
    return word[:1].isalpha() and (":" in word or not word[-1].isdigit() or as_offset(fields[2]) < 0)


def write_pubtator(documents: Iterable[Document], path: str | Path) -> None:
    """Write documents as a PubTator file, with the offsets that they have.

    The title is the first passage, or the whole text where there are none. The format has one line for each of
    title, abstract and mention, so line breaks and tabs become spaces, one for one.

    path: The file; it appears whole or not at all.
    """
    with replacing(Path(path)) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for document in documents:
            id_, text = document.id.translate(_FLAT_ID), document.text.translate(_FLAT)
            end = document.passages[0].end if document.passages else len(text)
            file.write(f"{id_}|t|{text[:end]}\n{id_}|a|{text[end + 1 :]}\n")
            for m in document.mentions:
                label = m.label.translate(_FLAT)
                file.write(f"{id_}\t{m.start}\t{m.end}\t{text[m.start : m.end]}\t{label}\t-\n")
            file.write("\n")


def _document(path: Path, id_: str, title: str, abstract: str | None, rows: list[_Row]) -> Document:
    parts = [("title", 0, title)]
    if abstract:
        parts.append(("abstract", len(title) + 1, abstract))
    found = Annotations(*join_passages(parts))
    for number, fields in rows:
        start, end = as_offset(fields[1]), as_offset(fields[2])
        label = fields[4].strip() if len(fields) > 4 else ""
        if not label or start < 0 or end < 0:
            raise ValueError(Errors.E101.format(path=path, line=number, content="\t".join(fields)[:80]))
        found.add([(start, end)], label, fields[3], f"{path}, line {number}")
    return found.document(id_)

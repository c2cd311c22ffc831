"""PubTator files: title, abstract and mentions, a blank line between documents (NCBI-disease, BC5CDR)."""

import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import Errors
from .documents import Document, Mention, check_mention
from .lines import numbered_lines

_TEXT = re.compile(r"([^|\t]+)\|([ta])\|(.*)", re.DOTALL)
_RELATION = re.compile(r"[^\W\d]+(?:[ -][^\W\d]+)*")
_Row = tuple[int, list[str]]


def read_pubtator(path: str | Path) -> Iterator[Document]:
    """Stream the documents of a PubTator file.

    The text is the title, a space, and the abstract: PubTator's offsets count one character between them.
    Relations (lines with a word where a mention has its start) are skipped.

    RAISES: ValueError, naming file and line, for a broken line, or offsets that do not give the
        mention's text.
    """
    path = Path(path)
    id_, title, abstract, rows = "", None, None, list[_Row]()
    for number, line in numbered_lines(path):
        text = _TEXT.fullmatch(line)
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
        elif text or len(fields) < 4:
            raise ValueError(Errors.E101.format(path=path, line=number, content=line[:80]))
        elif not _RELATION.fullmatch(fields[1]):
            rows.append((number, fields))
    if title is not None:
        yield _document(path, id_, title, abstract, rows)


def _document(path: Path, id_: str, title: str, abstract: str | None, rows: list[_Row]) -> Document:
    text = f"{title} {abstract}" if abstract else title
    mentions = []
    for number, fields in rows:
        try:
            start, end, mention, label = int(fields[1]), int(fields[2]), fields[3], fields[4].strip()
        except (ValueError, IndexError):
            label = ""
        if not label:
            content = "\t".join(fields)[:80]
            raise ValueError(Errors.E101.format(path=path, line=number, content=content))
        if mention != text[start:end]:
            mention = mention.strip()  # NCBI-disease pads a mention with spaces that its offsets leave out
        mentions.append(check_mention(text, Mention(start, end, label, mention), path, number))
    return Document(id_, text, tuple(mentions))

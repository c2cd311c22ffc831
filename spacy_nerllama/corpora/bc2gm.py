"""BioCreative II gene mention files: one sentence a line, mentions in a file of their own (BC2GM)."""

import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import Errors
from ..files import numbered_lines
from .documents import Annotations, Document

LABEL = "GENE"
_ROW = re.compile(r"([^|]+)\|(\d{1,9}) (\d{1,9})\|(.*)", re.DOTALL)
_Row = tuple[int, int, int, str]  # line number, first and last character without white space, mention


def read_bc2gm(path: str | Path, eval_path: str | Path | None = None, mentions: bool = True) -> Iterator[Document]:
    """Stream the sentences of a BioCreative II file (`ID sentence` on each line), one document a sentence.

    path: The sentences, for example `train.in`.
    eval_path: The mentions, `ID|first last|mention` on each line; both offsets are inclusive and do not count
        white space. By default the file beside it that ends in `.GENE.eval`.
    mentions: Whether to read mentions.
    RAISES: ValueError, naming file and line, for a broken line, a mention of no sentence, or offsets that do
        not give the mention's text; FileNotFoundError if the mentions are missing.
    """
    path = Path(path)
    eval_path = path.with_suffix(".GENE.eval") if eval_path is None else Path(eval_path)
    if mentions and not eval_path.is_file():
        raise FileNotFoundError(Errors.E105.format(path=path, eval_path=eval_path))
    rows = _read_rows(eval_path) if mentions else {}
    seen = set[str]()
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        id_, _, text = line.partition(" ")
        if not text.strip() or id_ in seen:
            raise ValueError(Errors.E104.format(path=path, line=number, content=line[:80]))
        seen.add(id_)
        found = Annotations(text)
        for row_number, first, last, mention in rows.pop(id_, []):
            place = character_span(text, first, last) or (-1, -1)
            found.add([place], LABEL, mention, f"{eval_path}, line {row_number}")
        yield found.document(id_, is_sentence=True)
    if rows:
        id_, (row, *_) = next(iter(rows.items()))
        raise ValueError(Errors.E106.format(path=eval_path, line=row[0], id=id_, sentences=path))


def character_span(text: str, first: int, last: int) -> tuple[int, int] | None:
    """Turn inclusive offsets that do not count white space into the characters [start, end) of the text.

    RETURNS: The offsets, or None if the text has not that many characters.
    """
    positions = [i for i, character in enumerate(text) if not character.isspace()]
    if not 0 <= first <= last < len(positions):
        return None
    return positions[first], positions[last] + 1


def _read_rows(path: Path) -> dict[str, list[_Row]]:
    rows: dict[str, list[_Row]] = {}
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        match = _ROW.fullmatch(line)
        if match is None:
            raise ValueError(Errors.E107.format(path=path, line=number, content=line[:80]))
        rows.setdefault(match[1], []).append((number, int(match[2]), int(match[3]), match[4]))
    return rows

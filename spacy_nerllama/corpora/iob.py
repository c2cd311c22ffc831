"""IOB2 files: a token and its tag on each line, a blank line between sentences."""

import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import Errors
from .documents import Document, Mention
from .lines import numbered_lines

_TAG = re.compile(r"O|([BI])(?:-(.+))?")


def read_iob(path: str | Path, label: str | None = None) -> Iterator[Document]:
    """Stream the sentences of a tab-separated IOB2 file, one document a sentence.

    The token is the first column, the tag the last: `O`, `B-TYPE`, `I-TYPE`, or bare `B` and `I`. An `I` that
    continues no mention of its type begins one, as in the CoNLL scorer. `-DOCSTART-` lines are skipped.

    path: The file.
    label: The label of mentions whose tags name no type.
    RAISES: ValueError, naming file and line, for a line without a token or a tag, an unknown tag, or a bare
        tag where no label is given.
    """
    path = Path(path)
    words, tags, count = list[str](), list[tuple[str, str]](), 0
    for number, line in numbered_lines(path):
        fields = line.split("\t")
        if line.strip() and fields[0].strip() != "-DOCSTART-":
            words.append(fields[0])
            tags.append(_tag(path, number, fields, label))
        elif words:
            count += 1
            yield _document(f"{path.stem}-{count}", words, tags)
            words, tags = [], []
    if words:
        yield _document(f"{path.stem}-{count + 1}", words, tags)


def _tag(path: Path, line: int, fields: list[str], label: str | None) -> tuple[str, str]:
    """Read a line's tag as (B, I or O; label)."""
    match = _TAG.fullmatch(fields[-1].strip()) if len(fields) > 1 and fields[0].strip() else None
    if match is None:
        raise ValueError(Errors.E108.format(path=path, line=line, content="\t".join(fields)[:80]))
    if match[1] is None:
        return "O", ""
    found = match[2] or label
    if not found:
        raise ValueError(Errors.E109.format(path=path, line=line, tag=match[0]))
    return match[1], found


def _document(id_: str, words: list[str], tags: list[tuple[str, str]]) -> Document:
    text = " ".join(words)
    spans: list[tuple[int, int, str]] = []
    start, previous = 0, ""
    for word, (tag, label) in zip(words, tags, strict=True):
        end = start + len(word)
        if tag == "I" and label == previous:
            spans[-1] = (spans[-1][0], end, label)
        elif tag != "O":
            spans.append((start, end, label))
        start, previous = end + 1, label
    mentions = tuple(Mention(start, end, label, text[start:end]) for start, end, label in spans)
    return Document(id_, text, mentions, words=tuple(words), is_sentence=True)

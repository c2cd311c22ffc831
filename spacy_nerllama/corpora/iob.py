"""IOB files (CoNLL), IOBES and the like: a token and its tag on each line, a blank line between sentences."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import Errors
from ..files import numbered_lines
from .documents import Document, Mention

TAG = re.compile(r"O|([BIESLUM])(?:-(.+))?")  # End and Single of IOBES, Last and Unit of BILOU, Middle of BMES
_BEGIN, _END = "BSU", "ESLU"
_BLANKS = re.compile("[ \t]+")  # a token may be another white space


def read_iob(
    path: str | Path,
    label: str | None = None,
    *,
    columns: tuple[int, int] = (0, -1),
    separator: str | None = "\t",
) -> Iterator[Document]:
    """Stream the sentences of an IOB2, IOBES, BILOU or BMES file, one document a sentence.

    Tags are `O`, `B-TYPE`, `I-TYPE` and so on, or bare `B` and `I`. An `I` (`M`, `E`, `L`) that continues no
    mention of its type begins one, as in the CoNLL scorer, and what a `B` begins need not have its `E` or `L`.
    `-DOCSTART-` and `###MEDLINE:` lines and comments (`# id = 1`) are skipped.

    path: The file.
    label: The label of mentions whose tags name no type.
    columns: Which columns hold token and tag, from 0, or from -1 backwards.
    separator: What separates columns; None: spaces and tabs. If the first line has no tab, tabs are None, too.
    RAISES: ValueError, naming file and line, for a line without a token or a tag, an unknown tag, or a bare
        tag where no label is given.
    """
    path = Path(path)
    words, tags, count = list[str](), list[tuple[str, str]](), 0
    for number, line in numbered_lines(path):
        if line.strip() and not is_header(line):
            if not (words or count or (separator and separator in line)):
                separator = None
            word, tag = _columns(split_columns(line, separator), columns)
            where = f"{path}, line {number}"
            if not word or not TAG.fullmatch(tag):
                raise ValueError(Errors.E108.format(where=where, content=line[:80]))
            words.append(word)
            tags.append(parse_tag(tag, label, where))
        elif words:
            count += 1
            yield tagged_sentence(f"{path.stem}-{count}", words, tags)
            words, tags = [], []
    if words:
        yield tagged_sentence(f"{path.stem}-{count + 1}", words, tags)


def is_header(line: str) -> bool:
    """Whether a line is of a file but no token: where a document begins, or a comment."""
    if line.startswith(("-DOCSTART-", "###MEDLINE:")):
        return True
    return line.startswith("# ") and not TAG.fullmatch(line.split()[-1])


def split_columns(line: str, separator: str | None) -> list[str]:
    """Split a line into its columns, see `read_iob`."""
    return line.split(separator) if separator else _BLANKS.split(line.strip(" \t"))


def parse_tag(tag: str, label: str | None, where: str) -> tuple[str, str]:
    """Read a tag as (letter, label).

    where: File and line, for the message.
    RAISES: ValueError for an unknown tag, or one that names no type where no label is given.
    """
    match = TAG.fullmatch(tag)
    if match is None:
        raise ValueError(Errors.E108.format(where=where, content=tag[:80]))
    if match[1] is None:
        return "O", ""
    found = match[2] or label
    if not found:
        raise ValueError(Errors.E109.format(where=where, tag=tag))
    return match[1], found


def tagged_sentence(id_: str, words: Sequence[str], tags: Sequence[tuple[str, str]]) -> Document:
    """Make a document of a sentence's words and their tags, as `parse_tag` gives them."""
    text = " ".join(words)
    spans: list[tuple[int, int, str]] = []
    start, previous = 0, ""
    for word, (tag, label) in zip(words, tags, strict=True):
        end = start + len(word)
        if tag in _BEGIN or (tag != "O" and label != previous):
            spans.append((start, end, label))
        elif tag != "O":
            spans[-1] = (spans[-1][0], end, label)
        start, previous = end + 1, "" if tag in _END else label
    mentions = tuple(Mention(start, end, label, text[start:end]) for start, end, label in spans)
    return Document(id_, text, mentions, words=tuple(words), is_sentence=True)


def _columns(fields: Sequence[str], columns: tuple[int, int]) -> tuple[str, str]:
    """Give token and tag; empty ones if the line has not both."""
    token, tag = (i + len(fields) if i < 0 else i for i in columns)
    if token == tag or not (0 <= token < len(fields) and 0 <= tag < len(fields)):
        return "", ""
    return fields[token].strip(" \t"), fields[tag].strip(" \t")

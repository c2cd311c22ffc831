"""Which format a corpus has: from its name, what lies beside it, and how it begins."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from ..errors import Errors
from ..files import read_head
from .iob import TAG, is_header, split_columns
from .pubtator import TEXT_LINE

_BIOC_JSON = re.compile(r'"(?:passages|documents|PubTator3)"\s*:')
_BIOC_XML = re.compile(r"(?:(?:<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>]*>)\s*)*<(?:collection|document)\b", re.DOTALL)
_JSONL = re.compile(r'(?:\[\s*)?\{.*"text"\s*:')
_DECODER = json.JSONDecoder()


def detect_format(path: str | Path) -> str:
    """Recognise the format of a corpus.

    path: A file, or a folder of brat pairs, of Parquet files, or that `save_to_disk` wrote.
    RETURNS: A name that `read_corpus` takes.
    RAISES: ValueError if no format fits, or several do, which are named, or if the file is compressed;
        FileNotFoundError.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(Errors.E111.format(path=path))
    if path.is_dir():
        found = [name for name, patterns in _FOLDERS.items() if any(any(path.glob(p)) for p in patterns)]
    else:
        head = read_head(path)
        found = [name for name, fits in _FILES.items() if fits(path, head)]
    if len(found) != 1:
        error = Errors.E126 if found else Errors.E125
        formats = ", ".join(_FOLDERS if path.is_dir() else _FILES)
        raise ValueError(error.format(path=path, candidates=", ".join(found), formats=formats))
    return found[0]


def _is_bioc(path: Path, head: str) -> bool:
    start = head.lstrip()
    if start[:1] not in ("{", "["):
        return bool(_BIOC_XML.match(start))
    keys = _keys(start)
    return bool(_BIOC_JSON.search(head)) if keys is None else bool({"passages", "documents", "PubTator3"} & keys)


def _is_jsonl(path: Path, head: str) -> bool:
    start = head.lstrip()
    keys = _keys(start)
    if keys is None:
        return bool(_JSONL.match(start) and not _BIOC_JSON.search(head))
    return "text" in keys or {"data", "label"} <= keys


def _keys(start: str) -> set[str] | None:
    """The keys of the first object, alone or in a list; None if there is no whole one."""
    try:
        value, _ = _DECODER.raw_decode(start.removeprefix("[").lstrip())
    except (ValueError, RecursionError):
        return None
    return set(value) if isinstance(value, dict) else None


def _is_pubtator(path: Path, head: str) -> bool:
    match = TEXT_LINE.match(head.lstrip().partition("\n")[0])
    return match is not None and match[2] == "t"


def _is_iob(path: Path, head: str) -> bool:
    """Whether each line, of which the last may be cut off, is a token and a tag."""
    separator = "\t" if "\t" in head else None
    lines = [line for line in head.split("\n")[:1000] if line.strip() and not is_header(line)]
    complete = [split_columns(line, separator) for line in (lines[:-1] if len(lines) > 1 else lines)]
    if separator is None and (len(complete) < 3 or len({*map(len, complete)}) > 1):
        return False  # a text may end in a word such as B
    return bool(complete) and all(len(line) > 1 and TAG.fullmatch(line[-1].strip()) for line in complete)


def _is_brat(path: Path, head: str) -> bool:
    return path.suffix in (".ann", ".txt") and all(path.with_suffix(s).is_file() for s in (".ann", ".txt"))


_FILES: dict[str, Callable[[Path, str], bool]] = {
    "pubtator": _is_pubtator,
    "bioc": _is_bioc,
    "bc2gm": lambda path, head: path.suffix == ".in" and path.with_suffix(".GENE.eval").is_file(),
    "iob": _is_iob,
    "brat": _is_brat,
    "mark": lambda path, head: "<mark>" in head and head.lstrip()[:1] != "{",
    "jsonl": _is_jsonl,
    "hf": lambda path, head: path.suffix == ".parquet",
}
_FOLDERS = {"brat": ("*.ann",), "hf": ("dataset_dict.json", "state.json", "*.parquet", "*/*.parquet")}

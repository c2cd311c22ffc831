"""Corpus files in and out: text with line numbers for messages that say where, JSON as a stream, whole writes."""

import codecs
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeGuard
from uuid import uuid4

from .errors import Errors

_CHUNK = 1 << 16  # characters
_HEAD = 1 << 16  # bytes
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_PACKED = {b"\x1f\x8b": "gunzip", b"PK\x03\x04": "unzip"}  # by what a file begins with, what unpacks it
_SPACE = re.compile(r"[ \t\r\n]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBER = re.compile(r"[0-9]{1,10}")
_DECODER = json.JSONDecoder()


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Stream the lines of a UTF-8 file, without their ends; a byte order mark and CRLF are allowed.

    YIELDS: The line's number, from 1, and its text.
    RAISES: ValueError, naming file and line, for bytes that are not UTF-8, and for a compressed file.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if number == 1:
                _check_unpacked(path, raw)
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number, error) from None
            yield number, line.removesuffix("\n").removesuffix("\r")


def read_text(path: Path) -> str:
    """Read a UTF-8 file as it stands: offsets may count its line ends, and a byte order mark.

    RAISES: ValueError, naming file and line, for bytes that are not UTF-8, and for a compressed file.
    """
    raw = path.read_bytes()
    _check_unpacked(path, raw)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(path, raw.count(b"\n", 0, error.start) + 1, error) from None


def read_head(path: Path) -> str:
    """Read how a file begins, without its byte order mark; UTF-16, too, which XML may be. Bad bytes are replaced.

    RAISES: ValueError for a compressed file.
    """
    with path.open("rb") as file:
        raw = file.read(_HEAD)
    _check_unpacked(path, raw)
    return raw.decode("utf-16" if raw.startswith(_UTF16) else "utf-8-sig", errors="replace")


def _check_unpacked(path: Path, raw: bytes) -> None:
    for magic, tool in _PACKED.items():
        if raw.startswith(magic):
            raise ValueError(Errors.E131.format(path=path, tool=tool))


def _not_utf8(path: Path, line: int, error: UnicodeDecodeError) -> ValueError:
    reason = "it begins as UTF-16 does" if error.object.startswith(_UTF16) else error
    return ValueError(Errors.E100.format(path=path, line=line, reason=reason))


def is_text(value: object) -> TypeGuard[str]:
    r"""Whether a value from JSON is a string of whole characters: an escape such as `\ud83d` is half of one."""
    return isinstance(value, str) and not _SURROGATE.search(value)


def as_id(value: object) -> str | None:
    """Read an identifier, a string or a number; None if it is none."""
    return str(value) if (isinstance(value, int) or is_text(value)) and value != "" else None


def as_offset(value: object) -> int:
    """Read an offset, given as a number or as its digits.

    RETURNS: The offset, or -1 if it is none.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**10 else -1


def parse_json(line: str, path: Path, number: int) -> Any:
    """Read a line of JSON.

    RAISES: ValueError, naming file and line, if it is not JSON.
    """
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(Errors.E115.format(path=path, line=number, reason=error)) from None


def stream_json(path: Path, arrays: Collection[str]) -> Iterator[tuple[int, Any]]:
    """Stream the values of a JSON file of any size.

    path: One JSON value, or several (JSON lines).
    arrays: A list at the top, or under one of these keys of an object at the top, is given element by element.
    YIELDS: The line where the value begins, and the value.
    RAISES: ValueError, naming file and line, for what is not JSON or not UTF-8.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        text = _Json(path, file)
        while first := text.peek():
            if first == "[":
                yield from text.elements()
            elif first == "{":
                yield from text.members(arrays)
            else:
                raise text.broken("expected { or [")


class _Json:
    """JSON ahead of a place in a file, of which no more is held than the value that is being read.

    (ijson streams JSON as well, but cannot say in which line an error is.)
    """

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path, self.file = path, file
        self.buffer, self.at, self.line = "", 0, 1

    def broken(self, reason: object) -> ValueError:
        return ValueError(Errors.E115.format(path=self.path, line=self.line, reason=reason))

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            match = _SPACE.match(self.buffer, self.at)
            assert match is not None  # it matches nothing, too
            self._go(match.end())
            if self.at < len(self.buffer) or not self._more():
                return self.buffer[self.at : self.at + 1]

    def expect(self, characters: str) -> str:
        found = self.peek()
        if not found or found not in characters:
            raise self.broken(f"expected {' or '.join(characters)}")
        self._go(self.at + 1)
        return found

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.buffer, self.at)
            except json.JSONDecodeError as error:
                if self._more():
                    continue
                self._go(error.pos)
                raise self.broken(error.msg) from None
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
                raise self.broken(error) from None
            if end < len(self.buffer) or not self._more():  # a number may go on
                self._go(end)
                return value

    def elements(self) -> Iterator[tuple[int, Any]]:
        self.expect("[")
        if self.peek() == "]":
            self.expect("]")
            return
        separator = ","
        while separator == ",":
            self.peek()
            line = self.line
            yield line, self.value()
            separator = self.expect(",]")

    def members(self, arrays: Collection[str]) -> Iterator[tuple[int, Any]]:
        line, members, streamed = self.line, dict[str, Any](), False
        self.expect("{")
        separator = "," if self.peek() != "}" else self.expect("}")
        while separator == ",":
            if self.peek() != '"':
                raise self.broken("expected a key")
            key = self.value()
            self.expect(":")
            if key in arrays and self.peek() == "[":
                streamed = True
                yield from self.elements()
            else:
                members[key] = self.value()
            separator = self.expect(",}")
        if not streamed:
            yield line, members

    def _go(self, to: int) -> None:
        self.line += self.buffer.count("\n", self.at, to)
        self.at = to

    def _more(self) -> bool:
        """Read on, twice as much each time for a value that goes on, so that long ones cost no more."""
        rest = self.buffer[self.at :]
        try:
            chunk = self.file.read(max(_CHUNK, len(rest)))
        except UnicodeDecodeError as error:
            raise _not_utf8(self.path, self.line, error) from None
        self.buffer, self.at = rest + chunk, 0
        return bool(chunk)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file or a folder whole or not at all: what is there is replaced when the block ends well.

    path: Where it shall be; its folder is made.
    YIELDS: Where to write it, in the same folder, since a move is atomic there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")  # one of a killed process may still be there
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)

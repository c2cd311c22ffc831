"""Lines of a corpus file with their numbers, for error messages that say where."""

from collections.abc import Iterator
from pathlib import Path

from ..errors import Errors


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Stream the lines of a UTF-8 file, without their ends; a byte order mark and CRLF are allowed.

    YIELDS: The line's number, from 1, and its text.
    RAISES: ValueError, naming file and line, for bytes that are not UTF-8.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(Errors.E100.format(path=path, line=number, reason=error)) from None
            yield number, line.removesuffix("\n").removesuffix("\r")

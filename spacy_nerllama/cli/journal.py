"""Docs that are done, kept safe while others are not: a file that is only appended to, and survives a kill."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO

import srsly
from spacy.tokens import Doc
from spacy.vocab import Vocab

from ..errors import Errors

_HEAD = Struct("<II")  # the length of a record, and its checksum


class Journal:
    """The docs of a job in the order in which they were done, each with the error that it failed with, if any.

    A record that a kill cut off is dropped when the file is opened again, and its doc is done again.

    path: The file. It is made, or gone on with.
    key: What the job is. A file of another one is refused.
    restart: Forget what is in the file.
    done: How many docs it holds.
    failed: The index, id and error of those that failed.
    RAISES: ValueError for the journal of another job; BlockingIOError if another process is writing it.
    """

    def __init__(self, path: Path, key: str, restart: bool = False) -> None:
        from filelock import FileLock, Timeout

        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(f"{path}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise BlockingIOError(Errors.E070.format(path=path)) from None
        self._file: BinaryIO = path.open("wb" if restart else "ab")
        self.done = 0
        self.failed: list[tuple[int, str, str]] = []
        try:
            self._recover(key)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def add(self, doc: Doc, id_: str, error: str | None = None) -> None:
        """Write a doc that is done. When this returns, a kill of the process cannot lose it."""
        self._append({"doc": doc.to_bytes(), "id": id_, "error": error})
        self._count(id_, error)

    def docs(self, vocab: Vocab) -> Iterator[Doc]:
        """Read the docs."""
        records = self._records()
        next(records)
        for _, record in records:
            yield Doc(vocab).from_bytes(record["doc"])

    def remove(self) -> None:
        """Delete the file: its docs are where they belong."""
        self._file.close()
        self.path.unlink()

    def _recover(self, key: str) -> None:
        end = 0
        for i, (end, record) in enumerate(self._records()):  # noqa: B007 (the last end is used)
            if i:
                self._count(record["id"], record["error"])
            elif record["key"] != key:
                raise ValueError(Errors.E071.format(path=self.path))
        self._file.truncate(end)
        if not end:
            self._append({"key": key})

    def _count(self, id_: str, error: str | None) -> None:
        if error is not None:
            self.failed.append((self.done, id_, error))
        self.done += 1

    def _append(self, record: dict[str, Any]) -> None:
        data = srsly.msgpack_dumps(record)
        self._file.write(_HEAD.pack(len(data), zlib.crc32(data)) + data)
        self._file.flush()

    def _records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Read whole records, each with where it ends."""
        with self.path.open("rb") as file:
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                length, checksum = _HEAD.unpack(head)
                data = file.read(length)
                if len(data) < length or zlib.crc32(data) != checksum:
                    return
                yield file.tell(), srsly.msgpack_loads(data)

"""Answers that were given before, kept in an SQLite file: `nerllama.Cache.v1`."""

import hashlib
import json
import sqlite3
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from .. import __version__
from ..errors import Errors, ModelUnavailableError, NotStartedError, Warnings
from ..files import replacing
from ..marking import MarkingScheme
from ..prompts import Prompt, scheme_of
from ..requests import Request
from ..voting import Vote, Votes, Voting
from .interface import Identified
from .records import Record

MOST_WAITING = 4096
"""How many requests may wait, answered or not, for the first that was asked for: they are held in memory."""


class Cache:
    """Answers in a file, which several processes can share. Registered as `nerllama.Cache.v1`.

    path: The file; it is made, with its folder. It must be on a local disk, not on one of a network.
    timeout: Seconds to wait for another process that writes.
    """

    strict = False
    """Whether a file that fails ends the run, instead of being done without."""

    def __init__(self, path: str | Path, timeout: float = 30.0) -> None:
        self.path = Path(path).expanduser()
        self.timeout = timeout

    def through(self, vote: Vote, key: Callable[[Request], str], scheme: MarkingScheme) -> Vote:
        """Make a `vote` that asks only for what is not kept, and keeps what it is told.

        Of several answers to one key the first is kept and given. Errors are not kept. If the file fails once it
        is open, there is a warning, and the rest goes by it (of a `Recorder`, ModelUnavailableError).

        vote: Gives the votes of requests, or an error in the place of one's, in order.
        key: Gives what the answer to a request depends on.
        scheme: The markers by which responses that are kept are read.
        RETURNS: As `vote`. It raises ValueError if the file cannot be opened, before it takes a request, and
            NotStartedError if `vote` raises before it has taken one.
        """

        def ask(requests: Iterable[Request]) -> Iterator[Votes | Exception]:
            return _answers(iter(requests), vote, key, scheme, _Store(self.path, self.timeout, self.strict))

        return ask

    def remove(self) -> None:
        """Delete the file, if there is one."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)


class Recorder(Cache):
    """Keeps every answer of a run, by its text and labels, or ends the run: a record with gaps is none."""

    strict = True

    def write(self, path: Path, failed: Iterable[Request] = ()) -> None:
        """Write what is kept as JSON lines, as `nerllama.Replay.v1` reads them, in the order in which it came.

        path: The file; it appears whole or not at all.
        failed: The whole texts of docs that failed. They are written as texts without a mention, which `Replay`
            finds before their sentences: those that were answered would be half an annotation. One that was
            answered elsewhere, as a doc or a sentence, has that answer.
        """
        nothing = {text_key(request): Record.of(request, Votes()) for request in failed}
        with (
            replacing(path) as temporary,
            closing(_Store(self.path, self.timeout, self.strict)) as store,
            temporary.open("w", encoding="utf8", newline="\n") as file,
        ):
            for key, line in store.lines():
                file.write(f"{line}\n")
                nothing.pop(key, None)
            file.writelines(f"{record.to_line()}\n" for record in nothing.values())


def request_key(prompt: Prompt, voting: Voting, max_batch_tokens: int, model: object) -> Callable[[Request], str]:
    """Make the function that gives a hash of all that the answer to a request depends on.

    prompt, voting, max_batch_tokens: As a model takes them; threshold and agreement do not count.
    model: The model, with a method `fingerprint`.
    RAISES: ValueError if the model has none.
    """
    if not isinstance(model, Identified):
        raise ValueError(Errors.E202.format(model=type(model).__name__))
    drawn = (voting.samples, voting.min_mass, voting.temperature, voting.seed)
    settings = (__version__, model.fingerprint(), drawn, max_batch_tokens, repr(scheme_of(prompt)))

    def key(request: Request) -> str:
        sentence = request.sentence
        parts = (*settings, prompt(request), sentence.words, sentence.spaces, request.labels)
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=20).hexdigest()

    return key


def text_key(request: Request) -> str:
    """Give that by which a record is found: the text, white space aside, and the labels."""
    return json.dumps((request.sentence.squashed, [label for label, _ in request.labels]))


def _answers(
    requests: Iterator[Request],
    vote: Vote,
    key: Callable[[Request], str],
    scheme: MarkingScheme,
    store: "_Store",
) -> Iterator[Votes | Exception]:
    """Give the answers to requests in order, those that are kept and those that are asked for."""
    key = lru_cache(MOST_WAITING)(key)  # it writes the prompt, and is wanted before and after the model is asked

    def kept(request: Request) -> Votes | None:
        record = store.get(key(request))
        return record.votes_on(request, scheme)[0] if record else None

    def keep(request: Request, answer: Votes | Exception) -> Votes | Exception:
        if isinstance(answer, Exception):
            return answer
        record = Record.of(request, answer)
        first = store.put(key(request), record)
        return answer if first == record else first.votes_on(request, scheme)[0]

    with closing(store):
        for request in requests:
            found = kept(request)
            if found is not None:
                yield found
            else:
                yield from _asked(request, requests, vote, kept, keep)


def _asked(
    first: Request,
    requests: Iterator[Request],
    vote: Vote,
    kept: Callable[[Request], Votes | None],
    keep: Callable[[Request, Votes | Exception], Votes | Exception],
) -> Iterator[Votes | Exception]:
    """Ask for a request, and in the same stream for those after it, until too many wait for it."""
    waiting: deque[tuple[Request, Votes | None]] = deque()
    taken = False

    def missing() -> Iterator[Request]:
        nonlocal taken
        taken = True
        waiting.append((first, None))
        yield first
        while len(waiting) < MOST_WAITING:
            request = next(requests, None)
            if request is None:
                return
            found = kept(request)
            waiting.append((request, found))
            if found is None:
                yield request

    def ready() -> Iterator[Votes]:
        while waiting and waiting[0][1] is not None:
            yield waiting[0][1]
            waiting.popleft()

    try:
        for answer in vote(missing()):
            yield from ready()
            request, _ = waiting.popleft()
            yield keep(request, answer)
        yield from ready()
        if waiting:  # else those that follow would get each other's answers
            raise ValueError(Errors.E207)
    except Exception as error:
        if taken:
            raise
        raise NotStartedError(error) from error


class _Store:
    """An open cache file. After an error it holds nothing.

    strict: Raise such an error as ModelUnavailableError.
    RAISES: ValueError if it cannot be opened.
    """

    def __init__(self, path: Path, timeout: float, strict: bool) -> None:
        self._path = path
        self._strict = strict
        self._open = True
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Streams are taken by one thread at a time, but not always by the same.
            self._file = sqlite3.connect(path, timeout, isolation_level=None, check_same_thread=False)
            self._file.execute("PRAGMA journal_mode = WAL")  # readers do not wait for a writer
            self._file.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing, a power cut the last answers
            self._file.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, record TEXT NOT NULL)")
        except (sqlite3.Error, OSError) as error:
            raise ValueError(Errors.E201.format(path=path, reason=error)) from error

    def get(self, key: str) -> Record | None:
        """Give what is kept."""
        if not self._open:
            return None
        try:
            row = self._file.execute("SELECT rowid, record FROM answers WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._failed(error)
            return None
        return Record.from_line(row[1], self._path, row[0]) if row else None

    def put(self, key: str, record: Record) -> Record:
        """Keep a record, unless there is one already; give that which is kept."""
        if self._open:
            try:
                self._file.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, record.to_line()))
            except sqlite3.Error as error:
                self._failed(error)
        return self.get(key) or record

    def lines(self) -> Iterator[tuple[str, str]]:
        """Give all keys and records, as lines, in the order in which they came."""
        yield from self._file.execute("SELECT key, record FROM answers ORDER BY rowid")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _failed(self, error: sqlite3.Error) -> None:
        if self._strict:
            raise ModelUnavailableError(Errors.E208.format(path=self._path, reason=error)) from error
        self._open = False
        warnings.warn(Warnings.W200.format(path=self._path, reason=error), stacklevel=2)

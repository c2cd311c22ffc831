"""Docs through a model as a stream: requests of many docs go out together, each doc comes back in its turn.

A model that knows which request failed says so in its place, and the doc is reported. One that batches requests
without knowing of docs raises for a batch of several: what was under way is then annotated again doc by doc, and
only the docs that fail alone are reported. Either way all come out, in order.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from spacy.tokens import Doc

from .agreement import Answered
from .errors import ModelUnavailableError, NotStartedError
from .requests import Request
from .voting import Vote, Votes

Ask = Callable[[Doc], Iterable[tuple[int, Request]]]
Write = Callable[[Doc, Iterable[Answered]], None]
Report = Callable[[Doc, Exception], None]
_Outcome = tuple[Doc, Exception | None]


def annotate(
    docs: Iterable[Doc], ask: Ask, vote: Vote, write: Write, report: Report, batch_size: int
) -> Iterator[Doc]:
    """Annotate docs as a stream.

    docs: The docs. If taking one fails, that error is raised once the docs before it are out.
    ask: Gives the requests of a doc, each with the doc's token at which its sentence begins.
    vote: Gives the votes of requests, in order, or an error in the place of those of a request that failed. What
        it raises before it has taken a request is no doc's fault, and is raised; so is `ModelUnavailableError`.
    write: Writes the answers to a doc's requests to it.
    report: Is told of a doc that failed, with the error. If it does not raise, the doc comes out not annotated.
    batch_size: So many docs are taken, and given back, before others are.
    RETURNS: The docs, in order.
    """
    source = _Source(docs)
    try:
        for doc, error in _outcomes(source, ask, vote, write, batch_size):
            if error is not None:
                report(doc, error)
            yield doc
    except NotStartedError as error:
        raise error.reason from None
    if source.error is not None:
        raise source.error


def _outcomes(source: "_Source", ask: Ask, vote: Vote, write: Write, batch_size: int) -> Iterator[_Outcome]:
    """Annotate docs; each comes with the error that it failed with, if any."""
    while not source.ended:
        waiting: deque[_Waiting] = deque()
        try:
            yield from _in_batches(islice(source, batch_size), waiting, ask, vote, write)
        except ModelUnavailableError:
            raise
        except Exception:
            # As in spaCy's own pipes, whatever a doc makes a tokenizer or a model raise is for the error handler.
            # It is not lost here: the doc that raised it raises it again below, alone, where it can be named.
            if not waiting:
                raise
        for entry in waiting:
            alone: deque[_Waiting] = deque()
            error: Exception | None
            try:
                [(_, error)] = _in_batches([entry.doc], alone, ask, vote, write)
            except ModelUnavailableError:
                raise
            except Exception as raised:
                if not alone:
                    raise
                error = raised
            yield entry.doc, error


@dataclass
class _Waiting:
    """A doc with its requests, and the votes that have come in."""

    doc: Doc
    asked: list[tuple[int, Request]] = field(default_factory=list)
    votes: list[Votes | Exception] = field(default_factory=list)


def _in_batches(
    docs: Iterable[Doc], waiting: deque[_Waiting], ask: Ask, vote: Vote, write: Write
) -> Iterator[_Outcome]:
    """Annotate docs as a stream. When it raises, `waiting` holds the docs that were taken and not given back."""
    for votes in vote(_requests(docs, ask, waiting)):
        yield from _answered(waiting, write)  # docs without requests, before the one that is answered now
        waiting[0].votes.append(votes)
        yield from _answered(waiting, write)
    yield from _answered(waiting, write)


def _requests(docs: Iterable[Doc], ask: Ask, waiting: deque[_Waiting]) -> Iterator[Request]:
    for doc in docs:
        entry = _Waiting(doc)
        waiting.append(entry)
        entry.asked = list(ask(doc))
        yield from (request for _, request in entry.asked)


def _answered(waiting: deque[_Waiting], write: Write) -> Iterator[_Outcome]:
    """Give back the docs at the head all of whose votes have come in; one whose request failed is not written."""
    while waiting and len(waiting[0].votes) == len(waiting[0].asked):
        entry = waiting[0]
        answers, error = list[Answered](), None
        for (start, request), votes in zip(entry.asked, entry.votes, strict=True):
            if isinstance(votes, Exception):
                error = error or votes
            else:
                answers.append(Answered(start, request, votes))
        if error is None:
            write(entry.doc, answers)
        waiting.popleft()
        yield entry.doc, error


class _Source:
    """The docs of a stream, which can be gone on with after an error of whoever took them.

    ended: Whether there are no more.
    error: The stream's own error, which ended it, if any.
    """

    def __init__(self, docs: Iterable[Doc]) -> None:
        self._docs = iter(docs)
        self.ended = False
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[Doc]:
        while True:
            try:
                doc = next(self._docs)
            except StopIteration:
                self.ended = True
                return
            except Exception as error:  # kept, and raised when the docs before it are out
                self.ended, self.error = True, error
                return
            yield doc

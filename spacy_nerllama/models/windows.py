"""Sentences too long to be read at once: cut into windows, never truncated."""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from ..errors import Errors, Warnings
from ..requests import Request, Sentence, TokenSpan
from ..voting import Votes, shift
from .decoding import Job

LONGEST = 1024
"""The most ids that the reading of a window can take, however many there is room for: 200 words and more.

Every pass carries what was read before, so the time of a window grows with the square of its length, and a text
without a full stop is one sentence. Nor have adapters seen longer ones: recipes train on sequences of at most 512
ids.
"""


def in_windows(
    requests: Iterable[Request],
    make: Callable[[Request], Job],
    decode: Callable[[Iterable[Job]], Iterator[Votes | Exception]],
    limit: int,
) -> Iterator[Votes | Exception]:
    """Decode requests, those that are too long window by window.

    requests: The requests, taken as a stream.
    make: Makes the job of a request.
    decode: Gives the votes of jobs, in order, or an error in the place of those of one.
    limit: How many tokens of the model a job may take; its reading takes no more than `LONGEST`.
    RETURNS: The votes of the requests, in order, those of windows put together. A mention that the edge of a
        window cuts is not found whole. If a window failed, its error is in the place of the votes.
    RAISES: ValueError, while votes are taken, for a prompt that leaves no room for any word.
    """
    plans: deque[list[int]] = deque()  # where the windows of each request begin, for requests not yet given back

    def jobs() -> Iterator[Job]:
        for request in requests:
            windows = list(_cut(0, request, make, limit))
            plans.append([start for start, _ in windows])
            yield from (job for _, job in windows)

    answers = decode(jobs())
    while True:
        first = next(answers, None)
        while plans and not plans[0]:  # nothing of it fits: warned of, and without votes
            plans.popleft()
            yield Votes(answered=False)
        if first is None:
            return
        starts = plans.popleft()
        yield _together(starts, [first, *(next(answers) for _ in starts[1:])])


def _together(starts: list[int], answers: list[Votes | Exception]) -> Votes | Exception:
    if starts == [0]:
        return answers[0]
    spans: dict[TokenSpan, float] = {}
    unexplored = 0.0
    for start, part in zip(starts, answers, strict=True):
        if isinstance(part, Exception):
            return part
        spans.update(shift(part.spans, start))
        unexplored = max(unexplored, part.unexplored)
    return Votes(spans, unexplored)


def _cut(start: int, request: Request, make: Callable[[Request], Job], limit: int) -> Iterator[tuple[int, Job]]:
    """Halve a request until its parts fit. Gives their jobs, each with the token at which it begins."""
    job = make(request)
    words, spaces = request.sentence.words, request.sentence.spaces
    if job.size <= limit and (job.grammar.longest <= LONGEST or len(words) == 1):
        yield start, job
        return
    if len(words) == 1:
        # Were it a word of one id, in the prompt and in the copy.
        if job.size - 2 * (len(job.copy.ids) - 1) > limit:
            raise ValueError(Errors.E048.format(n=len(job.prompt.ids), limit=limit))
        warnings.warn(Warnings.W001.format(n=len(words[0])), stacklevel=2)
        return
    middle = len(words) // 2
    for first, last in ((0, middle), (middle, len(words))):
        while first < last and words[first].isspace():
            first += 1
        while first < last and words[last - 1].isspace():
            last -= 1
        if first < last:
            part = Request(Sentence(words[first:last], spaces[first:last]), request.labels)
            yield from _cut(start + first, part, make, limit)

"""Marked decoding: requests -> votes, by reading whole drafts and going on from where readings leave them.

One forward pass over the prompt and the whole unmarked copy gives the next-token distribution at every boundary at
once. A walk says where readings leave the copy; each such branch keeps the past up to there, writes its marker,
drafts the remaining copy, and is read in a later pass: one pass and one or two more for each mention instead of
one for each token, and the same result as token-by-token constrained decoding (the same reading if greedy, the
same distribution if sampled). Prior art: input-guided aggressive decoding (Ge et al., arXiv:2205.10350) and
sidetrack decoding (OpenReview MtyXaOjlUa).

Rows of all requests and passes wait in one pool. A batch takes rows of about the same length from it, so finished
rows are replaced at once, and no batch exceeds the budget of tokens, which bounds memory beforehand.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby, islice
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ..grammar import Grammar, Path, State
from ..requests import TokenSpan
from ..voting import Votes
from .engine import Row, Scores
from .tokens import PromptIds
from .walks import Branch, Floats, Walk

POOL = 2
"""How many batches' worth of tokens wait in the pool, so that rows of about the same length find each other."""


class Scorer(Protocol):
    """What marked decoding needs of an engine."""

    def score(self, rows: list[Row]) -> Scores:
        """Read a batch of rows and give the logits of the choices at their decisions."""


@dataclass(frozen=True)
class Job:
    """A request, ready to be decoded."""

    prompt: PromptIds
    grammar: Grammar
    walk: Walk

    @cached_property
    def copy(self) -> Path:
        """The unmarked copy: the first draft."""
        return self.grammar.draft(State())

    @property
    def size(self) -> int:
        """The most tokens that the prompt and a reading can take: where each word is a mention."""
        return len(self.prompt.shared) + len(self.prompt.own) + self.grammar.longest


@dataclass
class _Result:
    """The votes of a job as they come in; complete when none of its rows waits any more."""

    spans: dict[TokenSpan, float] = field(default_factory=dict)
    explored: float = 0.0
    waiting: int = 0

    def add(self, spans: Iterable[TokenSpan], share: float) -> None:
        self.explored += share
        for span in spans:
            self.spans[span] = self.spans.get(span, 0.0) + share

    def votes(self) -> Votes:
        # Rounded, since 8 of 10 samples must reach a threshold of 0.8, in whatever order they came in.
        explored = self.explored or 1.0
        spans = {span: round(mass / explored, 12) for span, mass in self.spans.items()}
        return Votes(spans, max(0.0, round(1.0 - self.explored, 12)))


class _Item(Protocol):
    """A row that waits in the pool, and what follows from its scores."""

    @property
    def row(self) -> Row:
        """What to read."""

    def spread(self, logits: Tensor, temperature: float, past: "_Past") -> list["_Item"]:
        """Count what is finished, and give the rows that go on.

        past: Gives the past after the first n ids of the row.
        """


_Past = Callable[[int], Tensor]


@dataclass
class _Shared:
    """What the prompts of several jobs begin with, to be read once for all."""

    ids: tuple[int, ...]
    jobs: list[tuple[Job, _Result]]

    @cached_property
    def row(self) -> Row:
        return Row(None, self.ids, ())

    def spread(self, logits: Tensor, temperature: float, past: _Past) -> list[_Item]:
        kept = past(len(self.ids))
        return [_first(job, result, kept, job.prompt.own) for job, result in self.jobs]


@dataclass
class _Reading:
    """Readings of a job that are the same so far.

    before: The ids to read before the draft (of the prompt, or the choice by which they left the last draft).
    spans: The mentions that are closed before the draft.
    """

    job: Job
    result: _Result
    readings: Any
    past: Tensor | None
    before: tuple[int, ...]
    draft: Path
    spans: tuple[TokenSpan, ...] = ()

    @cached_property
    def row(self) -> Row:
        offset = len(self.before) - 1
        asks = tuple((offset + decision.position, decision.choices) for decision in self.draft.decisions)
        return Row(self.past, (*self.before, *self.draft.ids), asks)

    def spread(self, logits: Tensor, temperature: float, past: _Past) -> list[_Item]:
        share, branches = self.job.walk.follow(self.readings, _probabilities(logits, temperature))
        if share:
            self.result.add((*self.spans, *self.draft.spans), share)
        leaving = [(len(self.before) + self.draft.decisions[b.decision].position, b) for b in branches]
        self.result.waiting += len(leaving) - 1
        if not leaving:
            return []
        # Those that leave share one copy of the past, each as far as it has read.
        kept, earlier = past(max(n for n, _ in leaving)), self.row.past_length
        return [self._leave(branch, kept[..., : earlier + n, :]) for n, branch in leaving]

    def _leave(self, branch: Branch, past: Tensor) -> "_Reading":
        grammar, decision = self.job.grammar, self.draft.decisions[branch.decision]
        choice = decision.choices[branch.choice]
        state, closed = grammar.advance(decision.state, choice)
        spans = (*self.spans, *decision.spans, *([closed] if closed else []))
        return _Reading(self.job, self.result, branch.readings, past, (choice,), grammar.draft(state), spans)


def _probabilities(logits: Tensor, temperature: float) -> Floats:
    """Renormalise over the legal choices. *Shape:* (decisions, choices), padded with 0"""
    if not len(logits):
        return np.zeros((0, 1))
    scores = logits.double().numpy() / temperature
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def decode(jobs: Iterable[Job], engine: Scorer, temperature: float, max_batch_tokens: int) -> Iterator[Votes]:
    """Decode jobs as a stream.

    jobs: The jobs, taken as room in the pool allows. A prompt's shared part is read once for jobs that follow
        each other.
    engine: Scores rows.
    temperature: Of the choices.
    max_batch_tokens: The most tokens in a batch, pasts and padding included. No job may be larger.
    RETURNS: The votes, in the order of the jobs.
    """
    results: deque[_Result] = deque()  # of jobs not yet given back
    pool: list[_Item] = []
    groups = _sharing(jobs)
    while True:
        while sum(_size(item) for item in pool) < POOL * max_batch_tokens:
            group = next(groups, None)
            if group is None:
                break
            begun = [(job, _Result(waiting=1)) for job in group]
            results.extend(result for _, result in begun)
            pool += _begin(begun)
        if not pool:
            return
        batch = _take(pool, max_batch_tokens)
        scores = engine.score([item.row for item in batch])
        # What goes on waits at the end, behind first passes: there it meets what goes on of other jobs, so that
        # batches stay large.
        for i, item in enumerate(batch):
            pool += item.spread(scores.logits[i], temperature, partial(scores.past, i))
        while results and not results[0].waiting:
            yield results.popleft().votes()


def _sharing(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    """Group jobs whose prompts begin alike and that follow each other."""
    for _, group in groupby(jobs, key=lambda job: job.prompt.shared):
        while some := list(islice(group, 8)):  # the same sentence ten thousand times is still a stream
            yield some


def _begin(begun: list[tuple[Job, _Result]]) -> list[_Item]:
    """Give the first rows of jobs whose prompts begin alike."""
    shared = begun[0][0].prompt.shared
    if len(begun) > 1 and shared and all(job.prompt.own for job, _ in begun):
        return [_Shared(shared, begun)]
    return [_first(job, result, None, (*shared, *job.prompt.own)) for job, result in begun]


def _first(job: Job, result: _Result, past: Tensor | None, before: tuple[int, ...]) -> _Reading:
    return _Reading(job, result, job.walk.start(), past, before, job.copy)


def _take(pool: list[_Item], max_batch_tokens: int) -> list[_Item]:
    """Take a batch out of the pool: what waits longest, and rows of about the same length."""
    rows = [item.row for item in pool]
    first = len(rows[0].ids)
    order = sorted(range(len(pool)), key=lambda i: abs(len(rows[i].ids) - first))
    taken: set[int] = set()
    past = ids = 0
    for i in order:
        past_with, ids_with = max(past, rows[i].past_length), max(ids, len(rows[i].ids))
        fits = (len(taken) + 1) * (past_with + ids_with) <= max_batch_tokens
        alike = abs(len(rows[i].ids) - first) <= max(first // 2, 16)  # else padding would cost more than a pass
        if taken and not (fits and alike):
            break
        taken.add(i)
        past, ids = past_with, ids_with
    batch = [pool[i] for i in sorted(taken)]
    pool[:] = [item for i, item in enumerate(pool) if i not in taken]
    return batch


def _size(item: _Item) -> int:
    row = item.row
    return row.past_length + len(row.ids)

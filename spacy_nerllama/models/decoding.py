"""Marked decoding: requests -> votes, by reading whole drafts and going on from where readings leave them.

One forward pass over the prompt and the whole unmarked copy gives the next-token distribution at every boundary at
once. A walk says where readings leave the copy; each such branch keeps the past up to there, writes its marker and
goes on with a new draft, which is read in a later pass. The result is the same as that of token-by-token
constrained decoding (the same reading if greedy, the same distribution if sampled), in a few passes instead of one
for each token. Prior art: input-guided aggressive decoding (Ge et al., arXiv:2205.10350) and sidetrack decoding
(OpenReview MtyXaOjlUa).

Later drafts are better than the bare copy: where an earlier pass saw that a mention wants to open, they open it,
and inside of a mention they stop after a few ids, since it will close about there and the rest would be read in
vain. So a reading with m mentions takes about 2 + m passes, which together read the copy little more than twice.

Rows of all requests and passes wait in one pool. A batch takes those of the oldest requests, so finished rows are
replaced at once, first results come early, and no batch exceeds the budget of tokens, which bounds memory
beforehand.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby, islice
from typing import Any, Protocol

import numpy as np

from ..errors import ModelUnavailableError, Warnings
from ..grammar import Grammar, Path, State
from ..requests import TokenSpan
from ..voting import Votes
from .scoring import Footprint, Past, Row, Scored, Scorer, Scores
from .tokens import PromptIds
from .walks import Branch, Floats, Walk

logger = logging.getLogger(__name__)

POOL = 2
"""How many batches' worth of tokens wait in the pool, so that batches can be filled well."""

MOST_HELD = 4096
"""How many jobs are begun or done, and wait for an older one: a server may keep it for minutes."""

AHEAD = 8
"""How many ids of a mention are read before it is known whether it closes there; most are shorter."""


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
        return len(self.prompt.ids) + self.grammar.longest


@dataclass
class _Result:
    """The votes of a job as they come in; complete when none of its rows waits any more, or one has failed.

    order: Which job it is of.
    error: What a row of the job failed with.
    """

    order: int
    spans: dict[TokenSpan, float] = field(default_factory=dict)
    explored: float = 0.0
    waiting: int = 1
    error: Exception | None = None

    @property
    def complete(self) -> bool:
        return self.error is not None or not self.waiting

    def add(self, spans: Iterable[TokenSpan], share: float) -> None:
        self.explored += share
        for span in spans:
            self.spans[span] = self.spans.get(span, 0.0) + share

    def votes(self) -> Votes | Exception:
        if self.error is not None:
            return self.error
        # Rounded, since 8 of 10 samples must reach a threshold of 0.8, in whatever order they came in.
        explored = self.explored or 1.0
        spans = {span: round(mass / explored, 12) for span, mass in self.spans.items()}
        return Votes(spans, max(0.0, round(1.0 - self.explored, 12)))


class _Item(Protocol):
    """A row that waits in the pool, and what follows from its scores."""

    @property
    def row(self) -> Row:
        """What to read."""

    @property
    def results(self) -> list[_Result]:
        """What the votes of its jobs are gathered in, at least one."""

    @property
    def tokens(self) -> int:
        """How much of the pool it takes."""

    def spread(self, logits: Scored, temperature: float, past: "_PastAfter") -> list["_Item"]:
        """Count what is finished, and give the rows that go on.

        past: Gives the past after the first n ids of the row.
        """


_PastAfter = Callable[[int], Past]


@dataclass
class _Shared:
    """What the prompts of several jobs begin with, to be read once for all."""

    row: Row
    jobs: list[tuple[Job, _Result]]

    @property
    def results(self) -> list[_Result]:
        return [result for _, result in self.jobs]

    @property
    def tokens(self) -> int:
        return sum(len(job.prompt.ids) + len(job.copy.ids) for job, _ in self.jobs)

    def spread(self, logits: Scored, temperature: float, past: _PastAfter) -> list[_Item]:
        kept = past(len(self.row.ids))
        return [_first(job, result, kept, job.prompt.own) for job, result in self.jobs]


@dataclass
class _Reading:
    """Readings of a job that are the same so far.

    before: The ids to read before the draft (of the prompt, or the choice by which they left the last draft).
    spans: The mentions that are closed before the draft.
    guesses: What earlier passes found likeliest, where it is not to copy.
    """

    job: Job
    result: _Result
    readings: Any
    past: Past | None
    before: tuple[int, ...]
    draft: Path
    spans: tuple[TokenSpan, ...] = ()
    guesses: Mapping[State, int] = field(default_factory=dict)

    @property
    def results(self) -> list[_Result]:
        return [self.result]

    @property
    def tokens(self) -> int:
        return self.row.length

    @cached_property
    def row(self) -> Row:
        offset = len(self.before) - 1
        asks = tuple((offset + decision.position, decision.choices) for decision in self.draft.decisions)
        return Row(self.past, (*self.before, *self.draft.ids), asks)

    def spread(self, logits: Scored, temperature: float, past: _PastAfter) -> list[_Item]:
        walk, decisions = self.job.walk, self.draft.decisions
        probabilities = _probabilities(logits, temperature)
        taken = np.array([decision.taken for decision in decisions], dtype=np.int64)
        staying, branches = walk.follow(self.readings, probabilities, taken)
        leaving = list(branches)
        if staying is not None and self.draft.whole:
            self.result.add((*self.spans, *self.draft.spans), walk.share(staying))
        elif staying is not None and walk.goes_on(staying):
            leaving.append(Branch(len(decisions) - 1, decisions[-1].taken, staying))
        guesses = {**self.guesses, **self._guesses(probabilities)}
        going_on = []
        for branch in leaving:
            reading = self._leave(branch, guesses)
            if reading.draft.decisions:
                going_on.append((len(self.before) + decisions[branch.decision].position, reading))
            else:  # nothing is left to decide, and nothing to read
                self.result.add((*reading.spans, *reading.draft.spans), walk.share(reading.readings))
        self.result.waiting += len(going_on) - 1
        if going_on:  # they share one copy of the past, each as far as it has read
            kept, earlier = past(max(end for end, _ in going_on)), self.row.past_length
            for end, reading in going_on:
                reading.past = kept[: earlier + end]
        return [reading for _, reading in going_on]

    def _guesses(self, probabilities: Floats) -> dict[State, int]:
        likeliest = probabilities.argmax(axis=1)
        return {
            decision.state: decision.choices[i]
            for decision, i in zip(self.draft.decisions, likeliest, strict=True)
            if decision.state.label is None
        }

    def _leave(self, branch: Branch, guesses: Mapping[State, int]) -> "_Reading":
        """Give the readings of a branch with their next draft; the past is still to be set."""
        grammar, decision = self.job.grammar, self.draft.decisions[branch.decision]
        choice = decision.choices[branch.choice]
        state, closed = grammar.advance(decision.state, choice)
        spans = (*self.spans, *decision.spans, *([closed] if closed else []))
        draft = grammar.draft(state, guesses, AHEAD)
        return _Reading(self.job, self.result, branch.readings, None, (choice,), draft, spans, guesses)


def _probabilities(logits: Scored, temperature: float) -> Floats:
    """Renormalise over the legal choices. *Shape:* (decisions, choices), padded with 0"""
    if not len(logits):
        return np.zeros((0, 1))
    scores = logits.astype(np.float64) / temperature
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def decode(
    jobs: Iterable[Job], engine: Scorer, temperature: float, max_batch_tokens: int
) -> Iterator[Votes | Exception]:
    """Decode jobs as a stream.

    jobs: The jobs, taken as room in the pool allows. A prompt's shared part is read once for jobs that follow
        each other.
    engine: Scores rows.
    temperature: Of the choices.
    max_batch_tokens: The most tokens in a batch, pasts and padding included. No job may be larger. Where a GPU has
        no memory for so many, it is halved.
    RETURNS: The votes, in the order of the jobs; an error in the place of those of a job whose rows failed.
    RAISES: ModelUnavailableError if the engine answers no more; what `submit` itself raises.
    """
    results: deque[_Result] = deque()  # of jobs not yet given back
    pool: list[_Item] = []
    under_way: dict[Future[Scores], list[_Item]] = {}
    groups = _sharing(jobs)
    begun = 0
    budget = max_batch_tokens
    try:
        while True:
            while len(under_way) < engine.at_once:
                while len(results) < MOST_HELD and sum(item.tokens for item in pool) < POOL * budget:
                    group = next(groups, None)
                    if group is None:
                        break
                    new = [(job, _Result(begun + i)) for i, job in enumerate(group)]
                    begun += len(new)
                    results.extend(result for _, result in new)
                    pool += _begin(new, engine)
                if not pool:
                    break
                batch = _take(pool, budget, engine.efficient)
                under_way[engine.submit([item.row for item in batch])] = batch
            if not under_way:
                return
            done = wait(under_way, return_when=FIRST_COMPLETED).done
            while done:
                future = done.pop()
                batch = under_way.pop(future)
                try:
                    scores = future.result()
                except MemoryError:
                    if len(batch) == 1:
                        raise
                    pool[:0] = batch
                    budget = max(1, _footprint(batch) // 2)
                    logger.warning(Warnings.W002.format(budget=budget, asked=max_batch_tokens))
                    continue
                except ModelUnavailableError:
                    raise
                except Exception as error:
                    for result in (each for item in batch for each in item.results):
                        result.error = error
                    pool = [item for item in pool if not item.results[0].complete]
                    continue
                for i, item in enumerate(batch):
                    if not item.results[0].complete:  # else another row of its job has failed meanwhile
                        pool += item.spread(scores.logits[i], temperature, partial(scores.past, i))
                del scores, item
            del future, batch  # their memory is not to last into the next pass, or while the caller works
            while results and results[0].complete:
                yield results.popleft().votes()
    finally:
        for future in under_way:
            future.cancel()


def _sharing(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    """Group jobs whose prompts begin alike and that follow each other."""
    for _, group in groupby(jobs, key=lambda job: (job.prompt.prefix, job.prompt.shared)):
        while some := list(islice(group, 64)):  # the same sentence ten thousand times is still a stream
            yield some


def _begin(begun: list[tuple[Job, _Result]], engine: Scorer) -> list[_Item]:
    """Give the first rows of jobs whose prompts begin alike."""
    prompt = begun[0][0].prompt
    if not prompt.shared and not all(job.prompt.own for job, _ in begun):  # there must be something to read
        return [_first(job, result, None, job.prompt.ids) for job, result in begun]
    past = engine.prefix(prompt.prefix) if prompt.prefix else None
    if len(begun) > 1 and prompt.shared and all(job.prompt.own for job, _ in begun):
        return [_Shared(Row(past, prompt.shared, ()), begun)]
    return [_first(job, result, past, (*job.prompt.shared, *job.prompt.own)) for job, result in begun]


def _first(job: Job, result: _Result, past: Past | None, before: tuple[int, ...]) -> _Reading:
    return _Reading(job, result, job.walk.start(), past, before, job.copy)


def _take(pool: list[_Item], max_batch_tokens: int, efficient: int) -> list[_Item]:
    """Take a batch out of the pool: rows of the oldest jobs, as many as are worth it and fit."""
    batch: list[_Item] = []
    rest: list[_Item] = []
    footprint, read = Footprint(), 0
    for item in sorted(pool, key=lambda item: item.results[0].order):
        row = item.row
        fits = footprint.total(row) <= max_batch_tokens and read + len(row.ids) <= efficient
        if fits or not batch:
            batch.append(item)
            footprint.add(row)
            read += len(row.ids)
        else:
            rest.append(item)
    pool[:] = rest
    return batch


def _footprint(batch: list[_Item]) -> int:
    footprint = Footprint()
    for item in batch:
        footprint.add(item.row)
    return footprint.tokens

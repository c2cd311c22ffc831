"""The vote (SCNP, self-consistency NER prompting): settings, and the rule, votes -> non-overlapping spans."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from .errors import Errors
from .requests import Request, TokenSpan

DEFAULT_THRESHOLD = 0.5
LEAST_MASS = 1e-4
"""The least `min_mass` of a component: at most ten thousand readings are then as probable, of any sentence."""


@dataclass(frozen=True)
class Voting:
    """How readings are drawn and counted. Registered as `nerllama.Voting.v1`.

    samples: 1 takes the one greedy reading; k > 1 draws k readings and lets them vote. None: exact votes, the
        probability of each span itself, summed over all readings that hold it.
    min_mass: Exact votes follow branches of at least this probability; a component takes no less than 0.0001.
    temperature: Sharpens (below 1) or flattens (above) the model's choices, for samples and exact votes.
    threshold: Keep spans of at least this vote, one number or one for each label. None: the adapter's own
        thresholds, 0.5 for a label without one.
    seed: Seed of the samples; a sample depends on it, the sentence and the label alone.
    agreement: How far the vote of a span moves towards the mean over all occurrences of its words in the doc (see
        `agreement.agree`), from 0, not at all, to below 1.
    RAISES: ValueError for values out of range.
    """

    samples: int | None = None
    min_mass: float = 0.02
    temperature: float = 1.0
    threshold: float | dict[str, float] | None = None
    seed: int = 0
    agreement: float = 0.5

    def __post_init__(self) -> None:
        thresholds = self.threshold.values() if isinstance(self.threshold, dict) else [self.threshold or 0.0]
        numbers = (self.samples or 1, self.min_mass, self.temperature, self.seed, self.agreement, *thresholds)
        if (
            not all(isinstance(number, float | int) for number in numbers)
            or not isinstance(self.samples, int | None)
            or not isinstance(self.seed, int)
            or (self.samples is not None and self.samples < 1)
            or not 0 <= self.min_mass < 1
            or not 0 < self.temperature < math.inf
            or not 0 <= self.agreement < 1
            or not all(0 <= threshold <= 1 for threshold in thresholds)
        ):
            raise ValueError(Errors.E050.format(voting=self, least=LEAST_MASS))

    def check_bounded(self) -> None:
        """Check that exact votes end on any text: without a `min_mass` there are as many readings as there can be.

        RAISES: ValueError if they may not.
        """
        if self.samples is None and self.min_mass < LEAST_MASS:
            raise ValueError(Errors.E050.format(voting=self, least=LEAST_MASS))

    def threshold_of(self, label: str, adapter: Mapping[str, float]) -> float:
        """Give the least vote with which a span of a label is kept.

        adapter: The adapter's own thresholds by label.
        """
        if isinstance(self.threshold, float | int):
            return self.threshold
        return (self.threshold or {}).get(label, adapter.get(label, DEFAULT_THRESHOLD))


@dataclass(frozen=True)
class Votes:
    """What a model thinks of a request.

    spans: The vote of each span that any reading holds, in (0, 1].
    unexplored: The probability of the readings that exact votes did not follow, in [0, 1).
    responses: What a model wrote that answers in text; the votes follow from it.
    answered: Whether there was a reading at all. Without votes, that says that nothing is to be marked.
    """

    spans: Mapping[TokenSpan, float] = field(default_factory=dict)
    unexplored: float = 0.0
    responses: tuple[str, ...] = field(default=(), repr=False, compare=False)
    answered: bool = field(default=True, repr=False, compare=False)


Vote = Callable[[Iterable[Request]], Iterator[Votes | Exception]]
"""Gives the votes of requests, in order, or an error in the place of those of a request that failed."""


def elect(votes: Mapping[TokenSpan, float], thresholds: Mapping[str, float]) -> list[TokenSpan]:
    """Choose the spans to keep: those whose vote reaches their label's threshold, none overlapping another.

    Of overlapping spans, whatever their labels, the one with the higher vote is kept, then the longer, then the
    earlier. (Liu et al. 2025 name the method SCNP and give no rule; this one is ours.)

    votes: The vote of each span.
    thresholds: The least vote for each label; 0.5 for others.
    RETURNS: The spans, in order.
    """
    reached = (
        (vote, span) for span, vote in votes.items() if vote >= thresholds.get(span.label, DEFAULT_THRESHOLD)
    )
    kept: list[TokenSpan] = []
    taken: set[int] = set()
    for _, span in sorted(reached, key=_rank):
        if taken.isdisjoint(range(span.start, span.end)):
            taken.update(range(span.start, span.end))
            kept.append(span)
    return sorted(kept)


def _rank(candidate: tuple[float, TokenSpan]) -> tuple[float, int, int, str]:
    vote, span = candidate
    return -vote, span.start - span.end, span.start, span.label


def shift(votes: Mapping[TokenSpan, float], start: int) -> Iterable[tuple[TokenSpan, float]]:
    """Move votes from a sentence's tokens to those of its doc, where the sentence begins at `start`."""
    for span, vote in votes.items():
        yield TokenSpan(span.start + start, span.end + start, span.label), vote

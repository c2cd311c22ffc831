"""Calibration: is a span with a vote of 0.7 right seven times in ten?"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .spans import DocSpans

BINS = 10


class Bin(NamedTuple):
    """Candidates whose votes lie in (low, high].

    n: How many there are.
    vote: Their mean vote. 0 if there are none.
    right: The share of them that are gold spans. 0 if there are none.
    """

    low: float
    high: float
    n: int
    vote: float
    right: float


def judged_votes(docs: Iterable[DocSpans]) -> list[tuple[float, bool]]:
    """Give the vote of each candidate, and whether it is a gold span: start, end and label are right."""
    return [
        (doc.votes[candidate], place in doc.gold)
        for doc in docs
        if doc.votes
        for candidate, place in doc.chars.items()
    ]


def reliability(judged: Sequence[tuple[float, bool]]) -> list[Bin]:
    """Sort votes into bins of equal width.

    judged: Votes in (0, 1], each with whether its span is right.
    RETURNS: The bins, empty ones too, in order.
    """
    inside: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for vote, right in judged:
        inside[min(max(math.ceil(vote * BINS) - 1, 0), BINS - 1)].append((vote, right))
    result = []
    for i, members in enumerate(inside):
        n = len(members)
        vote, share = (sum(column) / n for column in zip(*members, strict=True)) if n else (0.0, 0.0)
        result.append(Bin(i / BINS, (i + 1) / BINS, n, vote, share))
    return result


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Give the mean distance of votes from the share that is right (ECE; Naeini et al., AAAI 2015).

    bins: As `reliability` gives them.
    RETURNS: The distance of each bin's mean vote from its share of right spans, weighted by its candidates.
    """
    total = sum(each.n for each in bins)
    return sum(each.n * abs(each.vote - each.right) for each in bins) / total if total else 0.0

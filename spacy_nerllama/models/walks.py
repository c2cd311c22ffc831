"""Which readings to follow: a walk decides, from the probabilities along a draft, where readings leave it.

All readings of a request share the passes of the model as long as they are the same. From one draft, a walk sees
at which decisions its readings leave, and by which choice; those that leave together stay together. The draft is
deterministic, so that following it with its own probability is exact speculative sampling.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..requests import Request
from ..voting import Voting

Floats = NDArray[np.float64]


class Branch(NamedTuple):
    """Readings that leave a draft at a decision by another choice than the draft's."""

    decision: int
    choice: int
    readings: Any


class Walk(Protocol):
    """Some readings of one request. How it stands for a set of readings that are the same so far is its own."""

    def start(self) -> Any:
        """Give all readings, before the first decision."""

    def follow(self, readings: Any, probabilities: Floats) -> tuple[float, Iterator[Branch]]:
        """Follow readings along a draft.

        probabilities: Of the choices at each decision; the draft takes the first.
            *Shape:* (decisions, choices), padded with 0
        RETURNS: The share of all readings that stay on the draft to the end, and those that leave it.
        """


class Greedy:
    """The one reading that takes the likeliest choice at each decision."""

    def start(self) -> None:
        """Give the one reading."""

    def follow(self, readings: None, probabilities: Floats) -> tuple[float, Iterator[Branch]]:
        """See `Walk.follow`."""
        taken = probabilities.argmax(axis=1) if len(probabilities) else np.zeros(0, int)
        leaves = np.flatnonzero(taken)
        if not len(leaves):
            return 1.0, iter(())
        return 0.0, iter([Branch(int(leaves[0]), int(taken[leaves[0]]), None)])


@dataclass
class Samples:
    """Which samples are in a set of readings that are the same so far, and how many decisions they have made."""

    indices: NDArray[np.int64]
    decisions: int


class Sampling:
    """k independent samples, as SCNP takes them; their distribution is that of token-by-token sampling.

    Each sample has a stream of random numbers of its own, one for each decision, that depends on the seed, the
    sentence, the labels and its index alone: results do not depend on batches or order, and 5 samples are the
    first 5 of 10.
    """

    def __init__(self, request: Request, k: int, seed: int) -> None:
        self._k = k
        key = f"{seed}\0{request.sentence.text}\0{request.labels}"
        self._streams = [np.random.Generator(np.random.Philox(key=_hash(f"{key}\0{i}"))) for i in range(k)]
        self._drawn = np.empty((k, 0))

    def start(self) -> Samples:
        """Give all samples."""
        return Samples(np.arange(self._k), 0)

    def follow(self, readings: Samples, probabilities: Floats) -> tuple[float, Iterator[Branch]]:
        """See `Walk.follow`."""
        n = len(probabilities)
        if not n:
            return len(readings.indices) / self._k, iter(())
        drawn = self._numbers(readings, n)
        # The draft's choice has the numbers in [0, its probability), the next choices follow. The last possible
        # choice has what is left, whatever rounding did.
        bounds = probabilities.cumsum(axis=1)
        width = probabilities.shape[1]
        last = width - 1 - (probabilities[:, ::-1] > 0).argmax(axis=1)
        bounds[np.arange(width) >= last[:, None]] = np.inf
        leaves = drawn >= bounds[:, 0]
        stays = ~leaves.any(axis=1)
        where = leaves.argmax(axis=1)
        branches: dict[tuple[int, int], list[int]] = {}
        for row in np.flatnonzero(~stays):
            at = int(where[row])
            choice = int(np.searchsorted(bounds[at], drawn[row, at], side="right"))
            branches.setdefault((at, choice), []).append(int(row))
        return float(stays.sum()) / self._k, (
            Branch(at, choice, Samples(readings.indices[rows], readings.decisions + at + 1))
            for (at, choice), rows in branches.items()
        )

    def _numbers(self, readings: Samples, n: int) -> Floats:
        end = readings.decisions + n
        if end > self._drawn.shape[1]:
            more = end + 32 - self._drawn.shape[1]
            self._drawn = np.hstack([self._drawn, [stream.random(more) for stream in self._streams]])
        return self._drawn[readings.indices, readings.decisions : end]


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf8", "surrogatepass"), digest_size=16).digest(), "big")


class Exact:
    """Every reading that is reached by branches of at least `min_mass` probability, weighed by its probability.

    A set of readings is its probability. What is left out, the unexplored mass, is one minus the sum of the
    shares.
    """

    def __init__(self, min_mass: float) -> None:
        self._min_mass = min_mass

    def start(self) -> float:
        """Give all readings."""
        return 1.0

    def follow(self, readings: float, probabilities: Floats) -> tuple[float, Iterator[Branch]]:
        """See `Walk.follow`."""
        if not len(probabilities):
            return readings, iter(())
        reached = readings * np.concatenate([[1.0], probabilities[:, 0].cumprod()])
        mass = reached[:-1, None] * probabilities[:, 1:]
        at, choice = np.nonzero((mass >= self._min_mass) & (mass > 0))
        return float(reached[-1]), (
            Branch(int(a), int(c) + 1, float(mass[a, c])) for a, c in zip(at, choice, strict=True)
        )


def make_walk(request: Request, voting: Voting) -> Walk:
    """Make the walk that a voting setting asks for."""
    if voting.samples is None:
        return Exact(voting.min_mass)
    return Greedy() if voting.samples == 1 else Sampling(request, voting.samples, voting.seed)

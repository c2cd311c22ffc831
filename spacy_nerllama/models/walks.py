"""Which readings to follow: a walk decides, from the probabilities along a draft, where readings leave it.

All readings of a request share the passes of the model as long as they are the same. From one draft, a walk sees
at which decisions its readings leave, and by which choice; those that leave together stay together. The draft is
deterministic, so that following it with its own probability is exact speculative sampling.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..requests import Request
from ..voting import Voting

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Branch(NamedTuple):
    """Readings that leave a draft at a decision by another choice than the draft's."""

    decision: int
    choice: int
    readings: Any


class Walk(Protocol):
    """Some readings of one request. How it stands for a set of readings that are the same so far is its own."""

    def start(self) -> Any:
        """Give all readings, before the first decision."""

    def share(self, readings: Any) -> float:
        """Give the share of all readings that a set of them is."""

    def follow(self, readings: Any, probabilities: Floats, taken: Ints) -> tuple[Any | None, Iterable[Branch]]:
        """Follow readings along a draft.

        probabilities: Of the choices at each decision. *Shape:* (decisions, choices), padded with 0
        taken: The index of the draft's own choice at each. *Shape:* (decisions,)
        RETURNS: The readings that stay on the draft to its end, None if there are none, and those that leave it.
        """

    def goes_on(self, readings: Any) -> bool:
        """Whether readings are worth a pass of their own."""


class Greedy:
    """The one reading that takes the likeliest choice at each decision."""

    def start(self) -> bool:
        """Give the one reading."""
        return True

    def share(self, readings: bool) -> float:
        """It is all readings."""
        return 1.0

    def follow(self, readings: bool, probabilities: Floats, taken: Ints) -> tuple[bool | None, Iterable[Branch]]:
        """See `Walk.follow`."""
        likeliest = probabilities.argmax(axis=1) if len(taken) else taken
        leaves = np.flatnonzero(likeliest != taken)
        if not len(leaves):
            return True, ()
        return None, [Branch(int(leaves[0]), int(likeliest[leaves[0]]), True)]

    def goes_on(self, readings: bool) -> bool:
        """See `Walk.goes_on`."""
        return True


@dataclass
class Samples:
    """Which samples are in a set of readings that are the same so far, and how many decisions they have made."""

    indices: Ints
    decisions: int


class Sampling:
    """k independent samples, as SCNP takes them; their distribution is that of token-by-token sampling.

    Each sample has a stream of random numbers of its own, one for each decision, that depends on the seed, the
    sentence, the labels and its index alone: results do not depend on batches, drafts or order, and 5 samples are
    the first 5 of 10.
    """

    def __init__(self, request: Request, k: int, seed: int) -> None:
        self._k = k
        key = f"{seed}\0{request.sentence.text}\0{request.labels}"
        self._streams = [np.random.Generator(np.random.Philox(key=_hash(f"{key}\0{i}"))) for i in range(k)]
        self._drawn = np.empty((k, 0))

    def start(self) -> Samples:
        """Give all samples."""
        return Samples(np.arange(self._k), 0)

    def share(self, readings: Samples) -> float:
        """Give the share of the samples."""
        return len(readings.indices) / self._k

    def follow(
        self, readings: Samples, probabilities: Floats, taken: Ints
    ) -> tuple[Samples | None, Iterable[Branch]]:
        """See `Walk.follow`."""
        n = len(taken)
        if not n:
            return readings, ()
        drawn = self._numbers(readings, n)
        # Each choice has the numbers from where the choices before it end. The last possible choice has what is
        # left, whatever rounding did.
        bounds = probabilities.cumsum(axis=1)
        width = probabilities.shape[1]
        last = width - 1 - (probabilities[:, ::-1] > 0).argmax(axis=1)
        bounds[np.arange(width) >= last[:, None]] = np.inf
        chosen = (drawn[:, :, None] >= bounds).sum(axis=2)
        leaves = chosen != taken
        stays = ~leaves.any(axis=1)
        where = leaves.argmax(axis=1)
        branches: dict[tuple[int, int], list[int]] = {}
        for row in np.flatnonzero(~stays):
            at = int(where[row])
            branches.setdefault((at, int(chosen[row, at])), []).append(int(row))
        return (
            Samples(readings.indices[stays], readings.decisions + n) if stays.any() else None,
            [
                Branch(at, choice, Samples(readings.indices[rows], readings.decisions + at + 1))
                for (at, choice), rows in branches.items()
            ],
        )

    def goes_on(self, readings: Samples) -> bool:
        """See `Walk.goes_on`."""
        return True

    def _numbers(self, readings: Samples, n: int) -> Floats:
        end = readings.decisions + n
        if end > self._drawn.shape[1]:
            more = end + 32 - self._drawn.shape[1]
            self._drawn = np.hstack([self._drawn, [stream.random(more) for stream in self._streams]])
        return self._drawn[readings.indices, readings.decisions : end]


class Mass(NamedTuple):
    """The probability of readings that are the same so far, and whether the greedy reading is among them."""

    probability: float
    greedy: bool


class Exact:
    """Every reading that is reached by branches of at least `min_mass` probability, weighed by its probability.

    The greedy reading is always followed: in a sentence of many unsure mentions no reading at all may have so
    much. A draft that is read anyway counts to its end, whatever its probability. What is left out, the unexplored
    mass, is one minus the sum of the shares.
    """

    def __init__(self, min_mass: float) -> None:
        self._min_mass = min_mass

    def start(self) -> Mass:
        """Give all readings."""
        return Mass(1.0, True)

    def share(self, readings: Mass) -> float:
        """Give their probability."""
        return readings.probability

    def follow(self, readings: Mass, probabilities: Floats, taken: Ints) -> tuple[Mass | None, Iterable[Branch]]:
        """See `Walk.follow`."""
        n = len(taken)
        if not n:
            return readings, ()
        own = probabilities[np.arange(n), taken]
        reached = readings.probability * np.concatenate([[1.0], own.cumprod()])
        mass = reached[:-1, None] * probabilities
        mass[np.arange(n), taken] = 0.0
        likeliest = probabilities.argmax(axis=1)
        leaves = np.flatnonzero(likeliest != taken)
        greedy = (int(leaves[0]), int(likeliest[leaves[0]])) if readings.greedy and len(leaves) else None
        branches = (
            Branch(int(at), int(choice), Mass(float(mass[at, choice]), (at, choice) == greedy))
            for at, choice in zip(*np.nonzero(mass), strict=True)
        )
        staying = Mass(float(reached[-1]), readings.greedy and greedy is None)
        return staying if staying.probability else None, [b for b in branches if self.goes_on(b.readings)]

    def goes_on(self, readings: Mass) -> bool:
        """See `Walk.goes_on`."""
        return readings.greedy or readings.probability >= self._min_mass


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf8", "surrogatepass"), digest_size=16).digest(), "big")


def make_walk(request: Request, voting: Voting) -> Walk:
    """Make the walk that a voting setting asks for."""
    if voting.samples is None:
        return Exact(voting.min_mass)
    return Greedy() if voting.samples == 1 else Sampling(request, voting.samples, voting.seed)

"""What marked decoding asks of an engine: score these continuations.

Decoding makes rows, each some ids to read and the choices at the decisions among them; an engine reads them and
gives the scores of the choices. The local model is one engine (`engine.py`), a server another (`server.py`). What
an engine keeps of the ids that it has read, so that rows can go on from there, is its own: keys and values in the
one, the ids themselves in the other.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Scored = NDArray[np.float32]


class Past(Protocol):
    """What an engine keeps of ids that it has read. A tuple of the ids is one."""

    def __len__(self) -> int:
        """Give how many ids were read."""

    def __getitem__(self, part: slice, /) -> "Past":
        """Give the past of the first ids alone; only `past[:n]` is asked for."""


class Row(NamedTuple):
    """What to read next, and where decisions are made in it.

    past: What was read before, by the same engine; None at the beginning.
    ids: The ids to read, at least one.
    asks: (i, choices) for each decision, in order: which ids may follow after `ids[i]`.
    """

    past: Past | None
    ids: tuple[int, ...]
    asks: tuple[tuple[int, tuple[int, ...]], ...]

    @property
    def past_length(self) -> int:
        """How many ids were read before."""
        return 0 if self.past is None else len(self.past)

    @property
    def length(self) -> int:
        """How many ids were read when this row is."""
        return self.past_length + len(self.ids)

    @property
    def size(self) -> int:
        """Rows of the same size are laid side by side for attention, padded to the longest among them."""
        return len(self.ids).bit_length()


class Scores(Protocol):
    """What a batch of rows gave."""

    @property
    def logits(self) -> Sequence[Scored]:
        """For each row, for each of its asks, the logits of the choices, up to a number that they share.

        *Shape:* (asks, choices), padded with -inf
        """

    def past(self, row: int, n_ids: int) -> Past:
        """Give the past of a row after the first `n_ids` of its ids; later ones are forgotten."""


class Scorer(Protocol):
    """An engine, as marked decoding sees it."""

    @property
    def context(self) -> int:
        """How many tokens the model can read."""

    @property
    def efficient(self) -> int:
        """How many ids in one batch are as fast as any more."""

    @property
    def at_once(self) -> int:
        """How many batches can be under way at a time."""

    def submit(self, rows: Sequence[Row]) -> "Future[Scores]":
        """Begin to read a batch of rows. It is over when this returns, or goes on beside the caller.

        RETURNS: The scores, now or later. Its error is a MemoryError where the batch was too large, a
            ModelUnavailableError where the engine answers no more, any other where these rows alone failed.
        """

    def prefix(self, ids: tuple[int, ...]) -> Past:
        """Give the past of what many prompts begin with."""


class Footprint:
    """How many tokens a batch of rows takes in memory, padding included."""

    def __init__(self) -> None:
        self._groups: dict[int, tuple[int, int, int]] = {}
        self.tokens = 0

    def total(self, row: Row) -> int:
        """Give the tokens of the batch with one more row."""
        n, past, ids = self._groups.get(row.size, (0, 0, 0))
        grown = (n + 1) * (max(past, row.past_length) + max(ids, len(row.ids)))
        return self.tokens - n * (past + ids) + grown

    def add(self, row: Row) -> None:
        """Add a row."""
        self.tokens = self.total(row)
        n, past, ids = self._groups.get(row.size, (0, 0, 0))
        self._groups[row.size] = (n + 1, max(past, row.past_length), max(ids, len(row.ids)))

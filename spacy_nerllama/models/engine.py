"""The local Llama as an engine: rows of token ids in, scores of the legal continuations out.

Rows of a batch go on from pasts of different lengths. Each batch is put together anew: pasts are copied side by
side, aligned at their ends, so that what a row has read stays one contiguous stretch, and holes never accumulate.
The copy is a few percent of a forward pass; in return any rows can share a batch, whichever request or pass they
come from.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from ..errors import Errors


class Row(NamedTuple):
    """What to read next, and where decisions are made in it.

    past: Keys and values of what was read before, None at the beginning.
        *Shape:* (layers, 2, heads, length, head width)
    ids: The ids to read, at least one.
    asks: (i, choices) for each decision: which ids may follow after `ids[i]`.
    """

    past: Tensor | None
    ids: tuple[int, ...]
    asks: tuple[tuple[int, tuple[int, ...]], ...]

    @property
    def past_length(self) -> int:
        """How many ids were read before."""
        return 0 if self.past is None else self.past.shape[3]


class Scores:
    """What a batch of rows gave.

    logits: For each row, for each of its asks, the logits of the choices in float32.
        *Shape:* (asks, choices), padded with -inf
    """

    def __init__(self, rows: Sequence[Row], logits: list[Tensor], cache: DynamicCache, offset: int) -> None:
        self.logits = logits
        self._rows = rows
        self._cache = cache
        self._offset = offset

    def past(self, row: int, n_ids: int) -> Tensor:
        """Give the past of a row after the first `n_ids` of its ids; later ones are forgotten."""
        start, end = self._offset - self._rows[row].past_length, self._offset + n_ids
        layers = [
            torch.stack((layer.keys[row, :, start:end], layer.values[row, :, start:end]))  # type: ignore
            for layer in self._cache.layers
        ]
        return torch.stack(layers)


class Engine:
    """Scores continuations with a causal language model.

    model: The whole model, with or without an adapter.
    RAISES: ValueError if its output matrix is not an ordinary one.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        head = model.get_output_embeddings()
        if type(head) is not torch.nn.Linear:  # not of a subclass either, which may compute something else
            raise ValueError(Errors.E054.format(head=type(head).__name__))
        self.model = model
        self._decoder = model.get_decoder()
        self._rows = head.weight

    @property
    def context(self) -> int:
        """How many tokens the model can read."""
        return int(self.model.config.max_position_embeddings)

    @torch.inference_mode()
    def score(self, rows: Sequence[Row]) -> Scores:
        """Read a batch of rows.

        The hidden states at the asks are multiplied with the few rows of the output matrix that are legal there:
        logits over the vocabulary are never made.
        """
        device, offset = self._rows.device, max(row.past_length for row in rows)
        width = max(len(row.ids) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        past_lengths = torch.tensor([row.past_length for row in rows])
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = torch.tensor(row.ids)
        # Query q of a row sees its own past, [offset - past length, offset), and what it reads up to itself.
        keys = torch.arange(offset + width)
        seen = (keys >= offset - past_lengths[:, None, None]) & (keys <= offset + torch.arange(width)[:, None])
        dtype = self._rows.dtype
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        cache = self._cache(rows, offset)
        hidden = self._decoder(
            input_ids=ids.to(device),
            attention_mask=mask[:, None].to(device),
            position_ids=(past_lengths[:, None] + torch.arange(width)).to(device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return Scores(rows, self._logits(rows, hidden), cache, offset)

    def _cache(self, rows: Sequence[Row], offset: int) -> DynamicCache:
        cache = DynamicCache(config=self.model.config)
        pasts = [row.past for row in rows if row.past is not None]
        if pasts:
            layers, two, heads, _, width = pasts[0].shape
            joined = pasts[0].new_zeros(layers, two, len(rows), heads, offset, width)
            for i, row in enumerate(rows):
                if row.past is not None:
                    joined[:, :, i, :, offset - row.past_length :] = row.past
            for i, (keys, values) in enumerate(joined):
                cache.update(keys, values, i)
        return cache

    def _logits(self, rows: Sequence[Row], hidden: Tensor) -> list[Tensor]:
        asks = [(i, position, choices) for i, row in enumerate(rows) for position, choices in row.asks]
        if not asks:
            return [torch.zeros(0, 0) for _ in rows]
        where = torch.tensor([(i, position) for i, position, _ in asks], device=hidden.device)
        choices = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(choices) for _, _, choices in asks], batch_first=True, padding_value=-1
        ).to(hidden.device)
        states = hidden[where[:, 0], where[:, 1]]
        logits = torch.einsum("aw,acw->ac", states, self._rows[choices.clamp(min=0)]).float()
        logits = logits.masked_fill(choices < 0, -torch.inf).cpu()
        return list(logits.split([len(row.asks) for row in rows]))

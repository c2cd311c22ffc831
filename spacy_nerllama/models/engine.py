"""The local Llama as an engine: rows of token ids in, scores of the legal continuations out.

The ids of all rows of a batch are read as one packed sequence, without padding, whatever their lengths: the
linear layers, most of the work, do not care which row an id belongs to. Attention does: there, and only there,
rows of about the same length are laid side by side, each with its own past before it. So rows that advance
unevenly leave no holes and are never compacted, and first and later passes share a batch.

Measured before it was chosen (SmolLM2-135M, two cores, bfloat16, the same 60 sentences and the same 5,133 ids):
whole rows padded to the longest, with pasts copied side by side for all layers, took 7.5 s, packed rows 6.1 s.
Rows of all lengths in one attention took more than that gains, whence the groups.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import lru_cache
from itertools import accumulate
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..errors import Errors, ModelUnavailableError
from .scoring import Row, Scored, Scores


class KeysValues:
    """The past of a row in the local model.

    tensor: *Shape:* (layers, 2, heads, length, head width)
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __len__(self) -> int:
        return self.tensor.shape[3]

    def __getitem__(self, part: slice) -> "KeysValues":
        return KeysValues(self.tensor[:, :, :, part])


class PackedScores:
    """What a batch of rows gave, see `scoring.Scores`."""

    def __init__(
        self, rows: Sequence[Row], logits: list[Scored], starts: list[int], read: list[tuple[Tensor, Tensor]]
    ) -> None:
        self.logits = logits
        self._rows = rows
        self._starts = starts
        self._read = read

    def past(self, row: int, n_ids: int) -> KeysValues:
        """Give the past of a row after the first `n_ids` of its ids; later ones are forgotten."""
        start = self._starts[row]
        end = start + n_ids
        read = torch.stack([torch.stack((k[:, start:end], v[:, start:end])) for k, v in self._read])
        past = _tensor(self._rows[row])
        return KeysValues(read if past is None else torch.cat((past, read), dim=3))


class Engine:
    """Scores continuations with a causal language model. Threads may share it: batches take turns.

    model: The whole model, with or without an adapter. Its attention is replaced by ours, which is the ordinary
        one for all other callers.
    RAISES: ValueError if its logits are not plain products with an output matrix; when it reads, if its attention
        is not the ordinary one.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        head = model.get_output_embeddings()
        scaled = ("logits_scaling", "logit_scale", "final_logit_softcapping")
        special = [name for name in scaled if getattr(model.config, name, None) is not None]
        if type(head) is not torch.nn.Linear or head.bias is not None:
            special.append(type(head).__name__)  # not of a subclass either, which may compute something else
        if special:
            raise ValueError(Errors.E054.format(head=", ".join(special)))
        model.set_attn_implementation(PACKED)
        self.model = model
        self.prefix = lru_cache(maxsize=64)(self._prefix)
        self._decoder = model.get_decoder()
        self._rows = head.weight
        self._lock = threading.Lock()

    @property
    def context(self) -> int:
        """How many tokens the model can read."""
        return int(self.model.config.max_position_embeddings)

    @property
    def efficient(self) -> int:
        """How many ids in one pass are as fast as any more: beyond, a pass only takes longer.

        Measured on two CPU cores; the number for GPUs is a guess.
        """
        return 512 if self._rows.device.type == "cpu" else 8192

    def _prefix(self, ids: tuple[int, ...]) -> KeysValues:
        """Give the past of what many prompts begin with; the last few are kept."""
        return cast(KeysValues, self.submit([Row(None, ids, ())]).result().past(0, len(ids)))

    @property
    def at_once(self) -> int:
        """One batch at a time."""
        return 1

    def submit(self, rows: Sequence[Row]) -> "Future[Scores]":
        """Read a batch of rows, at once."""
        future: Future[Scores] = Future()
        try:
            future.set_result(self.score(rows))
        except torch.OutOfMemoryError as error:
            future.set_exception(MemoryError(str(error)))
        except torch.AcceleratorError as error:  # the device answers nothing else from now on
            future.set_exception(ModelUnavailableError(Errors.E059.format(reason=str(error).split("\n")[0])))
        return future

    @torch.inference_mode()
    def score(self, rows: Sequence[Row]) -> PackedScores:
        """Read a batch of rows.

        The hidden states at the asks are multiplied with the few rows of the output matrix that are legal there:
        logits over the vocabulary are never made.
        """
        with self._lock:
            layout = _Layout(rows, self._rows.dtype, self._rows.device)
            hidden = self._decoder(
                input_ids=torch.tensor([[i for row in rows for i in row.ids]], device=self._rows.device),
                position_ids=layout.positions,
                attention_mask=_NO_MASK,
                use_cache=False,
                layout=layout,
            ).last_hidden_state[0]
            if len(layout.read) != self.model.config.num_hidden_layers:
                what = "an attention of its own"
                raise ValueError(Errors.E057.format(model=type(self.model).__name__, what=what))
            return PackedScores(rows, self._logits(rows, hidden, layout.starts), layout.starts, layout.read)

    def _logits(self, rows: Sequence[Row], hidden: Tensor, starts: list[int]) -> list[Scored]:
        asks = [(start + i, choices) for row, start in zip(rows, starts, strict=True) for i, choices in row.asks]
        if not asks:
            return [np.zeros((0, 0), np.float32) for _ in rows]
        choices = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(choices) for _, choices in asks], batch_first=True, padding_value=-1
        ).to(hidden.device)
        states = hidden[torch.tensor([position for position, _ in asks], device=hidden.device)]
        legal = self._rows[choices.clamp(min=0)]
        logits = torch.einsum("aw,acw->ac", states.float(), legal.float())
        logits = logits.masked_fill(choices < 0, -torch.inf).cpu()
        return np.split(logits.numpy(), list(accumulate(len(row.asks) for row in rows))[:-1])


class _Layout:
    """Where the rows of a batch lie in the packed sequence, and what each layer read.

    starts: Where each row begins.
    longest: How much the longest row has read in the end.
    positions: The position of each packed id in its row. *Shape:* (1, ids)
    read: For each layer that was passed, keys and values of the packed ids. *Shape:* (heads, ids, head width)
    """

    def __init__(self, rows: Sequence[Row], dtype: torch.dtype, device: torch.device) -> None:
        ends = list(accumulate(len(row.ids) for row in rows))
        self.starts = [end - len(row.ids) for row, end in zip(rows, ends, strict=True)]
        self.longest = max(row.length for row in rows)
        positions = [i for row in rows for i in range(row.past_length, row.length)]
        self.positions = torch.tensor([positions], device=device)
        self.read: list[tuple[Tensor, Tensor]] = []
        groups: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            groups.setdefault(row.size, []).append(i)
        self._groups = [
            _Group([rows[i] for i in group], [self.starts[i] for i in group], dtype, device)
            for group in groups.values()
        ]
        self._packed = torch.cat([group.packed for group in self._groups]).argsort()

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """Let each id of the packed sequence attend to its row.

        query: *Shape:* (1, heads, ids, head width)
        keys, values: *Shape:* (1, key heads, ids, head width)
        RETURNS: *Shape:* (1, ids, heads, head width)
        """
        layer = len(self.read)
        self.read.append((keys[0], values[0]))
        parts = [group.attend(layer, query[0], keys[0], values[0], scale) for group in self._groups]
        return torch.cat(parts)[self._packed][None]


class _Group:
    """Rows of about the same length, side by side: pasts end, and ids begin, where they meet.

    packed: Where the ids of the rows, one row after the other, are in the packed sequence. *Shape:* (ids,)
    """

    def __init__(self, rows: Sequence[Row], starts: list[int], dtype: torch.dtype, device: torch.device) -> None:
        lengths = torch.tensor([len(row.ids) for row in rows])
        pasts = torch.tensor([row.past_length for row in rows])
        width, offset = int(lengths.max()), int(pasts.max())
        queries, keys = torch.arange(width), torch.arange(offset + width)
        real = queries < lengths[:, None]
        # Padding repeats the first id of its row: nothing sees it.
        spread = torch.tensor(starts)[:, None] + queries.where(real, 0)
        seen = (keys >= offset - pasts[:, None, None]) & (keys <= offset + queries[:, None])
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
        self.packed = spread[real].to(device)
        self._real = real.flatten().nonzero()[:, 0].to(device)
        self._spread = spread.to(device)
        self._mask = mask[:, None].to(device)
        self._pasts = _side_by_side(rows, offset)

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """Attend as `_Layout.attend` does, without its first dimension. Gives the ids of this group alone."""
        heads, shared = query.shape[0], query.shape[0] // keys.shape[0]
        rows, width = self._spread.shape
        # Heads that share keys are queries of one head: no key is copied for them.
        q = query[:, self._spread].transpose(0, 1).reshape(rows, -1, shared * width, query.shape[2])
        k, v = keys[:, self._spread].transpose(0, 1), values[:, self._spread].transpose(0, 1)
        if self._pasts is not None:
            past = self._pasts[layer]
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        if self._mask.shape[2] == width:
            self._mask = self._mask.repeat(1, 1, shared, 1)
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, self._mask, scale=scale)
        return out.reshape(rows, heads, width, -1).transpose(1, 2).flatten(0, 1)[self._real]


def _side_by_side(rows: Sequence[Row], offset: int) -> Tensor | None:
    """Lay pasts side by side. *Shape:* (layers, 2, rows, heads, offset, head width)"""
    pasts = [_tensor(row) for row in rows]
    some = next((past for past in pasts if past is not None), None)
    if some is None:
        return None
    layers, two, heads, _, width = some.shape
    joined = some.new_zeros(layers, two, len(rows), heads, offset, width)
    for i, past in enumerate(pasts):
        if past is not None:
            joined[:, :, i, :, offset - past.shape[3] :] = past
    return joined


def _tensor(row: Row) -> Tensor | None:
    return None if row.past is None else cast(KeysValues, row.past).tensor


def _packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: _Layout | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    window = kwargs.get("sliding_window")
    special = [name for name in ("s_aux", "softcap", "position_bias") if kwargs.get(name) is not None]
    if window is not None and layout.longest > window:
        special.append(f"a window of {window} tokens, set max_batch_tokens to as many")
    if special:
        raise ValueError(Errors.E057.format(model=type(module).__name__, what=", ".join(special)))
    return layout.attend(query, key, value, scaling or query.shape[3] ** -0.5), None


PACKED = "nerllama_packed"
_NO_MASK = torch.zeros(1, 1, 1, 1)  # a mask of four dimensions is passed on as it is, and ours is the layout's
AttentionInterface.register(PACKED, _packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)

"""Training losses, and the batches that they need.

The decision-only loss is the cross-entropy over the legal continuations at the places where a marker is
legal: exactly what marked decoding compares. It needs the hidden states at those places and the few rows of
the output matrix that are legal there, so logits over the vocabulary are never made. An adapter trained with
it alone does not learn to copy or to stop: it cannot generate text.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from .sequences import TrainingSequence

Loss = Literal["decision", "response", "full"]

IGNORED = -100


def use_decision_loss(model: PreTrainedModel) -> None:
    """Make a causal language model compute the decision-only loss in its own forward pass.

    It is called with what `decision_batch` gives. The output head is replaced, so that the forward pass gives
    hidden states for logits: do this to a model that is only trained, on the device where it stays. (Inside
    of the forward pass the loss is seen by whatever wraps the model to spread it over several GPUs.)

    model: The base model, before or after an adapter was added.
    """
    head = model.get_output_embeddings()
    rows = head.weight.detach()

    def loss(
        logits: Tensor,
        labels: Tensor,
        marker_positions: Tensor,
        marker_choices: Tensor,
        num_items_in_batch: Tensor | int | None = None,
        **_: Any,
    ) -> Tensor:
        """Give the mean loss of the decisions, 0 if there are none.

        logits: Hidden states. *Shape:* (batch, length, width)
        labels: The index of the right choice, always 0. *Shape:* (decisions,)
        marker_positions: Where each decision is made, in the flattened batch. *Shape:* (decisions,)
        marker_choices: Legal ids, the right one first, padded with -1. *Shape:* (decisions, choices)
        num_items_in_batch: The decisions of all batches that are accumulated to one step.
        """
        hidden = logits.flatten(0, 1)[marker_positions]
        legal = rows[marker_choices.clamp(min=0)]
        scores = torch.einsum("dw,dcw->dc", hidden.float(), legal.float())
        scores = scores.masked_fill(marker_choices < 0, -torch.inf)
        total = cross_entropy(scores, labels, reduction="sum")
        n = len(labels) if num_items_in_batch is None else num_items_in_batch
        return total / torch.as_tensor(n, device=total.device).clamp(min=1)

    model.set_output_embeddings(nn.Identity())
    model.loss_function = loss


def decision_batch(sequences: Sequence[TrainingSequence], pad: int) -> dict[str, Tensor]:
    """Make a padded batch for the decision-only loss.

    RETURNS: `input_ids` and `attention_mask`, *shape:* (batch, length), and `labels`, `marker_positions` and
        `marker_choices`, which `use_decision_loss` documents.
    """
    batch = _padded(sequences, pad)
    length = batch["input_ids"].shape[1]
    positions = [i * length + p for i, sequence in enumerate(sequences) for p in sequence.positions]
    choices = [c for sequence in sequences for c in sequence.choices]
    width = max(map(len, choices), default=1)
    padded = [(*c, *[-1] * (width - len(c))) for c in choices]
    return {
        **batch,
        "labels": torch.zeros(len(positions), dtype=torch.long),
        "marker_positions": torch.tensor(positions, dtype=torch.long),
        "marker_choices": torch.tensor(padded, dtype=torch.long).view(len(padded), width),
    }


def text_batch(
    sequences: Sequence[TrainingSequence], pad: int, end: int, prompt: bool = False
) -> dict[str, Tensor]:
    """Make a padded batch for the ordinary language-model loss, on the response and its end of turn.

    end: The id that ends a response.
    prompt: Whether the prompt is learnt too, as in the paper.
    RETURNS: `input_ids`, `attention_mask` and `labels`. *Shape:* (batch, length)
    """
    ended = [sequence._replace(ids=(*sequence.ids, end)) for sequence in sequences]
    batch = _padded(ended, pad)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    if not prompt:
        for row, sequence in zip(labels, ended, strict=True):
            row[: sequence.start] = IGNORED
    return {**batch, "labels": labels}


def _padded(sequences: Sequence[TrainingSequence], pad: int) -> dict[str, Tensor]:
    ids = [torch.tensor(sequence.ids) for sequence in sequences]
    ones = [torch.ones_like(each) for each in ids]
    return {
        "input_ids": nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad),
        "attention_mask": nn.utils.rnn.pad_sequence(ones, batch_first=True),
    }

"""Training losses, and the batches that they need.

The decision-only loss is the cross-entropy over the legal continuations at the places where a marker is
legal: exactly what marked decoding compares. It needs the hidden states at those places and the few rows of
the output matrix that are legal there. An adapter trained with it alone does not learn to copy or to stop: it
cannot generate text. The losses on text are computed over the whole vocabulary, but for a few positions at a
time. No loss ever makes the logits of a batch (1 GB for 2048 tokens of Llama 3).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from ..errors import Errors
from ..models.tokens import TextEncoder
from ..updating import Loss
from .sequences import TrainingSequence

IGNORED = -100
CHUNK = 2**24  # logits over the vocabulary that are there at once: 64 MiB in float32


def use_loss(model: PreTrainedModel, response_weight: float = 1.0) -> None:
    """Make a causal language model compute our losses in its own forward pass.

    The batches, which `make_batch` makes, say which loss. (Inside of the forward pass the loss is seen by whatever
    wraps the model to spread it over several GPUs.) Without labels the forward pass is what it was, and the output
    head stays where it is, so a model can be decoded with while it is trained.

    model: The base model, below its adapter if it has one.
    response_weight: What a token of the response counts next to a decision, for the loss "both".
    RAISES: ValueError if the output head is not a plain frozen matrix.
    """
    head: Any = model.get_output_embeddings()
    plain = type(head) is nn.Linear and getattr(head, "bias", None) is None
    if not plain or head.weight.requires_grad:
        raise ValueError(Errors.E150.format(head=type(head).__name__))
    without_loss = model.forward

    def forward(
        input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        choices: Tensor | None = None,
        response: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **inputs: Any,
    ) -> Any:
        """Give the mean loss of the labels, 0 if there are none.

        labels: The ids that are learnt; others are `IGNORED`. *Shape:* (batch, length)
        choices: For each label the ids that are legal there, the right one first, padded with -1. None: the
            whole vocabulary. *Shape:* (labels, choices)
        response: The ids that are learnt too, over the whole vocabulary. *Shape:* (batch, length)
        num_items_in_batch: The labels of all batches that are accumulated to one step.
        """
        if labels is None:
            return without_loss(input_ids, **inputs)
        inputs["use_cache"] = False
        hidden = cast(nn.Module, model.get_decoder())(input_ids, **inputs).last_hidden_state
        # Read here, not above: whoever spreads a model over several GPUs may have replaced it.
        rows = model.get_output_embeddings().weight
        total = (
            text_loss(hidden, rows, labels) if choices is None else decision_loss(hidden, rows, labels, choices)
        )
        if response is not None:
            total = total + response_weight * text_loss(hidden, rows, response)
        n = (labels[:, 1:] != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        return CausalLMOutput(loss=total / torch.as_tensor(n, device=total.device).clamp(min=1))

    model.forward = forward


def decision_loss(hidden: Tensor, rows: Tensor, labels: Tensor, choices: Tensor) -> Tensor:
    """Give the sum of the cross-entropies of decisions over what is legal at each.

    hidden: The last hidden states. *Shape:* (batch, length, width)
    rows: The output matrix. *Shape:* (vocabulary, width)
    labels, choices: As `use_loss` documents them.
    RETURNS: A number.
    """
    states = hidden[:, :-1][labels[:, 1:] != IGNORED]
    legal = rows[choices.clamp(min=0)]
    scores = torch.einsum("dw,dcw->dc", states.float(), legal.float())
    scores = scores.masked_fill(choices < 0, -torch.inf)
    right = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    return cross_entropy(scores, right, reduction="sum")


def text_loss(hidden: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    """Give the sum of the cross-entropies of text over the whole vocabulary.

    hidden: The last hidden states. *Shape:* (batch, length, width)
    rows: The output matrix. *Shape:* (vocabulary, width)
    labels: The ids that are learnt; others are `IGNORED`. *Shape:* (batch, length)
    RETURNS: A number.
    """
    learnt = labels[:, 1:] != IGNORED
    return cast(Tensor, _ChunkedCrossEntropy.apply(hidden[:, :-1][learnt], rows, labels[:, 1:][learnt]))


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy with a frozen output matrix, a few positions at a time.

    The gradient of the hidden states is made along with the loss, while a chunk's logits are there: nothing of
    the vocabulary's size is kept for the backward pass, nor computed again in it (as in Hsu et al., Liger
    Kernel, arXiv:2410.10989).
    """

    @staticmethod
    def forward(ctx: FunctionCtx, states: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
        """states: *Shape:* (labels, width); rows: *Shape:* (vocabulary, width); targets: *Shape:* (labels,)"""
        total = torch.zeros((), device=states.device)
        gradients = []
        size = max(1, CHUNK // len(rows))
        for chunk, right in zip(states.split(size), targets[:, None].split(size), strict=True):
            scores = (chunk @ rows.T).float().log_softmax(-1)
            total -= scores.gather(1, right).sum()
            if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]
                errors = scores.exp_().scatter_add_(1, right, -torch.ones_like(scores[:, :1]))
                gradients.append(errors.to(rows.dtype) @ rows)
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, None, None]:
        """Scale the gradient that was made before."""
        saved = ctx.saved_tensors
        return (outer[0].to(saved[0].dtype) * saved[0] if saved else None), None, None


def make_batch(sequences: Sequence[TrainingSequence], loss: Loss, pad: int, end: int) -> dict[str, Tensor]:
    """Make a padded batch for a loss.

    loss: "decision" is on the decisions, "response" on the marked copy and its end of turn, "both" on both, "full"
        on prompt and response, as in the paper.
    pad: The id that pads.
    end: The id that ends a response.
    RETURNS: `input_ids`, `attention_mask` and `labels`, *shape:* (batch, length), and what else the loss needs, as
        `use_loss` documents it. Labels are where the Trainer counts them.
    """
    if loss != "decision":
        sequences = [sequence._replace(ids=(*sequence.ids, end)) for sequence in sequences]
    ids, ones = _padded(sequences, pad)
    batch = {"input_ids": ids, "attention_mask": ones}
    text = ids.masked_fill(ones == 0, IGNORED)
    if loss != "full":
        for row, sequence in zip(text, sequences, strict=True):
            row[: sequence.start] = IGNORED
    if loss in ("response", "full"):
        return {**batch, "labels": text}
    labels = torch.full_like(ids, IGNORED)
    for i, sequence in enumerate(sequences):
        decided = torch.tensor(sequence.positions, dtype=torch.long) + 1
        labels[i, decided] = ids[i, decided]
    choices = [torch.tensor(choice) for sequence in sequences for choice in sequence.choices]
    legal = (
        nn.utils.rnn.pad_sequence(choices, batch_first=True, padding_value=-1) if choices else ids.new_zeros(0, 1)
    )
    decisions = {**batch, "labels": labels, "choices": legal}
    return {**decisions, "response": text} if loss == "both" else decisions


def collator(loss: Loss, encoder: TextEncoder) -> Callable[[Sequence[TrainingSequence]], dict[str, Tensor]]:
    """Give `make_batch` for a loss, with the ids of a tokenizer."""
    pad, end = encoder.tokenizer.pad_token_id, encoder.end_of_turn
    return partial(make_batch, loss=loss, pad=end if pad is None else pad, end=end)


def _padded(sequences: Sequence[TrainingSequence], pad: int) -> tuple[Tensor, Tensor]:
    ids = [torch.tensor(sequence.ids) for sequence in sequences]
    ones = [torch.ones_like(each) for each in ids]
    return (
        nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad),
        nn.utils.rnn.pad_sequence(ones, batch_first=True),
    )

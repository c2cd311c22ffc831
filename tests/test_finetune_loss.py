"""The training losses, against logits over the whole vocabulary and a few lines of arithmetic."""

import copy
from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from spacy_nerllama.finetune.loss import IGNORED, decision_batch, text_batch, use_decision_loss
from spacy_nerllama.finetune.sequences import TrainingSequence

VOCABULARY, PAD, END = 64, 0, 1

# Made-up ids; in each decision's choices the first is the id that follows.
SHORT = TrainingSequence((5, 9, 12, 20, 33), 2, (1, 3), ((12, 40), (33, 7, 8)))
LONG = TrainingSequence(tuple(range(10, 24)), 4, (3, 5, 9, 12), ((14, 50), (16, 3, 4, 5), (20, 21), (23, 1)))
NOTHING = TrainingSequence((5, 9, 12), 2, (), ())  # a text that looks like a marker leaves nothing to decide


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,  # far from a uniform distribution
        tie_word_embeddings=request.param,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def with_adapter(model: LlamaForCausalLM) -> PeftModel:
    """Add an adapter whose output is not zero, the same each time."""
    torch.manual_seed(1)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    return model


def deciding(model: LlamaForCausalLM) -> LlamaForCausalLM:
    model = copy.deepcopy(model)
    use_decision_loss(model)
    return model


def decision_losses(logits: Callable[[Tensor], Tensor], sequence: TrainingSequence) -> list[Tensor]:
    """Minus the log probability of each right choice, renormalised over the legal ids."""
    scores = logits(torch.tensor([sequence.ids]))[0]
    return [
        -(scores[position, choices[0]] - scores[position, list(choices)].logsumexp(0))
        for position, choices in zip(sequence.positions, sequence.choices, strict=True)
    ]


@pytest.mark.parametrize("sequences", [[SHORT], [LONG], [SHORT, LONG], [LONG, NOTHING, SHORT]])
def test_decision_loss(model: LlamaForCausalLM, sequences: list[TrainingSequence]) -> None:
    """Alone and in a padded batch, it is the mean over the decisions of all sequences."""
    losses = [loss for sequence in sequences for loss in decision_losses(lambda ids: model(ids).logits, sequence)]
    out = deciding(model)(**decision_batch(sequences, PAD))
    assert out.loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)
    assert out.logits.shape[-1] == 32, "logits over the vocabulary are never made"


def test_the_decisions_of_all_accumulated_batches_count_alike(model: LlamaForCausalLM) -> None:
    batches = [decision_batch([SHORT], PAD), decision_batch([LONG], PAD)]
    # This is how the Trainer counts, on what it accumulates to one step.
    n = sum((batch["labels"] != IGNORED).sum() for batch in batches)
    assert n == 6
    model = deciding(model)
    for number in (n, int(n)):
        total = sum(model(**batch, num_items_in_batch=number).loss for batch in batches)
        together = model(**decision_batch([SHORT, LONG], PAD)).loss
        assert total.item() == pytest.approx(together.item(), abs=1e-5)


def test_a_batch_without_decisions_teaches_nothing(model: LlamaForCausalLM) -> None:
    batch = decision_batch([NOTHING, NOTHING], PAD)
    model = with_adapter(deciding(model))
    for number in (None, torch.tensor(0)):
        loss = model(**batch, num_items_in_batch=number).loss
        assert loss.item() == 0
        loss.backward()
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("first", ["loss", "adapter"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_adapter_learns_and_the_base_does_not(
    model: LlamaForCausalLM, first: str, checkpointing: bool
) -> None:
    """Gradients are those of the full logits, whether the adapter comes after the loss or before it."""
    reference = with_adapter(copy.deepcopy(model))
    losses = [loss for s in (SHORT, LONG) for loss in decision_losses(lambda ids: reference(ids).logits, s)]
    torch.stack(losses).mean().backward()

    if first == "loss":
        use_decision_loss(model)
        adapted = with_adapter(model)
    else:
        adapted = with_adapter(model)
        use_decision_loss(model)
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    adapted.train()
    adapted(**decision_batch([SHORT, LONG], PAD)).loss.backward()

    expected = {name: p.grad for name, p in reference.named_parameters() if p.requires_grad}
    learnt = {name: p.grad for name, p in adapted.named_parameters() if p.requires_grad}
    assert expected.keys() == learnt.keys() != set()
    assert all("lora_" in name for name in learnt)
    for name, gradient in learnt.items():
        assert gradient.any()
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4)


def test_a_few_steps_lower_the_loss(model: LlamaForCausalLM) -> None:
    adapted = with_adapter(deciding(model))
    optimizer = torch.optim.Adam([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    batch, losses = decision_batch([SHORT, LONG], PAD), []
    for _ in range(20):
        losses.append(adapted(**batch).loss)
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_response_loss_is_on_the_copy_and_the_end_of_turn() -> None:
    batch = text_batch([SHORT, LONG], PAD, END)
    assert batch["input_ids"][0].tolist() == [5, 9, 12, 20, 33, END, *[PAD] * 9]
    assert batch["attention_mask"][0].tolist() == [1] * 6 + [0] * 9
    assert batch["labels"][0].tolist() == [IGNORED, IGNORED, 12, 20, 33, END, *[IGNORED] * 9]
    assert batch["labels"][1].tolist() == [*[IGNORED] * 4, *range(14, 24), END]


def test_full_loss_is_on_the_prompt_too() -> None:
    batch = text_batch([SHORT, LONG], PAD, END, prompt=True)
    assert batch["labels"][0].tolist() == [5, 9, 12, 20, 33, END, *[IGNORED] * 9]
    assert batch["labels"][1].tolist() == [*range(10, 24), END]


def test_the_end_of_turn_is_learnt_where_it_also_pads() -> None:
    batch = text_batch([SHORT, LONG], END, END)
    assert batch["input_ids"][0, 5:].tolist() == [END] * 10
    assert batch["labels"][0, 5:].tolist() == [END, *[IGNORED] * 9]


@pytest.mark.parametrize("prompt", [False, True], ids=["response", "full"])
def test_text_losses(model: LlamaForCausalLM, prompt: bool) -> None:
    losses = []
    for sequence in (SHORT, LONG):
        ids = torch.tensor((*sequence.ids, END))
        scores = model(ids[None]).logits[0].log_softmax(-1)
        start = 1 if prompt else sequence.start
        losses += [-scores[i - 1, ids[i]] for i in range(start, len(ids))]
    out = model(**text_batch([SHORT, LONG], PAD, END, prompt))
    assert out.loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)

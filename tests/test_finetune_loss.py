"""The training losses, against logits over the whole vocabulary and a few lines of arithmetic."""

import copy
from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from spacy_nerllama.finetune import loss as losses_module
from spacy_nerllama.finetune.loss import IGNORED, Loss, make_batch, use_loss
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


def learning(model: LlamaForCausalLM, response_weight: float = 1.0) -> LlamaForCausalLM:
    model = copy.deepcopy(model)
    use_loss(model, response_weight)
    return model


def batch_of(sequences: list[TrainingSequence], loss: Loss = "decision", pad: int = PAD) -> dict[str, Tensor]:
    return make_batch(sequences, loss, pad, END)


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
    out = learning(model)(**batch_of(sequences))
    assert out.loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)


def test_the_decisions_of_all_accumulated_batches_count_alike(model: LlamaForCausalLM) -> None:
    batches = [batch_of([SHORT]), batch_of([LONG])]
    # This is how the Trainer counts, on what it accumulates to one step: the first id of a row is never predicted.
    n = sum((batch["labels"][..., 1:] != IGNORED).sum() for batch in batches)
    assert n == 6
    model = learning(model)
    for number in (n, int(n)):
        total = sum(model(**batch, num_items_in_batch=number).loss for batch in batches)
        together = model(**batch_of([SHORT, LONG])).loss
        assert total.item() == pytest.approx(together.item(), abs=1e-5)


def test_a_batch_without_decisions_teaches_nothing(model: LlamaForCausalLM) -> None:
    batch = batch_of([NOTHING, NOTHING])
    model = with_adapter(learning(model))
    for number in (None, torch.tensor(0)):
        loss = model(**batch, num_items_in_batch=number).loss
        assert loss.item() == 0
        loss.backward()
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


def text_losses(model: Callable[[Tensor], Tensor], sequence: TrainingSequence, prompt: bool) -> list[Tensor]:
    """Minus the log probability of each id of the response and its end, or of all ids but the first."""
    ids = torch.tensor((*sequence.ids, END))
    scores = model(ids[None])[0].log_softmax(-1)
    return [-scores[i - 1, ids[i]] for i in range(1 if prompt else sequence.start, len(ids))]


def expected_loss(model: torch.nn.Module, sequences: list[TrainingSequence], loss: Loss, weight: float) -> Tensor:
    def logits(ids: Tensor) -> Tensor:
        return model(input_ids=ids).logits

    decisions = [each for s in sequences for each in decision_losses(logits, s)]
    text = torch.stack([each for s in sequences for each in text_losses(logits, s, prompt=loss == "full")])
    if loss == "decision":
        return torch.stack(decisions).mean()
    return (torch.stack(decisions).sum() + weight * text.sum()) / len(decisions) if loss == "both" else text.mean()


@pytest.mark.parametrize("loss", ["decision", "response", "both", "full"])
@pytest.mark.parametrize("first", ["loss", "adapter"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_adapter_learns_and_the_base_does_not(
    model: LlamaForCausalLM, loss: Loss, first: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and gradients are those of the full logits, whether the adapter comes after the loss or before it."""
    monkeypatch.setattr(losses_module, "CHUNK", 3 * VOCABULARY)  # three positions at a time
    reference = with_adapter(copy.deepcopy(model))
    expected = expected_loss(reference, [SHORT, LONG], loss, 0.3)
    expected.backward()

    if first == "loss":
        use_loss(model, 0.3)
        adapted = with_adapter(model)
    else:
        adapted = with_adapter(model)
        use_loss(model, 0.3)
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    adapted.train()
    got = adapted(**batch_of([SHORT, LONG], loss)).loss
    got.backward()
    assert got.item() == pytest.approx(expected.item(), abs=1e-5)

    wanted = {name: p.grad for name, p in reference.named_parameters() if p.requires_grad}
    learnt = {name: p.grad for name, p in adapted.named_parameters() if p.requires_grad}
    assert wanted.keys() == learnt.keys() != set()
    assert all("lora_" in name for name in learnt)
    for name, gradient in learnt.items():
        assert gradient.any()
        torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-4)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation gives, in elements."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.size = max([self.size, *(each.numel() for each in tree_leaves(out) if isinstance(each, Tensor))])
        return out


@pytest.mark.parametrize("loss", ["decision", "response", "both", "full"])
def test_the_logits_of_a_batch_are_never_made(loss: Loss, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on the way there nor back: nothing is larger than the output matrix itself."""
    vocabulary = 4096
    monkeypatch.setattr(losses_module, "CHUNK", 8 * vocabulary)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).requires_grad_(False)
    use_loss(model)
    adapted, batch = with_adapter(model), batch_of([LONG] * 16, loss)
    with Largest() as largest:
        adapted(**batch).loss.backward()
    assert largest.size < batch["input_ids"].numel() * vocabulary / 4


def test_without_labels_the_model_is_as_it_was(model: LlamaForCausalLM) -> None:
    ids = torch.tensor([SHORT.ids])
    assert learning(model)(ids).logits.equal(model(ids).logits)


def test_an_adapter_of_the_output_head_is_refused(model: LlamaForCausalLM) -> None:
    tied = model.config.tie_word_embeddings
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "lm_head"], ensure_weight_tying=tied))
    with pytest.raises(ValueError, match=r"^\[NL150\].*`lm_head` out of target_modules"):
        use_loss(model)


@pytest.mark.parametrize("loss", ["decision", "response", "both", "full"])
def test_a_few_steps_lower_the_loss(model: LlamaForCausalLM, loss: Loss) -> None:
    adapted = with_adapter(learning(model))
    optimizer = torch.optim.Adam([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    batch, losses = batch_of([SHORT, LONG], loss), []
    for _ in range(20):
        losses.append(adapted(**batch).loss)
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_the_decision_loss_is_on_what_was_decided() -> None:
    batch = batch_of([SHORT, LONG])
    assert batch["labels"][0].tolist() == [IGNORED, IGNORED, 12, IGNORED, 33, *[IGNORED] * 9]
    assert batch["choices"].tolist()[:2] == [[12, 40, -1, -1], [33, 7, 8, -1]]


def test_the_response_loss_is_on_the_copy_and_the_end_of_turn() -> None:
    batch = batch_of([SHORT, LONG], "response")
    assert batch["input_ids"][0].tolist() == [5, 9, 12, 20, 33, END, *[PAD] * 9]
    assert batch["attention_mask"][0].tolist() == [1] * 6 + [0] * 9
    assert batch["labels"][0].tolist() == [IGNORED, IGNORED, 12, 20, 33, END, *[IGNORED] * 9]
    assert batch["labels"][1].tolist() == [*[IGNORED] * 4, *range(14, 24), END]


def test_both_is_the_two_together() -> None:
    both, decision, response = (batch_of([SHORT, LONG], loss) for loss in ("both", "decision", "response"))
    assert both["input_ids"].equal(response["input_ids"])
    assert both["response"].equal(response["labels"])
    assert both["labels"][:, :-1].equal(decision["labels"])
    assert both["choices"].equal(decision["choices"])


def test_the_full_loss_is_on_the_prompt_too() -> None:
    batch = batch_of([SHORT, LONG], "full")
    assert batch["labels"][0].tolist() == [5, 9, 12, 20, 33, END, *[IGNORED] * 9]
    assert batch["labels"][1].tolist() == [*range(10, 24), END]


def test_the_end_of_turn_is_learnt_where_it_also_pads() -> None:
    batch = batch_of([SHORT, LONG], "response", pad=END)
    assert batch["input_ids"][0, 5:].tolist() == [END] * 10
    assert batch["labels"][0, 5:].tolist() == [END, *[IGNORED] * 9]

"""The engine: a batch of rows gives what each row gives alone, and alone what the plain model gives."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spacy_nerllama.errors import ModelUnavailableError
from spacy_nerllama.models.engine import Engine
from spacy_nerllama.models.scoring import Row

CHOICES = (300, 17, 4000)


@pytest.fixture(scope="module")
def engine(tiny) -> Engine:
    return tiny.load().engine


def ids(length: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, 40_000, (length,), generator=generator).tolist())


def plain(engine: Engine, read: tuple[int, ...]) -> Tensor:
    """All logits of the plain model. *Shape:* (ids, vocabulary)"""
    with torch.inference_mode():
        return engine.model(torch.tensor([read])).logits[0]


def close(scored: np.ndarray, expected: Tensor) -> None:
    np.testing.assert_allclose(scored, expected.numpy(), atol=1e-4, rtol=1e-4)


def test_logits_of_the_choices(engine: Engine) -> None:
    read = ids(12, 0)
    (logits,) = engine.score([Row(None, read, ((3, CHOICES), (11, CHOICES[:2])))]).logits
    expected = plain(engine, read)
    assert logits.dtype == np.float32
    close(logits[0], expected[3, list(CHOICES)])
    close(logits[1, :2], expected[11, list(CHOICES[:2])])
    assert logits[1, 2] == -np.inf, "padded"


def test_rows_with_pasts_of_any_length_share_a_batch(engine: Engine) -> None:
    """Each goes on from its own past, and the positions and masks of the others do not reach it."""
    begun = [ids(n, seed=n) for n in (30, 7, 19)]
    going_on = [(0, 30, ids(4, 50)), (0, 11, ids(9, 51)), (1, 7, ids(1, 52)), (2, 1, ids(6, 53))]
    first = engine.score([Row(None, read, ()) for read in begun])
    rows = [Row(first.past(i, n), more, ((len(more) - 1, CHOICES),)) for i, n, more in going_on]
    rows.append(Row(None, ids(8, 54), ((0, CHOICES), (7, CHOICES))))
    assert [row.past_length for row in rows] == [30, 11, 7, 1, 0]

    second = engine.score(rows)
    for (i, n, more), logits in zip(going_on, second.logits, strict=False):
        expected = plain(engine, (*begun[i][:n], *more))[-1, list(CHOICES)]
        close(logits[0], expected)
    close(second.logits[-1], plain(engine, ids(8, 54))[[0, 7]][:, list(CHOICES)])

    # And on from there: a past of a past, cut in the middle of what the row read itself.
    third = engine.score(
        [Row(second.past(1, 5), ids(3, 55), ((2, CHOICES),)), Row(second.past(3, 6), ids(2, 56), ((1, CHOICES),))]
    )
    for logits, read in zip(
        third.logits,
        [(*begun[0][:11], *ids(9, 51)[:5], *ids(3, 55)), (*begun[2][:1], *ids(6, 53), *ids(2, 56))],
        strict=True,
    ):
        close(logits[0], plain(engine, read)[-1, list(CHOICES)])


def test_the_tests_can_fail(engine: Engine) -> None:
    """In the tiny model a logit depends on every id before it, the first one too, and on positions."""
    read = ids(12, 0)
    right = plain(engine, read)[-1, list(CHOICES)]
    for wrong in ((*ids(1, 1), *read[1:]), read[1:], (*read[:5], *read[6:]), (read[1], read[0], *read[2:])):
        assert (plain(engine, wrong)[-1, list(CHOICES)] - right).abs().max() > 0.01


def test_a_model_that_we_would_misread_is_refused(tiny, tiny_base) -> None:
    """One that scales its logits, has windows of attention, or an attention that is not the library's."""
    from transformers import LlamaForCausalLM

    def model() -> LlamaForCausalLM:
        return LlamaForCausalLM.from_pretrained(tiny_base)

    scaling = model()
    scaling.config.logit_scale = 2.0
    with pytest.raises(ValueError, match=r"^\[NL054\] .*logit_scale"):
        Engine(scaling)

    windows = Engine(model())
    forward = windows.model.model.layers[0].self_attn.forward
    windows.model.model.layers[0].self_attn.forward = lambda *args, **kw: forward(*args, **kw, sliding_window=8)
    windows.score([Row(None, ids(8, 0), ())])
    with pytest.raises(ValueError, match=r"^\[NL057\] .*a window of 8 tokens"):
        windows.score([Row(None, ids(9, 0), ())])

    deaf = Engine(model())
    heard = deaf.model.model.layers[1].self_attn.forward
    deaf.model.model.layers[1].self_attn.forward = lambda *args, layout, **kw: heard(*args, **kw)
    with pytest.raises(ValueError, match=r"^\[NL057\] .*LlamaForCausalLM"):
        deaf.score([Row(None, ids(4, 0), ())])


def test_rows_without_decisions(engine: Engine) -> None:
    scores = engine.score([Row(None, ids(3, 0), ()), Row(None, ids(2, 1), ())])
    assert [len(logits) for logits in scores.logits] == [0, 0]
    mixed = engine.score([Row(None, ids(3, 0), ()), Row(None, ids(2, 1), ((1, CHOICES),))])
    assert [len(logits) for logits in mixed.logits] == [0, 1]


def test_a_device_that_is_lost_is_no_fault_of_the_rows(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each doc after it would be asked for, and be reported."""
    engine = Engine(tiny.load().engine.model)

    def lost(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nMore of it.")

    monkeypatch.setattr(engine, "score", lost)
    with pytest.raises(ModelUnavailableError, match=r"^\[NL059\] .*an illegal memory access"):
        engine.submit([Row(None, (1,), ())]).result()
    with pytest.raises(ModelUnavailableError):
        engine.prefix((1, 2))


def test_the_context_is_the_models(engine: Engine) -> None:
    assert engine.context == 4096


def test_a_past_outlives_its_batch(engine: Engine) -> None:
    """A kept past is a copy: what a later batch writes does not change it."""
    scores = engine.score([Row(None, ids(9, 0), ())])
    past = scores.past(0, 4)
    before = past.tensor.clone()
    engine.score([Row(past, ids(3, 1), ((2, CHOICES),)), Row(past, ids(5, 2), ())])
    assert torch.equal(past.tensor, before)
    assert past.tensor.shape == (2, 2, 2, 4, 8), "layers, keys and values, heads, length, head width"
    assert past.tensor.untyped_storage().nbytes() == past.tensor.nbytes, "it does not keep the batch in memory"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda head: torch.nn.Sequential(head),
        lambda head: torch.nn.utils.parametrize.register_parametrization(head, "weight", torch.nn.Identity()),
    ],
)
def test_an_output_head_that_is_not_a_plain_matrix(tiny_base, wrap: Callable) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    model.set_output_embeddings(wrap(model.get_output_embeddings()))
    with pytest.raises(ValueError, match=r"^\[NL054\] .*Choose another adapter or base"):
        Engine(model)

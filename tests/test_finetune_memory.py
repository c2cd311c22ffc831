"""The memory that a recipe needs, against what training steps of small models take."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from click.testing import Result
from spacy.cli._util import app
from test_recipe import SHIPPED
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.training_args import OptimizerNames
from typer.testing import CliRunner

import spacy_nerllama.cli  # noqa: F401 (adds our commands)
from spacy_nerllama.finetune import memory
from spacy_nerllama.finetune.loss import make_batch, use_loss
from spacy_nerllama.finetune.memory import (
    OPTIMIZERS,
    PUBLISHED,
    RESERVED,
    Shape,
    check,
    largest,
    plan,
    read_memory,
    shape_of,
)
from spacy_nerllama.finetune.recipe import (
    AdapterSection,
    BaseSection,
    Optimizer,
    Recipe,
    TrainingSection,
    read_recipe,
)
from spacy_nerllama.finetune.sequences import TrainingSequence
from spacy_nerllama.finetune.train import with_adapter
from spacy_nerllama.prompts import CompactPrompt

CONFIGS = Path(__file__).parents[1] / "configs"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
GB = 10**9


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch):
    """Counts the bytes of tensors, as benchmarks/finetune.py does."""
    monkeypatch.syspath_prepend(str(CONFIGS.with_name("benchmarks")))
    from live import LiveTensors

    return LiveTensors()


def recipe_of(
    targets: list[str] = ALL, quantization: str | None = None, dropout: float = 0.0, **training
) -> Recipe:
    return Recipe(
        base=BaseSection(quantization=quantization),
        adapter=AdapterSection(r=8, dropout=dropout, target_modules=targets),
        corpora={},
        prompt=CompactPrompt(),
        training=TrainingSection(**training),
    )


def config_of(width: int = 256, inner: int = 1024) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=8192,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )


def measure(config: LlamaConfig, recipe: Recipe, dtype: torch.dtype, live) -> int:
    """Measure the peak of a training step, beside weights and states of the optimiser."""
    base = LlamaForCausalLM(config).to(dtype).requires_grad_(False)
    model = with_adapter(base, recipe)
    use_loss(base)
    if recipe.training.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    length = recipe.training.max_tokens
    sequences = [sequence_of(length - 1 - i) for i in range(recipe.training.batch_tokens // length)]
    batch = make_batch(sequences, recipe.training.loss, 0, 1)
    parameters = [p for p in model.train().parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters)
    for weight in parameters:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()  # which makes its states
    optimizer.zero_grad()
    with live:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return live.peak


def sequence_of(length: int) -> TrainingSequence:
    """Half of it prompt, half copy, with decisions where there are many."""
    ids, start = tuple(range(10, 10 + length)), length // 2
    positions = tuple(range(start, start + int(0.3 * length)))
    return TrainingSequence(ids, start, positions, tuple((ids[p + 1], 1, 2, 3) for p in positions))


@pytest.mark.parametrize(
    ("recipe", "shape", "dtype"),
    [
        ({}, {}, torch.bfloat16),
        ({}, {}, torch.float32),
        ({"targets": ATTENTION}, {}, torch.bfloat16),
        ({"targets": ATTENTION, "dropout": 0.1}, {}, torch.bfloat16),
        ({"loss": "full"}, {}, torch.bfloat16),
        ({"gradient_checkpointing": True}, {}, torch.bfloat16),
        ({"gradient_checkpointing": True, "loss": "both"}, {}, torch.bfloat16),
        ({"gradient_checkpointing": True}, {"width": 512}, torch.float32),
        ({"gradient_checkpointing": True, "targets": ATTENTION}, {"inner": 2048}, torch.bfloat16),
        ({"gradient_checkpointing": True, "max_tokens": 512}, {}, torch.bfloat16),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_the_prediction_is_within_a_tenth_of_what_is_measured(
    recipe: dict, shape: dict, dtype: torch.dtype, live
) -> None:
    mine, config = recipe_of(**{"max_tokens": 256, "batch_tokens": 512, **recipe}), config_of(**shape)
    planned = plan(Shape.of(config), mine, dtype.itemsize)
    predicted = planned.kept + max(planned.layer, planned.loss) + planned.fixed["gradients"]
    assert predicted == pytest.approx(measure(config, mine, dtype, live), rel=0.1)


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_weights_are_counted_to_the_byte(wide_base: Path, quantization: str | None) -> None:
    from bitsandbytes.nn import Linear4bit

    from spacy_nerllama.models.loading import load_base

    base, _ = load_base(str(wide_base), quantization, "bfloat16", "cpu")
    recipe = recipe_of(quantization=quantization)
    model = with_adapter(base, recipe)
    planned = plan(shape_of(str(wide_base)), recipe)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert planned.parameters["adapter"] == sum(p.numel() for p in trained)
    assert planned.fixed["adapter"] == sum(p.nbytes for p in trained)
    frozen = {p.data_ptr(): p.nbytes for p in model.parameters() if not p.requires_grad}
    states = 0
    for module in model.modules():
        if isinstance(module, Linear4bit):
            state = module.weight.quant_state
            states += state.absmax.nbytes + state.state2.absmax.nbytes
    expected = sum(planned.fixed[name] for name in ("linear layers", "embeddings and output matrix", "norms"))
    assert expected == pytest.approx(sum(frozen.values()) + states, rel=0.01)


def test_every_optimiser_of_a_recipe_is_planned_and_the_trainer_has_it() -> None:
    assert set(OPTIMIZERS) == set(get_args(Optimizer))
    assert set(OPTIMIZERS) <= {name.value for name in OptimizerNames}


def test_the_published_shape_has_the_published_parameters() -> None:
    """8,030,261,248 of them, as the model's card says."""
    parameters = plan(PUBLISHED[LLAMA], recipe_of()).parameters
    assert sum(n for name, n in parameters.items() if name != "adapter") == 8_030_261_248


@pytest.mark.parametrize("path", [path for path in SHIPPED if "8b" in path.name], ids=lambda path: path.name)
def test_recipes_for_8b_fit_where_they_say(path: Path) -> None:
    recipe, _ = read_recipe(path, examples=False)
    check(shape_of(recipe.base.name), recipe, (8 if "8gb" in path.name else 16) * GB)


def test_what_is_largest_fits_and_no_more() -> None:
    recipe, _ = read_recipe(CONFIGS / "llama3.1-8b-16gb.cfg")
    shape = shape_of(LLAMA)
    longest, batch = largest(shape, recipe, 16 * GB)

    def peak(tokens: int, length: int) -> int:
        training = recipe.training.model_copy(update={"batch_tokens": tokens, "max_tokens": length})
        return plan(shape, recipe.model_copy(update={"training": training})).peak

    assert peak(longest, longest) <= 16 * GB < peak(longest + 1, longest + 1)
    assert peak(batch * 512, 512) <= 16 * GB < peak((batch + 1) * 512, 512)
    assert largest(shape, recipe, GB) == (0, 0)


def test_a_sequence_that_is_longer_than_a_batch_counts() -> None:
    """It has a batch to itself; and a batch need not be of sequences of the longest kind."""

    def peak(**training: int) -> int:
        return plan(PUBLISHED[LLAMA], recipe_of(**training)).peak

    assert peak(max_tokens=2048, batch_tokens=512) == peak(max_tokens=2048, batch_tokens=2048)
    assert peak(max_tokens=1000, batch_tokens=1999) > peak(max_tokens=1000, batch_tokens=1000)


def test_what_does_not_fit_says_what_would() -> None:
    recipe, _ = read_recipe(CONFIGS / "llama3.1-8b-16gb.cfg")
    shape = shape_of(LLAMA)
    with pytest.raises(MemoryError, match=r"^\[NL152\].* Batches of up to (\d+) tokens fit") as error:
        check(shape, recipe, 7 * GB + RESERVED)
    fits = int(str(error.value).split("up to ")[1].split()[0])
    training = recipe.training.model_copy(update={"batch_tokens": fits, "max_tokens": fits})
    check(shape, recipe.model_copy(update={"training": training}), 7 * GB + RESERVED)
    with pytest.raises(MemoryError, match="No batch fits"):
        check(shape, recipe, 4 * GB)


def test_shapes_are_read_without_weights(base_path: Path, tmp_path: Path) -> None:
    bundled = shape_of(None)
    assert (bundled.layers, bundled.width, bundled.tied) == (30, 576, True)
    config_of().save_pretrained(tmp_path)  # no weights there
    assert shape_of(str(tmp_path)) == Shape.of(config_of())
    with pytest.raises(FileNotFoundError, match=r"^\[NL151\] .*nobody/nothing"):
        shape_of("nobody/nothing")


def test_amounts_of_memory() -> None:
    amounts = {"16GB": 16 * GB, "15.5 GiB": int(15.5 * 2**30), "800MB": 800_000_000, "24g": 24 * GB}
    assert {text: read_memory(text) for text in amounts} == amounts
    for text in ("16", "much", "-4GB"):
        with pytest.raises(ValueError, match=r"^\[NL153\]"):
            read_memory(text)


def run(*args: str) -> Result:
    return CliRunner().invoke(app, ["nerllama", "finetune", *args])


def test_the_command_line_tells_and_refuses() -> None:
    recipe = str(CONFIGS / "llama3.1-8b-paper.cfg")
    told = run(recipe, "--dry-run", "--memory", "16GB")
    assert told.exit_code == 0, told.output
    assert "6,979,321,856" in told.output
    assert "peak" in told.output
    refused = run(recipe, "--dry-run", "--memory", "6GB")
    assert refused.exit_code == 1
    assert "[NL152]" in refused.output
    wrong = run(recipe, "--dry-run", "--memory", "lots")
    assert wrong.exit_code == 1
    assert "[NL153]" in wrong.output
    mistaken = run(recipe, "--dry-run", "--training.epochs", "0", "--adapter.r", "-1")
    assert mistaken.exit_code == 1
    assert "valid:\n  adapter.r: Input should" in mistaken.output
    assert "\n  training.epochs: Input should" in mistaken.output, "each on a line"
    missing = run(recipe, "--dry-run", "--memory", "16GB", "--adapter.init", "/nowhere")
    assert missing.exit_code == 1
    assert "There is no plan" in missing.output
    assert "\n[NL049] There is no adapter folder /nowhere" in missing.output
    assert "--output" in run(recipe).output
    assert "--dry-run" in run(recipe, "--output", "out", "--memory", "16GB").output


@pytest.mark.parametrize("device", ["cuda:99", "cudo"])
def test_a_device_that_is_not_there_is_told_of_cleanly(device: str, tmp_path: Path) -> None:
    recipe = str(CONFIGS / "llama3.1-8b-16gb.cfg")
    for how in (["--dry-run"], ["--dry-run", "--memory", "16GB"], ["--output", str(tmp_path)]):
        refused = run(recipe, *how, "--base.device", device)
        assert isinstance(refused.exception, SystemExit)
        assert f"[NL168] The device {device} is not there" in refused.output


def test_where_the_memory_of_a_device_is_not_known_a_dry_run_says_how_to_name_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "device_memory", lambda device: None)
    told = run(str(CONFIGS / "llama3.1-8b-16gb.cfg"), "--dry-run", "--base.device", "cpu")
    assert told.exit_code == 0
    assert "--memory 16GB says whether" in told.output


def test_a_run_warns_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from spacy_nerllama.finetune import train

    monkeypatch.setattr(memory, "device_memory", lambda device: 6 * GB)
    monkeypatch.setattr(train, "finetune", lambda *args: tmp_path)  # the warning comes before, and stops nothing
    ran = run(str(CONFIGS / "llama3.1-8b-16gb.cfg"), "--output", str(tmp_path))
    assert ran.exit_code == 0
    assert "[NL152]" in ran.output
    assert "Adapter written" in ran.output

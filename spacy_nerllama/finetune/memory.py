"""What a recipe will need in memory, told from the shapes of its base: no weights are read.

The figures follow what transformers, PEFT and bitsandbytes keep for the backward pass of a Llama layer; where they
change what they keep, tests/test_finetune_memory.py, which measures, says so. Bytes throughout.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base import BUNDLED, bundled_base
from ..errors import Errors
from .loss import CHUNK
from .recipe import Optimizer, Recipe, TrainingSection

FLOAT32 = 4
# 4 bits, a byte for each block of 64, and for each 256 of these a float (Dettmers et al., arXiv:2305.14314).
NF4 = 0.5 + 1 / 64 + FLOAT32 / (64 * 256)
# Bytes that an optimiser keeps for each parameter; those of 8 bits also a float for each block of 256, twice.
OPTIMIZERS: dict[Optimizer, float] = {
    "adamw_torch": 8.0,
    "adamw_8bit": 2 + 8 / 256,
    "paged_adamw_8bit": 2 + 8 / 256,
    "sgd": 0.0,
}
# What the driver, its kernels and the gaps between tensors take beside them on a GPU. A guess: no GPU was at hand.
RESERVED = 700_000_000

# Of a batch, the shares of tokens that are copied and where something is decided, and how much is legal there.
COPIED, DECIDED, LEGAL = 0.5, 0.3, 4


@dataclass(frozen=True)
class Shape:
    """The shape of a Llama.

    width: Of the hidden states. `inner` is that within the MLP, `head` that of an attention head.
    tied: Whether the output matrix is that of the embeddings.
    """

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    head: int
    tied: bool

    @classmethod
    def of(cls, config: Any) -> "Shape":
        """Read the shape from a Hugging Face config."""
        heads = config.num_attention_heads
        return cls(
            config.vocab_size,
            config.hidden_size,
            config.intermediate_size,
            config.num_hidden_layers,
            heads,
            config.num_key_value_heads or heads,
            getattr(config, "head_dim", None) or config.hidden_size // heads,
            config.tie_word_embeddings,
        )

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """The linear layers of a decoder layer: inputs and outputs of each."""
        queries, keys = self.heads * self.head, self.key_heads * self.head
        return {
            "q_proj": (self.width, queries),
            "k_proj": (self.width, keys),
            "v_proj": (self.width, keys),
            "o_proj": (queries, self.width),
            "gate_proj": (self.width, self.inner),
            "up_proj": (self.width, self.inner),
            "down_proj": (self.inner, self.width),
        }


# The bases that our recipes name, as published: their configs are not to be had without a licence and a network.
PUBLISHED = {
    "meta-llama/Llama-3.1-8B-Instruct": Shape(128_256, 4096, 14_336, 32, 32, 8, 128, tied=False),
}


def shape_of(name: str | None) -> Shape:
    """Give the shape of a base. Nothing is fetched and no weights are read.

    name: As `load_base` takes it: None, a folder, a `.gguf` file, a hub name.
    RAISES: FileNotFoundError if there is no such base on this machine, and it is not one of `PUBLISHED`.
    """
    from transformers import AutoConfig

    if name in PUBLISHED:
        return PUBLISHED[name]
    path = bundled_base() if name is None else Path(name).expanduser()
    try:
        if path.suffix == ".gguf":
            config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        else:
            config = AutoConfig.from_pretrained(path if path.is_dir() else str(name), local_files_only=True)
    except OSError as error:
        raise FileNotFoundError(Errors.E151.format(name=name or BUNDLED.name)) from error
    return Shape.of(config)


@dataclass(frozen=True)
class Plan:
    """What a training run needs.

    parameters: Of the base and of the adapter.
    fixed: What is there all the time: weights, adapter, its gradients, states of the optimiser.
    kept: Activations that wait for the backward pass.
    layer: The most that a layer needs beside them, on its way back.
    loss: What the loss needs beside them. It is never there together with `layer`.
    """

    parameters: dict[str, int]
    fixed: dict[str, int]
    kept: int
    layer: int
    loss: int

    @property
    def peak(self) -> int:
        """The most that is there at once."""
        return sum(self.fixed.values()) + self.kept + max(self.layer, self.loss)

    def table(self) -> list[tuple[str, str, str]]:
        """Give the rows of a table: what, parameters, GB."""
        rows = [(name, self.parameters.get(name, 0), size) for name, size in self.fixed.items()]
        rows += [("activations kept", 0, self.kept), ("a layer's backward pass", 0, self.layer)]
        rows += [("loss", 0, self.loss), ("peak", 0, self.peak)]
        return [(name, f"{n:,}" if n else "", f"{size / 1e9:.2f}") for name, n, size in rows]


def plan(shape: Shape, recipe: Recipe, float_size: int = 2) -> Plan:
    """Tell what a recipe needs: its largest batch, of `batch_tokens`, or of one sequence that is longer.

    shape: The base's.
    float_size: Bytes of a number in what the base computes in: 2, or 4 for float32.
    """
    b, training = float_size, recipe.training
    length = training.max_tokens
    n = max(training.batch_tokens, length)
    linear = shape.layers * sum(i * o for i, o in shape.linear.values())
    tables = (1 if shape.tied else 2) * shape.vocabulary * shape.width
    norms = (2 * shape.layers + 1) * shape.width
    targets: dict[str, tuple[int, int]] = {
        name: size for name, size in shape.linear.items() if name in recipe.adapter.target_modules
    }
    adapter = shape.layers * sum(recipe.adapter.r * (i + o) for i, o in targets.values())
    weights, embeddings, lora = "linear layers", "embeddings and output matrix", "adapter"
    fixed = {
        weights: int(linear * (NF4 if recipe.base.quantization else b)),
        embeddings: tables * b,
        "norms": norms * b,
        lora: adapter * FLOAT32,
        "gradients": adapter * FLOAT32,
        "optimiser": int(adapter * OPTIMIZERS[training.optimizer]),
    }
    inside, back = _layer(shape, recipe, targets, b, length)
    edge = n * shape.width * (2 * b + FLOAT32)  # embeddings in; the last norm's copy and what it gives
    whole = n * inside
    if training.gradient_checkpointing:
        kept, layer = n * shape.width * b * shape.layers + edge, whole + n * back
    else:
        kept, layer = whole * shape.layers + edge, 0
    if recipe.base.quantization:
        layer += 2 * b * shape.width * shape.inner  # a layer's largest matrix, dequantised, twice for a moment
    return Plan(
        {weights: linear, embeddings: tables, "norms": norms, lora: adapter},
        fixed,
        kept,
        layer,
        _loss(shape, training, n, b),
    )


def largest(shape: Shape, recipe: Recipe, memory: int, float_size: int = 2) -> tuple[int, int]:
    """Find what fits into a memory.

    memory: Bytes, what is reserved for the driver left out.
    RETURNS: The longest sequence, alone in its batch; the most sequences of `max_tokens` in a batch. 0: not one.
    """

    def needs(tokens: int, length: int) -> int:
        training = recipe.training.model_copy(update={"batch_tokens": tokens, "max_tokens": length})
        return plan(shape, recipe.model_copy(update={"training": training}), float_size).peak

    def most(peak: Callable[[int], int], limit: int) -> int:
        return bisect_right(range(1, limit), memory, key=peak)

    length = recipe.training.max_tokens
    return most(lambda each: needs(each, each), 1 << 20), most(lambda each: needs(each * length, length), 1 << 16)


def read_memory(text: str) -> int:
    """Read an amount of memory, such as 16GB or 15.5GiB.

    RETURNS: Bytes.
    RAISES: ValueError if it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])(i?)B?", text.strip(), re.IGNORECASE)
    if not found:
        raise ValueError(Errors.E153.format(memory=text))
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** ("KMGT".index(unit.upper()) + 1))


def device_memory(device: str) -> int | None:
    """Tell how many bytes of memory a device has; None where that is not known."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    if device == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def check(shape: Shape, recipe: Recipe, memory: int, float_size: int = 2) -> None:
    """Check that a recipe fits into a memory, with what the driver takes.

    memory: Bytes.
    RAISES: MemoryError if it does not, saying what would.
    """
    peak = plan(shape, recipe, float_size).peak + RESERVED
    if peak <= memory:
        return
    longest, _ = largest(shape, recipe, memory - RESERVED, float_size)
    if longest:
        advice = f"Batches of up to {longest} tokens fit: set training.batch_tokens, and max_tokens, no higher."
    else:
        advice = "No batch fits: choose a smaller base or adapter, or nf4 for base.quantization."
    if not recipe.training.gradient_checkpointing:
        advice += " Setting training.gradient_checkpointing makes room too."
    figures = {"peak": peak / 1e9, "reserved": RESERVED / 1e9, "memory": memory / 1e9}
    raise MemoryError(Errors.E152.format(**figures, advice=advice))


def _layer(shape: Shape, recipe: Recipe, targets: dict[str, Any], b: int, length: int) -> tuple[int, int]:
    """Give what a layer keeps of a token for its backward pass, and what is there beside it on the way back.

    b: Bytes of a number that is computed in.
    length: Of a sequence.
    """
    queries = shape.heads * shape.head
    kept = 2 * FLOAT32 * shape.width  # both norms, in float32
    kept += 4 * b * queries + FLOAT32 * shape.heads  # queries, keys and values by query head, what is attended
    kept += b * length  # the mask
    kept += 3 * b * shape.inner  # gate, its activation, up
    # An adapter is in float32: each layer keeps a copy of its input, but where that is in float32, it is shared.
    groups = [("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",)]
    for group in groups:
        mine = [targets[name][0] for name in group if name in targets]
        if b < FLOAT32 or recipe.adapter.dropout:
            kept += FLOAT32 * sum(mine)
        elif mine and group != ("o_proj",):  # what is attended is kept already
            kept += FLOAT32 * mine[0]
        kept += len(mine) * FLOAT32 * recipe.adapter.r
        if recipe.adapter.dropout:
            kept += FLOAT32 * sum(mine)  # which were dropped (a GPU keeps a byte of each, a CPU a float)
    # Gradients inside the MLP, less what is given up meanwhile: not derived, measured.
    return kept, (3 if "down_proj" in targets else 4) * shape.inner


def _loss(shape: Shape, training: TrainingSection, n: int, b: int) -> int:
    """Give what a loss needs beside what was kept."""
    size = 0
    if training.loss in ("decision", "both"):
        decided = int(n * DECIDED)
        size += decided * (LEGAL + 1) * shape.width * (b + FLOAT32)
    if training.loss != "decision":
        labels = n if training.loss == "full" else int(n * COPIED)
        chunk = min(labels, max(1, CHUNK // shape.vocabulary))
        size += chunk * shape.vocabulary * 2 * FLOAT32 + 2 * labels * shape.width * b
    return size

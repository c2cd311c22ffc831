"""Peak memory and speed of a training step: ours, next to the plain PEFT script with the paper's settings.

    python benchmarks/finetune.py --shape 8b --lengths 512 1024 2048 --batches 1 2
    python benchmarks/finetune.py --shape small --lengths 256 512 --batches 1
    python benchmarks/finetune.py --shape 8b --lengths 512 --batches 1 --dtype bfloat16 --steps 0

Weights are random, and quantised to NF4 once for each shape of a layer: the whole model is never there in
bfloat16. Both train with gradient checkpointing, in a process of their own.

ours   an adapter on all linear layers, r = 16, the decision-only loss, 8-bit AdamW that can be paged out (on a CPU
       AdamW of torch): configs/llama3.1-8b-16gb.cfg
plain  `prepare_model_for_kbit_training`, an adapter on q, k, v and o, r = 64, dropout 0.1, the loss on the whole
       text from logits over the whole vocabulary, AdamW of torch; its forward pass under autocast to bfloat16, as
       the Trainer's bf16=True does it, on GPUs and on CPUs that have the instructions

Memory is what is there at the peak of a step, weights and states of the optimiser included: of a GPU the most that
was allocated, of a CPU the bytes of all tensors (what kernels take inside of themselves is not among them). The
prediction is that of `finetune --dry-run`, for ours. Ratios are plain to ours. On a CPU without instructions for
bfloat16 the memory of bfloat16 can be measured (--steps 0), its speed not: products are computed in float32 there.
"""

import argparse
import copy
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from live import LiveTensors
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from torch import nn
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from spacy_nerllama.finetune.loss import make_batch, use_loss
from spacy_nerllama.finetune.memory import DECIDED, PUBLISHED, Shape, plan
from spacy_nerllama.finetune.recipe import Recipe, read_recipe
from spacy_nerllama.finetune.sequences import TrainingSequence
from spacy_nerllama.finetune.train import with_adapter
from spacy_nerllama.models.loading import keep_unpacked, resolve_device, resolve_dtype

SHAPES = {
    "8b": PUBLISHED["meta-llama/Llama-3.1-8B-Instruct"],
    "small": Shape(49_152, 576, 1536, 30, 9, 3, 64, tied=True),  # SmolLM2-135M
    "tiny": Shape(8192, 256, 1024, 4, 8, 2, 32, tied=False),
}
WAYS = ("ours", "plain")
RECIPE = Path(__file__).parent.parent / "configs" / "llama3.1-8b-16gb.cfg"


def random_base(shape: Shape, dtype: torch.dtype, device: str) -> Any:
    """Make a base with random weights, its linear layers in NF4; those of the same shape hold the same numbers."""
    import bitsandbytes as bnb

    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=8192,
    )
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config).to(dtype)

    def filled(parameter: torch.Tensor) -> torch.Tensor:
        there = torch.empty(parameter.shape, dtype=dtype, device=device)
        return there.normal_(std=0.02) if there.dim() > 1 else there.fill_(1)

    quantized: dict[torch.Size, Any] = {}
    for module in tqdm(list(model.modules()), "Random weights", leave=False):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and name != "lm_head":
                linear = bnb.nn.Linear4bit(
                    child.in_features,
                    child.out_features,
                    bias=False,
                    compute_dtype=dtype,
                    quant_type="nf4",
                    device="meta",
                )
                if child.weight.shape not in quantized:
                    weight = bnb.nn.Params4bit(filled(child.weight), requires_grad=False, quant_type="nf4")
                    quantized[child.weight.shape] = weight.to(device)
                linear.weight = copy.deepcopy(quantized[child.weight.shape])
                setattr(module, name, linear)
    for module in model.modules():  # as they are now: those that were replaced get no weights
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                setattr(module, name, nn.Parameter(filled(parameter), requires_grad=False))
    model.tie_weights()
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(device)
    model.is_loaded_in_4bit = True
    return model.requires_grad_(False)


def recipe_of(length: int, batch: int) -> Recipe:
    """Give our recipe with batches of one size."""
    settings: dict[str, Any] = {"training.max_tokens": length, "training.batch_tokens": length * batch}
    if not torch.cuda.is_available():
        settings["training.optimizer"] = "adamw_torch"
    return read_recipe(RECIPE, settings)[0]


def ours(base: Any, recipe: Recipe, device: str) -> tuple[Any, torch.optim.Optimizer]:
    """Make the base learn our way."""
    model = with_adapter(base, recipe)
    use_loss(base)
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    parameters = [p for p in model.parameters() if p.requires_grad]
    if device == "cpu":
        return model, torch.optim.AdamW(parameters)
    import bitsandbytes as bnb

    return model, bnb.optim.PagedAdamW8bit(parameters)


def plain(base: Any) -> tuple[Any, torch.optim.Optimizer]:
    """Make the base learn as scripts do."""
    keep_unpacked(base, fitting=True)
    base = prepare_model_for_kbit_training(base, gradient_checkpointing_kwargs={"use_reentrant": False})
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    lora = LoraConfig(r=64, lora_alpha=16, lora_dropout=0.1, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])


def measure(
    way: str, name: str, dtype: torch.dtype, length: int, batch: int, steps: int
) -> tuple[float, float | None]:
    """Train some steps on random ids.

    steps: How many are timed, after one in which memory is measured. 0: none.
    RETURNS: The peak in MB, and tokens in a second.
    """
    shape, device = SHAPES[name], resolve_device("auto")
    torch.manual_seed(0)
    emulated = dtype == torch.bfloat16 != resolve_dtype("auto", device)
    with peak_of(device, emulated) as memory:
        base, recipe = random_base(shape, dtype, device), recipe_of(length, batch)
        model, optimizer = ours(base, recipe, device) if way == "ours" else plain(base)
        model.train()
        inputs = {key: tensor.to(device) for key, tensor in random_batch(way, shape, length, batch).items()}
        weights = [p for p in model.parameters() if p.requires_grad]

        def step(learn: bool = True) -> None:
            if learn:
                cast = way == "plain" and dtype == torch.bfloat16
                with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=cast):
                    loss = model(**inputs).loss
                loss.backward()
            else:
                for weight in weights:
                    weight.grad = torch.zeros_like(weight)
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()

        step(learn=False)  # the optimiser has its states from here on
        memory.restart()
        step()
    seconds = []
    for _ in range(steps):
        start = now(device)
        step()
        seconds.append(now(device) - start)
    return memory.peak / 1e6, length * batch / statistics.median(seconds) if seconds else None


def random_batch(way: str, shape: Shape, length: int, batch: int) -> dict[str, torch.Tensor]:
    """Make a batch of random ids, which the loss of a way can take: half of each sequence is prompt, half copy."""
    n = length if way == "ours" else length - 1  # with its end of turn
    ids = [tuple(torch.randint(10, shape.vocabulary, (n,)).tolist()) for _ in range(batch)]
    places = tuple(range(n // 2, n // 2 + int(DECIDED * n)))
    sequences = [TrainingSequence(i, n // 2, places, tuple((i[p + 1], 1, 2, 3) for p in places)) for i in ids]
    return make_batch(sequences, "decision" if way == "ours" else "full", 0, 1)


class Allocated:
    """The most memory that a GPU has allocated, in bytes."""

    @property
    def peak(self) -> int:
        return torch.cuda.max_memory_allocated()

    def restart(self) -> None:
        """Forget the peak so far."""
        torch.cuda.reset_peak_memory_stats()


def peak_of(device: str, emulated: bool) -> AbstractContextManager[Any]:
    """Give what measures memory on a device."""
    return nullcontext(Allocated()) if device.startswith("cuda") else LiveTensors(emulated)


def now(device: str) -> float:
    """Give the time: of the clock on a GPU, of the processor on a CPU, where other work does not count."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def ratio(figures: list[float | None]) -> str:
    """Write the ratio of the second of two figures to the first, if both are there."""
    match figures:
        case [float(first), float(second)]:
            return f"{second / first:.2f}"
    return ""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--lengths", nargs="+", type=int, default=[512, 1024, 2048])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--steps", type=int, default=3, help="timed steps; 0: measure memory alone")
    options = parser.parse_args()
    dtype = resolve_dtype(options.dtype, device := resolve_device("auto"))
    if options.steps and dtype == torch.bfloat16 != resolve_dtype("auto", device):
        parser.error("This CPU has no instructions for bfloat16: measure memory alone, --steps 0.")
    where = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    )
    print(f"{options.shape} shape, {str(dtype).removeprefix('torch.')}, {where}\n")
    head = ["batch x length", *(f"{way}, MB" for way in options.ways), "predicted", "error"]
    head += [*(f"{way}, tokens/s" for way in options.ways), "memory ratio", "speed ratio"]
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    for length in options.lengths:
        for batch in options.batches:
            found = {}
            for way in options.ways:
                with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                    try:
                        found[way] = pool.submit(
                            measure, way, options.shape, dtype, length, batch, options.steps
                        ).result()
                    except torch.OutOfMemoryError:
                        found[way] = (float("nan"), None)
            predicted = plan(SHAPES[options.shape], recipe_of(length, batch), dtype.itemsize).peak / 1e6
            cells = [
                f"{batch} x {length}",
                *(f"{found[way][0]:,.0f}" for way in options.ways),
                f"{predicted:,.0f}",
            ]
            cells.append(f"{predicted / found['ours'][0] - 1:+.0%}" if "ours" in found else "")
            cells += [f"{speed:,.0f}" if (speed := found[way][1]) else "" for way in options.ways]
            cells += [ratio([found[way][i] for way in WAYS if way in found]) for i in (0, 1)]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

"""The training losses against one another: data, tokenisation, batches and their order held constant.

    python benchmarks/losses.py --output losses.jsonl --paths.corpus corpus

Each run trains a fresh adapter with one loss and one seed, at a constant learning rate after the warm-up, and
decodes devel requests with exact votes, with the very model that is trained: after so many tokens, and after the
seconds that the decision loss takes for them with the same seed. Seconds are those of the processor on a CPU (so
that what else runs there does not count), of the clock on a GPU; evaluation does not count.

F1 is strict, at the threshold 0.5 and at the best one, chosen on one half of the devel requests and scored on the
other, both ways. Memory is what a training step needs on top of the model. Results are appended to the output as
they come, and a run that is there already is not done again. Settings of the recipe can be overridden, as for
`finetune`.
"""

import argparse
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from accuracy import alone
from spacy.cli._util import parse_config_overrides
from tqdm import tqdm

from spacy_nerllama.evaluation import best_thresholds, score
from spacy_nerllama.evaluation.calibration import expected_calibration_error, reliability
from spacy_nerllama.finetune.data import devel_examples, read_split, recipe_batches
from spacy_nerllama.finetune.loss import collator, use_loss
from spacy_nerllama.finetune.recipe import Recipe, read_recipe
from spacy_nerllama.finetune.sequences import Batch, Example
from spacy_nerllama.finetune.train import with_adapter
from spacy_nerllama.models.engine import Engine
from spacy_nerllama.models.loading import load_base
from spacy_nerllama.models.marked import mark_requests
from spacy_nerllama.models.tokens import TextEncoder
from spacy_nerllama.updating import Loss
from spacy_nerllama.voting import Voting, elect

Draw = Callable[[Recipe], Sequence[Example]]  # gives the devel requests

LOSSES: tuple[Loss, ...] = get_args(Loss)  # the decision loss first: its time is the others' limit
HALVES = 2


def drawn(recipe: Recipe, limit: int) -> list[Example]:
    """Draw the devel requests: the same ones for every run."""
    examples = list(devel_examples(recipe))
    random.Random(0).shuffle(examples)
    return examples[:limit]


def evaluate(
    engine: Engine, encoder: TextEncoder, recipe: Recipe, examples: Sequence[Example]
) -> dict[str, float]:
    """Score the devel requests with the weights as they are."""
    engine.prefix.cache_clear()  # it was read with other weights
    requests, meter = (request for request, _ in examples), Meter(next(engine.model.parameters()).device)
    with meter:
        votes = list(mark_requests(requests, recipe.prompt, Voting(), 4096, encoder, engine))
    answers = [(vote.spans, gold) for vote, (_, gold) in zip(votes, examples, strict=True)]
    judged = [(vote, span in gold) for spans, gold in answers for span, vote in spans.items()]
    halves = [answers[half::HALVES] for half in range(HALVES)]
    tuned: list[Any] = []
    for mine, other in (halves, reversed(halves)):
        thresholds = {label: threshold for label, (threshold, _) in best_thresholds(other).items()}
        tuned += [(elect(spans, thresholds), gold) for spans, gold in mine]
    return {
        "f1": score((elect(spans, {}), gold) for spans, gold in answers).f1,
        "f1_best": score(tuned).f1,
        "ece": expected_calibration_error(reliability(judged)),
        "marking": meter.seconds,
    }


class Meter:
    """Counts the seconds of steps, and the memory that one needs on top of the model.

    seconds: Of all steps so far.
    memory: MB at the peak of any step so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = self.memory = 0.0
        self._cuda = device.type == "cuda"
        self._before = self._now("VmRSS:")

    def __enter__(self) -> None:
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is counted anew
        self._start = self._clock()

    def __exit__(self, *_: object) -> None:
        self.seconds += self._clock() - self._start
        self.memory = max(self.memory, (self._now("VmHWM:") - self._before) / 1e6)

    def _clock(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter() if self._cuda else time.process_time()

    def _now(self, which: str) -> int:
        if self._cuda:
            return torch.cuda.max_memory_allocated() if which == "VmHWM:" else torch.cuda.memory_allocated()
        lines = Path("/proc/self/status").read_text("utf8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def train(path: Path, overrides: dict[str, Any], loss: Loss, seed: int, tokens: int, draw: Draw, seconds: float):
    """Train one adapter and score it.

    draw: Gives the devel requests that it is scored on.
    seconds: Score it after so many as well.
    RETURNS: What is written to the output, without the settings.
    """
    recipe, _ = read_recipe(path, {**overrides, "training.loss": loss, "training.seed": seed})
    training, examples = recipe.training, draw(recipe)
    torch.manual_seed(seed)
    base, tokenizer = load_base(**recipe.base.model_dump())
    encoder = TextEncoder(tokenizer)
    batches = recipe_batches(read_split(recipe, encoder, "train"), training)
    model = with_adapter(base, recipe)
    use_loss(base, training.response_weight)
    engine = Engine(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)
    steps = max(1, training.warmup * tokens / training.batch_tokens)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / steps))
    collate = collator(loss, encoder)
    meter, seen, by_time = Meter(base.device), 0, None

    def scores() -> dict[str, float]:
        model.eval()
        return {"tokens": seen, "seconds": meter.seconds, **evaluate(engine, encoder, recipe, examples)}

    with tqdm(total=tokens, desc=f"{loss}, seed {seed}", unit="token") as progress:
        for batch in in_turn(batches, seed):
            model.train()
            inputs = {name: tensor.to(base.device) for name, tensor in collate(batch).items()}
            with meter:
                model(**inputs).loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
                warmup.step()
            n = sum(len(sequence.ids) for sequence in batch)
            seen += n
            progress.update(n)
            if by_time is None and meter.seconds >= seconds and seen < tokens:
                by_time = scores()
            if seen >= tokens:
                break
    result = {"loss": loss, "seed": seed, "tokens_per_second": seen / meter.seconds, "memory": meter.memory}
    by_tokens = scores()
    return {**result, "by_tokens": by_tokens, "by_time": by_time or by_tokens}


def in_turn(batches: Sequence[Batch], seed: int) -> Iterator[Batch]:
    """Give the batches in an order drawn anew for each epoch, without end."""
    for epoch in itertools.count():
        yield from random.Random(f"{seed} {epoch}").sample(batches, len(batches))


def table(results: Sequence[dict[str, Any]]) -> str:
    """Write the results as a Markdown table, mean and standard deviation over the seeds."""
    columns = {
        f"{what}, same {by}": (f"by_{by}", key)
        for by in ("tokens", "time")
        for what, key in (("F1 at 0.5", "f1"), ("F1, tuned", "f1_best"), ("ECE", "ece"))
    }
    head = ["loss", "runs", *columns, "tokens at that time", "tokens/s", "memory of a step, MB"]
    lines = [head, ["---"] + ["--:"] * (len(head) - 1)]
    for loss in LOSSES:
        if mine := [result for result in results if result["loss"] == loss]:
            cells = [spread([result[by][key] for result in mine], ".3f") for by, key in columns.values()]
            cells.append(spread([result["by_time"]["tokens"] for result in mine], ",.0f"))
            cells += [spread([result[key] for result in mine], ",.0f") for key in ("tokens_per_second", "memory")]
            lines.append([loss, str(len(mine)), *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(values: Sequence[float], form: str) -> str:
    """Write mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{deviation}"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).with_suffix(".cfg"))
    parser.add_argument("--output", type=Path, required=True, help="JSONL file of the results; appended to")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=36_000, help="training tokens of a run")
    parser.add_argument("--devel", type=int, default=100, help="devel requests of an evaluation")
    options, rest = parser.parse_known_args()
    overrides = parse_config_overrides(rest)
    settings = {
        "recipe": options.recipe.read_text("utf8"),
        "overrides": overrides,
        "tokens": options.tokens,
        "devel": options.devel,
        "threads": torch.get_num_threads(),
    }
    lines = options.output.read_text("utf8").splitlines() if options.output.exists() else []
    results = [result for line in lines if (result := json.loads(line))["settings"] == settings]
    for seed in options.seeds:
        seconds = 0.0
        for loss in sorted({"decision", *options.losses}, key=LOSSES.index):
            done = next((r for r in results if (r["loss"], r["seed"]) == (loss, seed)), None)
            if done is None:
                draw = partial(drawn, limit=options.devel)
                run = partial(train, options.recipe, overrides, loss, seed, options.tokens, draw)
                done = {**alone(run, seconds or float("inf")), "settings": settings}
                results.append(done)
                with options.output.open("a", encoding="utf8") as file:
                    file.write(json.dumps(done) + "\n")
            if loss == "decision":
                seconds = done["by_tokens"]["seconds"]
    print(table([r for r in results if r["loss"] in options.losses and r["seed"] in options.seeds]))


if __name__ == "__main__":
    main()

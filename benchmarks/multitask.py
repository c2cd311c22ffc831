"""One request a label, or all labels in one reading? Typed markers next to one pair, on the same sentences.

    python benchmarks/multitask.py --corpus corpus --output multitask.jsonl --update .

Each run trains a fresh adapter with one prompt and one seed, the decision loss and the same number of tokens: that
is the same cost, and with typed markers nearly twice the sentences, since each is read once. Then both mark the
same devel sentences with exact votes; the cost of that is in seconds next to that of one request a label, of the
processor on a CPU. F1 is strict, over all labels, at the threshold 0.5 and at the best one, chosen on one half of
the requests and scored on the other, both ways. Results are appended to the output as they come, and a run that is
there already is not done again. Settings of the recipe can be overridden, as for `finetune`.
"""

import argparse
import random
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from accuracy import Result, alone, markdown, once, put
from losses import spread, train

from spacy_nerllama.finetune.data import devel_examples
from spacy_nerllama.finetune.recipe import Recipe
from spacy_nerllama.finetune.sequences import Example

SCHEMES: dict[str, dict[str, Any]] = {
    "one request a label": {},
    "all labels in one reading": {
        "prompt.@misc": "nerllama.MultiTaskPrompt.v1",
        "prompt.names": {"CHEMICAL": "chemical", "DISEASE": "disease"},
    },
}
FIRST = next(iter(SCHEMES))  # what the cost of the other is next to


def of_sentences(recipe: Recipe, limit: int) -> list[Example]:
    """Draw devel sentences, the same ones whatever the prompt, and give all requests for them."""
    examples = list(devel_examples(recipe))
    texts = list(dict.fromkeys(request.sentence.text for request, _ in examples))
    chosen = set(random.Random(0).sample(texts, min(limit, len(texts))))
    return [(request, gold) for request, gold in examples if request.sentence.text in chosen]


def table(results: list[Result]) -> str:
    """Write the results, mean and standard deviation over the seeds."""
    head = ["labels", "runs", "F1 at 0.5", "F1, tuned", "ECE", "seconds of marking, ratio", "training tokens/s"]
    lines = [head, ["---"] + ["--:"] * (len(head) - 1)]
    cost = {scheme: mean(r["by_tokens"]["marking"] for r in of(results, scheme)) for scheme in SCHEMES}
    for scheme in SCHEMES:
        mine = of(results, scheme)
        scores = [spread([r["by_tokens"][key] for r in mine], ".3f") for key in ("f1", "f1_best", "ece")]
        speed = spread([r["tokens_per_second"] for r in mine], ",.0f")
        lines.append([scheme, str(len(mine)), *scores, f"{cost[scheme] / cost[FIRST]:.2f}", speed])
    return markdown(lines)


def of(results: list[Result], scheme: str) -> list[Result]:
    """Give the results of a scheme."""
    return [result for result in results if result["scheme"] == scheme]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).with_suffix(".cfg"))
    parser.add_argument("--corpus", help="folder of the .spacy files; default: as the recipe says")
    parser.add_argument("--output", type=Path, required=True, help="JSONL file of the results; appended to")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=60_000, help="training tokens of a run")
    parser.add_argument("--devel", type=int, default=100, help="devel sentences that are marked")
    parser.add_argument("--update", type=Path, metavar="REPOSITORY", help="renew the table in its docs/results.md")
    options = parser.parse_args()
    overrides: dict[str, Any] = {"paths.corpus": options.corpus} if options.corpus else {}
    recipe, draw = options.recipe, partial(of_sentences, limit=options.devel)
    settings = {"recipe": recipe.read_text("utf8"), "overrides": overrides, "devel": options.devel}
    settings["tokens"] = options.tokens
    results = []
    for seed in options.seeds:
        for scheme, prompt in SCHEMES.items():
            key = {"scheme": scheme, "seed": seed, "settings": settings}
            run = partial(
                train, recipe, {**overrides, **prompt}, "decision", seed, options.tokens, draw, float("inf")
            )
            results.append(once(options.output, key, partial(alone, run)))
    print(table(results))
    if options.update:
        put(options.update / "docs" / "results.md", "multi-task table", table(results))


if __name__ == "__main__":
    main()

"""Tune an adapter's thresholds on the devel splits, with the real decoder."""

import random
from collections.abc import Iterable
from itertools import islice

from tqdm import tqdm

from ..evaluation import Counts, best_thresholds
from ..models import Llama
from ..prompts import Prompt
from ..voting import Voting
from .sequences import Example, training_sequences


def tune(
    model: Llama,
    prompt: Prompt,
    examples: Iterable[Example],
    limit: int,
    seed: int,
    max_tokens: int,
    max_batch_tokens: int,
) -> dict[str, tuple[float, Counts]]:
    """Find the best threshold of each label for exact votes.

    model: The base with the adapter.
    prompt: The prompt that it was trained with.
    examples: Requests with their gold spans.
    limit: Use at most so many requests for each label, drawn at random; for each set of labels, if they are asked
        for together.
    max_tokens: Leave out requests that are longer with their gold marks, as training does.
    RETURNS: For each label, its threshold and the counts with it.
    """
    by_labels: dict[tuple[tuple[str, str], ...], list[Example]] = {}
    for request, gold in examples:
        by_labels.setdefault(request.labels, []).append((request, gold))
    chosen: list[Example] = []
    for mine in by_labels.values():
        random.Random(seed).shuffle(mine)
        chosen += islice(mine, limit)
    kept = training_sequences(chosen, prompt, model.load().encoder, max_tokens)
    chosen = [example for example, _ in kept]
    votes = model.vote((request for request, _ in chosen), prompt, Voting(), max_batch_tokens)
    answers = [
        (vote.spans, gold)
        for vote, (_, gold) in zip(tqdm(votes, "Tuning thresholds", total=len(chosen)), chosen, strict=True)
    ]
    return best_thresholds(answers)

"""What merging a lone adapter is worth: marked decoding with the adapter merged into its base, and beside it.

    python benchmarks/merging.py --data corpus/ncbi-devel.spacy --limit 60 --rounds 5

The same base (not quantised), adapter, sentences and machine; both take turns, and go first in turn. The ratio is
that of each round's pair of times; the table shows its median and range.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import torch
from spacy.tokens import DocBin
from spacy.vocab import Vocab

from spacy_nerllama.models import Llama
from spacy_nerllama.models.adapter import Adapter
from spacy_nerllama.models.engine import Engine
from spacy_nerllama.models.llama import _Loaded
from spacy_nerllama.models.loading import load_base
from spacy_nerllama.models.tokens import TextEncoder
from spacy_nerllama.prompts import CompactPrompt
from spacy_nerllama.requests import Request, doc_requests
from spacy_nerllama.voting import Voting


def unmerged(name: str | None, adapter: Adapter, dtype: str) -> Llama:
    """Give a model whose adapter stays beside its base, as it does on a quantised one."""
    base, tokenizer = load_base(name, dtype=dtype)
    encoder = TextEncoder(tokenizer)
    model = Llama(name, dtype=dtype)
    model._loaded = _Loaded(encoder, Engine(adapter.put_on(base, encoder)))
    return model


def seconds(model: Llama, requests: Sequence[Request], voting: Voting) -> float:
    """Time one reading of all requests."""
    start = time.perf_counter()
    for _ in model.vote(iter(requests), CompactPrompt(), voting, 4096):
        pass
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a .spacy file")
    parser.add_argument("--label", default="DISEASE=disease", help="what to ask for")
    parser.add_argument("--limit", type=int, default=60, help="so many sentences")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", help="the base; the bundled one without it")
    parser.add_argument("--adapter", help="the adapter; the bundled one without it")
    parser.add_argument("--dtype", default="auto")
    args = parser.parse_args()
    label, _, words = args.label.partition("=")
    docs = DocBin().from_disk(args.data).get_docs(Vocab())
    requests = [request for doc in docs for _, request in doc_requests(doc, {label: words})][: args.limit]
    merged = Llama(args.name, args.adapter, dtype=args.dtype)
    assert merged.adapter is not None, "this base needs --adapter"
    beside = unmerged(args.name, merged.adapter, args.dtype)
    merged.load()
    print(f"{len(requests)} sentences, {torch.get_num_threads()} thread(s), {merged.load().engine.model.dtype}\n")
    print("| votes | merged, sentences/s | beside, sentences/s | ratio, median | range |")
    print("|---|--:|--:|--:|--:|")
    for name, voting in (("one greedy reading", Voting(samples=1)), ("exact", Voting())):
        for model in (merged, beside):
            seconds(model, requests[:4], voting)  # warm
        times: dict[Llama, list[float]] = {merged: [], beside: []}
        for i in range(args.rounds):
            for model in (merged, beside)[:: 1 if i % 2 else -1]:
                times[model].append(seconds(model, requests, voting))
        ratios = [slow / fast for fast, slow in zip(times[merged], times[beside], strict=True)]
        rates = [len(requests) / statistics.median(times[model]) for model in (merged, beside)]
        print(
            f"| {name} | {rates[0]:.2f} | {rates[1]:.2f} | {statistics.median(ratios):.2f} | "
            f"{min(ratios):.2f}–{max(ratios):.2f} |"
        )


if __name__ == "__main__":
    main()

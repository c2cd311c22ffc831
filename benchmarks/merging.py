"""What merging a lone adapter is worth: marked decoding with the adapter merged into its base, and beside it.

    python benchmarks/merging.py --data corpus/ncbi-devel.spacy --limit 60 --rounds 5

The same base (not quantised), adapter, sentences and machine; both take turns, and go first in turn. The ratio is
that of each round's pair of times; the table shows its median and range. Times are of the processor, not of the
wall, so that other work on the machine counts less.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from spacy.tokens import DocBin
from spacy.vocab import Vocab

from spacy_nerllama.models import Llama
from spacy_nerllama.models.engine import Engine
from spacy_nerllama.models.loading import load_base
from spacy_nerllama.models.marked import mark_requests
from spacy_nerllama.models.tokens import TextEncoder
from spacy_nerllama.prompts import CompactPrompt
from spacy_nerllama.requests import Request, doc_requests
from spacy_nerllama.voting import Voting


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
    adapter = Llama(args.name, args.adapter).adapter
    if adapter is None:
        parser.error("this base needs --adapter")
    engines = []
    for is_merged in (True, False):
        base, tokenizer = load_base(args.name, dtype=args.dtype)
        encoder = TextEncoder(tokenizer)
        model: Any = adapter.put_on(base, encoder)
        engines.append(Engine(model.merge_and_unload() if is_merged else model))
    merged, beside = engines

    def seconds(engine: Engine, requests: Sequence[Request], voting: Voting) -> float:
        start = time.process_time()
        for _ in mark_requests(requests, CompactPrompt(), voting, 4096, encoder, engine):
            pass
        return time.process_time() - start

    print(f"{len(requests)} sentences, {torch.get_num_threads()} thread(s), {merged.model.dtype}\n")
    print("| votes | merged, sentences per CPU second | beside | ratio, median | range |")
    print("|---|--:|--:|--:|--:|")
    for name, voting in (("one greedy reading", Voting(samples=1)), ("exact", Voting())):
        for engine in engines:
            seconds(engine, requests[:4], voting)  # warm
        times: dict[Engine, list[float]] = {merged: [], beside: []}
        for i in range(args.rounds):
            for engine in (merged, beside)[:: 1 if i % 2 else -1]:
                times[engine].append(seconds(engine, requests, voting))
        ratios = [slow / fast for fast, slow in zip(times[merged], times[beside], strict=True)]
        rates = [len(requests) / statistics.median(times[engine]) for engine in engines]
        print(
            f"| {name} | {rates[0]:.2f} | {rates[1]:.2f} | {statistics.median(ratios):.2f} | "
            f"{min(ratios):.2f}–{max(ratios):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

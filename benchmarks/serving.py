"""A served model next to the local one: the same spans? And how fast, next to text from the same server?

    python benchmarks/serving.py --url http://localhost:8000 --data corpus/ncbi-iob-devel.spacy --limit 200

The server runs already (docs/serving.md has the command; with VLLM_SERVER_DEV_MODE=1 its prefix cache is emptied
before each run, else sentences that it knows are asked for twice). First the spans of greedy readings, of ten
samples and of exact votes are compared with those of the local model; every difference is named with its votes.
Then the same sentences go through with 1, 8 and 32 requests in flight, and the server writes text for the same
prompts: k responses, each of as many tokens as the gold marked sentence has, whatever they say (an adapter trained
for decisions alone writes no sensible text, and for the time it makes no difference).
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from spacy_nerllama.grammar import Grammar
from spacy_nerllama.marking import SINGLE
from spacy_nerllama.models import VLLM, Llama
from spacy_nerllama.models.retries import api_key
from spacy_nerllama.prompts import CompactPrompt
from spacy_nerllama.requests import Request, TokenSpan
from spacy_nerllama.voting import DEFAULT_THRESHOLD, Votes, Voting, elect

sys.path.insert(0, str(Path(__file__).parent))
from decoding import read_data

PROMPT = CompactPrompt()
VOTES = {"1": "greedy", "10": "k = 10", "exact": "exact"}


def votes_of(model: Any, requests: Sequence[Request], samples: int | None) -> list[Votes]:
    """Let a model mark the requests."""
    found = []
    for votes in tqdm(model.vote(requests, PROMPT, Voting(samples), 4096), "Marking", len(requests), leave=False):
        if isinstance(votes, Exception):
            raise votes
        found.append(votes)
    return found


def differences(
    requests: Sequence[Request], served: Sequence[Votes], local: Sequence[Votes], threshold: float
) -> tuple[list[str], float]:
    """Name the sentences with other spans, and give the largest gap between two votes of a span anywhere."""
    named, largest = [], 0.0
    for request, ours, theirs in zip(requests, served, local, strict=True):
        gaps = {
            span: abs(ours.spans.get(span, 0.0) - theirs.spans.get(span, 0.0))
            for span in {*ours.spans, *theirs.spans}
        }
        largest = max([largest, *gaps.values()])
        thresholds = dict.fromkeys({span.label for span in gaps}, threshold)
        other = {*elect(ours.spans, thresholds)} ^ {*elect(theirs.spans, thresholds)}
        for span in sorted(other):
            words = " ".join(request.sentence.words[span.start : span.end])
            votes = [f"{votes.spans.get(span, 0.0):.4f}" for votes in (ours, theirs)]
            named.append(f"{words!r} (served {votes[0]}, local {votes[1]}) in: {request.sentence.text}")
    return named, largest


class Server:
    """What the benchmark asks of the server itself."""

    def __init__(self, url: str, model: str, api_key: str | None) -> None:
        self.url, self.model = url, model
        self.headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def forget(self) -> bool:
        """Empty the prefix cache; False if the server does not let us."""
        return httpx.post(f"{self.url}/reset_prefix_cache", headers=self.headers, timeout=60).is_success

    def write(self, work: Sequence[tuple[list[int], int]], k: int, in_flight: int) -> None:
        """Let the server write k responses to each prompt, of so many tokens."""
        asyncio.run(self._write(work, k, in_flight))

    async def _write(self, work: Sequence[tuple[list[int], int]], k: int, in_flight: int) -> None:
        room = asyncio.Semaphore(in_flight)
        async with httpx.AsyncClient(headers=self.headers, timeout=600) as client:

            async def one(prompt: list[int], n: int) -> None:
                body = {"model": self.model, "prompt": prompt, "n": k, "max_tokens": n, "ignore_eos": True}
                async with room:
                    sampled = {"temperature": 1.0 if k > 1 else 0.0}
                    answer = await client.post(f"{self.url}/v1/completions", json={**body, **sampled})
                    answer.raise_for_status()
                    assert len(answer.json()["choices"]) == k
                    progress.update()

            with tqdm(total=len(work), desc="Writing", leave=False) as progress:
                await asyncio.gather(*(one(*each) for each in work))


def gold_length(encoder: Any, request: Request, gold: Sequence[TokenSpan]) -> int:
    """How many tokens the gold marked sentence has, with the one that ends it."""
    grammar = Grammar(request, SINGLE, encoder.piece)
    try:
        return len(grammar.follow(gold).ids) + 1
    except ValueError:  # its markers cannot stand there
        return len(grammar.follow([]).ids) + 1


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument(
        "--model", help="the name under which the model or LoRA module is served; default: the one"
    )
    parser.add_argument("--tokenizer", help="default: that of the folder which the server says it serves")
    parser.add_argument("--api-key-env")
    parser.add_argument("--text-url", help="a server of the same model that writes the text; default: the same")
    parser.add_argument("--local", help="the local base to compare with; default: the bundled one")
    parser.add_argument("--adapter", help="of the local model; default: the bundled one")
    parser.add_argument("--dtype", default="float32", help="of the local model")
    parser.add_argument("--data", type=Path, help="a .spacy file; default: sentences that come with the benchmark")
    parser.add_argument("--label", default="DISEASE", help="the label to mark")
    parser.add_argument("--limit", type=int, help="take the first sentences only")
    parser.add_argument("--samples", nargs="+", choices=VOTES, default=[*VOTES], help="which votes to compare")
    parser.add_argument("--timed", type=int, default=60, help="how many of them are timed; 0: none")
    parser.add_argument(
        "--few", type=int, default=10, help="about how many of them, at least, where k > 1 texts are written"
    )
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--no-text", action="store_true", help="do not let the server write text")
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()

    requests, gold = read_data(settings)
    model = {"model": settings.model, "tokenizer": settings.tokenizer, "api_key_env": settings.api_key_env}
    served = VLLM(settings.url, **model, timeout=600.0)
    encoder, engine, *_ = served.load()
    key = api_key(settings.api_key_env)
    server = Server(engine.url, str(engine.model), key)
    writer = Server(settings.text_url.rstrip("/") if settings.text_url else engine.url, str(engine.model), key)

    local = Llama(settings.local, settings.adapter, None, settings.dtype, "cpu")
    threshold = local.meta.get("thresholds", {}).get(settings.label, DEFAULT_THRESHOLD)
    same: list[dict[str, Any]] = []
    for name in settings.samples:
        samples = None if name == "exact" else int(name)
        server.forget()
        ours, theirs = votes_of(served, requests, samples), votes_of(local, requests, samples)
        named, largest = differences(requests, ours, theirs, threshold)
        spans = sum(len(elect(votes.spans, {settings.label: threshold})) for votes in theirs)
        same.append(
            {"votes": VOTES[name], "sentences": len(requests), "spans": spans, "differing": named, "gap": largest}
        )
        print(f"{VOTES[name]}: {len(named)} of {spans} spans differ in {len(requests)} sentences; ", end="")
        print(f"the largest gap between two votes is {largest:.6f}", *named, sep="\n    ", flush=True)

    timed = min(settings.timed, len(requests))
    pairs = list(zip(requests[:timed], gold[:timed], strict=True))
    work = [(list(encoder.prompt(PROMPT(r)).ids), gold_length(encoder, r, spans)) for r, spans in pairs]
    rows: list[dict[str, Any]] = []

    def clock(name: str, k: int | None, in_flight: int, n: int, run: Callable[[], Any], on: Server) -> None:
        on.forget()
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        rows.append({"name": name, "k": k, "in_flight": in_flight, "sentences": n, "sentences_per_s": n / seconds})
        print(f"{name} k={k} in flight {in_flight}: {n / seconds:.2f} sentences/s", flush=True)

    for in_flight in settings.in_flight if timed else ():
        client = VLLM(settings.url, **model, concurrency=in_flight, timeout=600.0)
        client.load()
        for k in (1, 10, None):
            clock("marked", k, in_flight, timed, lambda c=client, k=k: votes_of(c, requests[:timed], k), server)
        client.unload()
        if not settings.no_text:
            for k in (1, 10):
                few = max(settings.few, 2 * in_flight)  # as many can be in flight, and as long as all of them
                some = work if k == 1 else work[:: max(1, len(work) // few)]
                run = lambda w=some, k=k, f=in_flight: writer.write(w, k, f)  # noqa: E731 (one of many)
                clock("text", k, in_flight, len(some), run, writer)

    if rows:
        print(table(rows))
    if settings.json:
        settings.json.write_text(json.dumps({"same": same, "rows": rows}, indent=1) + "\n", "utf8")
    served.unload()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Write sentences a second as a Markdown table, a column for each number of requests in flight."""
    in_flight = sorted({row["in_flight"] for row in rows})
    lines = ["|  | k | " + " | ".join(f"{n} in flight" for n in in_flight) + " |"]
    lines.append("|---|--:|" + "--:|" * len(in_flight))
    for name, k in dict.fromkeys((row["name"], row["k"]) for row in rows):
        rates = {row["in_flight"]: row["sentences_per_s"] for row in rows if (row["name"], row["k"]) == (name, k)}
        cells = [f"{rates[n]:.2f}" if n in rates else "" for n in in_flight]
        lines.append(f"| {name} | {'exact' if k is None else k} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

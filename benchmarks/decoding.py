"""What a marked sentence costs: marked decoding next to ways of generating text.

    python benchmarks/decoding.py --data corpus/ncbi-iob-test.spacy --limit 100 --json out.json --plot out.png

One run, one machine, one base, the same sentences; the peers take turns, and the median of the rounds is shown.

generate-loop         the paper's way: `generate` of transformers, one sentence after the other, k separate calls
generate-batch        `generate` on batches of sentences of about the same length, `num_return_sequences=k`
prompt-lookup         `generate` with `prompt_lookup_num_tokens`, greedy
generate-constrained  `generate` with `prefix_allowed_tokens_fn` over our grammar: what marked decoding must equal
marked, marked-exact  ours
floor                 one forward pass over prompt and copy of every sentence, at the best batch size
vllm                  (with --vllm-python) vLLM in an environment of its own, merged weights, all sentences at once

An adapter trained with the decision-only loss cannot generate text. Peers that do run with one trained with
`loss = "response"` on the same base (`response-adapter` beside this file), for at most as many new tokens as
the sentence has, and 64. Peers that take seconds a sentence get only --few of the sentences, spread evenly over
their lengths, so that rates compare; the table says how many.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import spacy
import torch
from spacy.tokens import Doc, DocBin
from tqdm import tqdm

from spacy_nerllama.alignment import align
from spacy_nerllama.evaluation import score
from spacy_nerllama.grammar import Grammar, State
from spacy_nerllama.marking import SINGLE
from spacy_nerllama.models import Llama
from spacy_nerllama.models.adapter import Adapter
from spacy_nerllama.models.loading import load_base, resolve_device
from spacy_nerllama.models.tokens import TextEncoder
from spacy_nerllama.prompts import CompactPrompt
from spacy_nerllama.requests import Request, TokenSpan, doc_requests
from spacy_nerllama.voting import DEFAULT_THRESHOLD, Voting, elect

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
from oracle import generate as constrained  # noqa: E402 (the tests compare with the same oracle)

PROMPT = CompactPrompt()
Spans = tuple[TokenSpan, ...]
Readings = list[Spans | None]  # of one sentence; None for a reading that is no copy of the sentence


@dataclass
class Peer:
    """A way to mark sentences.

    run: Gives for each request its readings, or its votes.
    few: Whether it takes seconds a sentence.
    """

    name: str
    k: int | None
    run: Callable[[Sequence[Request]], list[Any]]
    adapter: str
    few: bool = False
    seconds: list[float] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    passes: int = 0
    tokens: int = 0
    memory: float = 0.0


@dataclass
class Loaded:
    """A base with an adapter merged into it."""

    model: Any
    encoder: TextEncoder

    def prompt(self, request: Request) -> list[int]:
        """The ids that the model reads."""
        return list(self.encoder.prompt(PROMPT(request)).ids)

    def new_tokens(self, request: Request) -> int:
        """How many a response may have."""
        return len(self.encoder.piece(request.sentence.text)) + 64

    def readings(self, request: Request, rows: torch.Tensor | list[list[int]]) -> Readings:
        """Read the spans off generated ids, k rows of them."""
        texts = self.encoder.tokenizer.batch_decode(rows, skip_special_tokens=True)
        found = [align(request, text) for text in texts]
        return [spans if diagnosis == "exact" else None for spans, diagnosis in found]


def load(settings: argparse.Namespace, adapter: Path) -> Loaded:
    """Load the base, and merge an adapter into it."""
    base, tokenizer = load_base(settings.model, None, settings.dtype, settings.device)
    encoder = TextEncoder(tokenizer)
    model: Any = Adapter.from_folder(adapter).put_on(base, encoder)
    return Loaded(model.merge_and_unload(), encoder)


def pad_left(rows: Sequence[Sequence[int]], pad: int, device: Any) -> dict[str, torch.Tensor]:
    """Make a batch for `generate`."""
    width = max(map(len, rows))
    ids = [[pad] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def by_length(requests: Sequence[Request], length: Callable[[Request], int], tokens: int) -> Iterator[list[int]]:
    """Group requests of about the same length, up to so many tokens with padding."""
    group: list[int] = []
    for i in sorted(range(len(requests)), key=lambda i: length(requests[i])):
        if group and (len(group) + 1) * length(requests[i]) > tokens:
            yield group
            group = []
        group.append(i)
    yield group


def generate(
    loaded: Loaded, requests: Sequence[Request], k: int, batch_tokens: int, **options: Any
) -> list[Readings]:
    """Let `generate` of transformers write k responses for each request. Batches of one if `batch_tokens` is 0."""
    end = loaded.encoder.end_of_turn
    sampled = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if k > 1 else {"do_sample": False}
    found: list[Readings] = [[] for _ in requests]
    groups = by_length(requests, lambda r: len(loaded.prompt(r)) + loaded.new_tokens(r), max(1, batch_tokens // k))
    for group in groups:
        some = [requests[i] for i in group]
        batch = pad_left([loaded.prompt(request) for request in some], end, loaded.model.device)
        width = batch["input_ids"].shape[1]
        longest = max(map(loaded.new_tokens, some))
        separate = k if batch_tokens == 0 else 1
        for _ in range(separate):
            out = loaded.model.generate(
                **batch,
                **sampled,
                **options,
                num_return_sequences=k // separate,
                max_new_tokens=longest,
                eos_token_id=end,
                pad_token_id=end,
            )
            for i, rows in zip(group, out[:, width:].view(len(group), k // separate, -1), strict=True):
                found[i] += loaded.readings(requests[i], rows)
    return found


def marked(model: Llama, settings: argparse.Namespace, samples: int | None) -> Callable:
    """Marked decoding with so many samples, exact votes for None."""
    return lambda requests: list(model.vote(requests, PROMPT, Voting(samples), settings.max_batch_tokens))


def token_by_token(model: Llama) -> Callable[[Sequence[Request]], list[Readings]]:
    """The oracle, with the model that marked decoding uses."""
    encoder, engine, *_ = model.load()

    def run(requests: Sequence[Request]) -> list[Readings]:
        grammars = [Grammar(request, SINGLE, encoder.piece) for request in requests]
        prompts = [encoder.prompt(PROMPT(request)) for request in requests]
        pairs = zip(grammars, prompts, strict=True)
        return [[constrained(engine.model, grammar, prompt, encoder.end_of_turn)] for grammar, prompt in pairs]

    return run


def floor(loaded: Loaded, tokens: int) -> Callable[[Sequence[Request]], list]:
    """One pass over prompt and copy of each request, in batches of so many tokens."""

    def row(request: Request) -> list[int]:
        copy = Grammar(request, SINGLE, loaded.encoder.piece).draft(State()).ids
        return [*loaded.prompt(request), *copy]

    def run(requests: Sequence[Request]) -> list:
        rows = [row(request) for request in requests]
        with torch.inference_mode():
            for group in by_length(requests, lambda request: len(row(request)), tokens):
                batch = pad_left([rows[i] for i in group], 0, loaded.model.device)
                loaded.model.get_decoder()(**batch, use_cache=False)
        return []

    return run


@contextlib.contextmanager
def watched(peer: Peer, models: Sequence[Any]) -> Iterator[None]:
    """Count the passes and ids of the models, and the most memory in use beyond what there was before, in MiB."""

    def count(_module: Any, _args: Any, options: dict[str, Any]) -> None:
        peer.passes += 1
        peer.tokens += options["input_ids"].numel()

    hooks = [model.get_decoder().register_forward_pre_hook(count, with_kwargs=True) for model in models]
    done, process = threading.Event(), psutil.Process()
    before = most = process.memory_info().rss

    def watch() -> None:
        nonlocal most
        while not done.wait(0.02):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    gpu = models[0].device.type == "cuda"
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before_gpu = torch.cuda.memory_allocated()
    peer.passes = peer.tokens = 0
    start = time.perf_counter()
    try:
        yield
        if gpu:
            torch.cuda.synchronize()
        peer.seconds.append(time.perf_counter() - start)
    finally:
        done.set()
        for hook in hooks:
            hook.remove()
    watcher.join()
    peer.memory = max(peer.memory, (most - before) / 2**20)
    if gpu:
        peer.memory = (torch.cuda.max_memory_allocated() - before_gpu) / 2**20


def vllm(settings: argparse.Namespace, loaded: Loaded, requests: Sequence[Request], peers: list[Peer]) -> None:
    """Let vLLM write the responses, in its own environment and process."""
    with tempfile.TemporaryDirectory() as folder:
        loaded.model.save_pretrained(folder)
        loaded.encoder.tokenizer.save_pretrained(folder)
        work = {
            "model": folder,
            "dtype": str(loaded.model.dtype).removeprefix("torch."),
            "end": loaded.encoder.end_of_turn,
            "prompts": [loaded.prompt(request) for request in requests],
            "new_tokens": [loaded.new_tokens(request) for request in requests],
            "ks": [peer.k for peer in peers],
            "rounds": settings.rounds,
        }
        (Path(folder) / "work.json").write_text(json.dumps(work), "utf8")
        torch.cuda.empty_cache()
        command = [settings.vllm_python, str(HERE / "vllm_peer.py"), folder]
        subprocess.run(command, check=True, env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "4"})
        for peer, result in zip(peers, json.loads((Path(folder) / "out.json").read_text("utf8")), strict=True):
            peer.seconds = result["seconds"]
            pairs = zip(requests, result["ids"], strict=True)
            peer.answers = [loaded.readings(request, rows) for request, rows in pairs]


def elected(peer: Peer, threshold: float) -> tuple[list[set[TokenSpan]], int]:
    """The spans that a peer's answers keep, and how many of its readings were malformed."""
    kept, malformed = [], 0
    for answer in peer.answers:
        if isinstance(answer, list):
            good = [spans for spans in answer if spans is not None]
            malformed += len(answer) - len(good)
            votes: dict[TokenSpan, float] = {}
            for spans in good:
                for span in spans:
                    votes[span] = votes.get(span, 0.0) + 1 / len(answer)
        else:
            votes = dict(answer.spans)
        kept.append(set(elect(votes, dict.fromkeys({span.label for span in votes}, threshold))))
    return kept, malformed


def differing(model: Llama, requests: Sequence[Request], ours: list, theirs: list) -> tuple[int, float]:
    """How many greedy readings differ from the oracle's, and the largest gap between the two choices in nats."""
    encoder, engine, *_ = model.load()
    n, largest = 0, 0.0
    for request, votes, ((*expected,),) in zip(requests, ours, theirs, strict=True):
        found = sorted(votes.spans)
        if found == expected:
            continue
        n += 1
        grammar = Grammar(request, SINGLE, encoder.piece)
        one, other = grammar.follow(found).ids, grammar.follow(expected).ids
        at = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
        prompt = encoder.prompt(PROMPT(request)).ids
        with torch.inference_mode():
            ids = torch.tensor([[*prompt, *one[:at]]], device=engine.model.device)
            logits = engine.model(ids).logits[0, -1].float()
        largest = max(largest, abs(float(logits[one[at]] - logits[other[at]])))
    return n, largest


def read_data(settings: argparse.Namespace) -> tuple[list[Request], list[list[TokenSpan]]]:
    """Read requests for one label, with their gold spans."""
    labels = {settings.label: settings.label.lower()}
    nlp = spacy.blank("en")
    if settings.data:
        docs: Iterator[Doc] = DocBin().from_disk(settings.data).get_docs(nlp.vocab)
    else:
        docs = (marked_doc(nlp, line) for line in (HERE / "sentences.txt").read_text("utf8").splitlines())
    requests, gold = [], []
    for doc in docs:
        for start, request in doc_requests(doc, labels):
            if settings.limit and len(requests) == settings.limit:
                return requests, gold
            end = start + len(request.sentence.words)
            inside = [e for e in doc.ents if e.label_ == settings.label and start <= e.start and e.end <= end]
            requests.append(request)
            gold.append([TokenSpan(ent.start - start, ent.end - start, ent.label_) for ent in inside])
    return requests, gold


def marked_doc(nlp: Any, line: str) -> Doc:
    """A doc of a line with `@@mentions##`."""
    text, spans = "", []
    for i, part in enumerate(line.split("@@")):
        mention, _, rest = part.partition("##") if i else ("", "", part)
        if mention:
            spans.append((len(text), len(text) + len(mention)))
        text += mention + rest
    doc = nlp.make_doc(text)
    doc.set_ents([doc.char_span(*span, label="DISEASE") for span in spans])
    return doc


def table(rows: list[dict[str, Any]]) -> str:
    """Write the results as a Markdown table."""
    head = {
        "name": "",
        "k": "k",
        "sentences": "sentences",
        "sentences_per_s": "sentences/s",
        "to_loop": "× generate-loop",
        "to_floor": "of the floor",
        "passes": "passes",
        "tokens": "tokens",
        "memory": "MiB",
        "malformed": "malformed",
        "f1": "F1",
        "adapter": "adapter",
    }
    lines = [list(head.values()), ["---", *["--:"] * (len(head) - 2), "---"]]
    for row in rows:
        cells = []
        for key in head:
            value = row.get(key)
            digits = {"sentences_per_s": 2, "to_loop": 1, "to_floor": 2, "f1": 3, "memory": 0}.get(key)
            cells.append("" if value is None else f"{value:.{digits}f}" if digits is not None else str(value))
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the seconds a sentence takes against k."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name in dict.fromkeys(row["name"] for row in rows if row["k"]):
        points = [(row["k"], 1 / row["sentences_per_s"]) for row in rows if row["name"] == name]
        axes.plot(*zip(*points, strict=True), "o-", label=name)
    for row in rows:
        if row["k"] is None:
            axes.axhline(1 / row["sentences_per_s"], linestyle=":", color="grey")
            axes.annotate(row["name"], (1, 1 / row["sentences_per_s"]), va="bottom")
    axes.set(xscale="log", yscale="log", xlabel="k (samples)", ylabel="seconds a sentence")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--model", help="the base: a folder, a hub name or a .gguf file; default: the bundled one")
    parser.add_argument("--adapter", help="for marked decoding; default: the bundled one")
    parser.add_argument("--text-adapter", type=Path, default=HERE / "response-adapter", help="for generating text")
    parser.add_argument("--data", type=Path, help="a .spacy file; default: sentences that come with the benchmark")
    parser.add_argument("--label", default="DISEASE", help="the label to mark")
    parser.add_argument("--limit", type=int, help="take the first sentences only")
    parser.add_argument("--few", type=int, default=10, help="sentences for slow peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-batch-tokens", type=int, default=4096)
    parser.add_argument("--threshold", type=float, help="least vote; default: the adapter's, else 0.5")
    parser.add_argument("--only", nargs="+", help="names of peers to run")
    parser.add_argument("--vllm-python", help="the Python of an environment with vLLM")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    settings = parser.parse_args()
    settings.device = resolve_device(settings.device)

    requests, gold = read_data(settings)
    order = sorted(range(len(requests)), key=lambda i: len(requests[i].sentence.text))
    step = max(1.0, len(order) / settings.few)
    some = [order[int((i + 0.5) * step)] for i in range(min(settings.few, len(order)))]
    few = [requests[i] for i in some]
    ours = Llama(settings.model, settings.adapter, None, settings.dtype, settings.device)
    engine = ours.load().engine
    text = load(settings, settings.text_adapter)
    stem = Path(settings.adapter).name if settings.adapter else "bundled"
    threshold = settings.threshold or ours.meta.get("thresholds", {}).get(settings.label, DEFAULT_THRESHOLD)

    peers = [
        *(Peer("generate-loop", k, lambda r, k=k: generate(text, r, k, 0), "response", few=True) for k in (1, 10)),
        *(
            Peer("generate-batch", k, lambda r, k=k: generate(text, r, k, 8192), "response", few=k > 1)
            for k in (1, 10)
        ),
        Peer(
            "prompt-lookup",
            1,
            lambda r: generate(text, r, 1, 0, prompt_lookup_num_tokens=10),
            "response",
            few=True,
        ),
        Peer("generate-constrained", 1, token_by_token(ours), stem, few=True),
        *(Peer("marked", k, marked(ours, settings, k), stem) for k in (1, 5, 10, 50)),
        Peer("marked-exact", None, marked(ours, settings, None), stem),
        *(Peer(f"floor {tokens}", None, floor(text, tokens), "response") for tokens in (512, 1024, 4096)),
    ]
    served = [Peer("vllm", k, lambda r: [], "response") for k in (1, 10)] if settings.vllm_python else []
    peers = [peer for peer in peers if not settings.only or peer.name.split()[0] in settings.only]

    for peer in peers:
        peer.run(requests[:2])  # warm
    for _ in range(settings.rounds):
        for peer in tqdm(peers, "Round"):
            if peer.few and len(peer.seconds) and peer.seconds[0] > 60:
                continue  # one round of these is enough
            with watched(peer, [engine.model, text.model]):
                peer.answers = peer.run(few if peer.few else requests)
    if served:
        try:
            vllm(settings, text, requests, served)
        except subprocess.CalledProcessError as error:
            print(f"vLLM failed: {error}")
            served = []

    floors = [peer for peer in peers if peer.name.startswith("floor")]
    if floors:
        best = min(floors, key=lambda peer: statistics.median(peer.seconds))
        best.name = "floor"
        peers = [peer for peer in peers if peer not in floors or peer is best]
    rows = []
    for peer in [*peers, *served]:
        n = len(few) if peer.few else len(requests)
        kept, malformed = elected(peer, threshold)
        pairs = ([(s.start, s.end) for s in spans] for spans in kept)
        marked_ones = [gold[i] for i in some] if peer.few else gold
        golds = ([(s.start, s.end) for s in spans] for spans in marked_ones)
        rows.append(
            {
                "name": peer.name,
                "k": peer.k,
                "sentences": n,
                "sentences_per_s": n / statistics.median(peer.seconds),
                "passes": peer.passes or None,
                "tokens": peer.tokens or None,
                "memory": peer.memory or None,
                "malformed": malformed if peer.answers else None,
                "f1": score(zip(pairs, golds, strict=True)).f1 if peer.answers else None,
                "adapter": peer.adapter,
            }
        )
    speed = {(row["name"], row["k"]): row["sentences_per_s"] for row in rows}
    for row in rows:
        loop, best_rate = speed.get(("generate-loop", row["k"] or 10)), speed.get(("floor", None))
        row["to_loop"] = row["sentences_per_s"] / loop if loop else None
        row["to_floor"] = best_rate / row["sentences_per_s"] if best_rate else None
    print(table(rows))
    by_name = {(peer.name, peer.k): peer for peer in peers}
    facts: dict[str, Any] = {}
    if ("marked", 1) in by_name and ("generate-constrained", 1) in by_name:
        oracle = by_name["generate-constrained", 1]
        answers = [by_name["marked", 1].answers[i] for i in some]
        n, gap = differing(ours, few, answers, oracle.answers)
        facts = {"compared": len(oracle.answers), "differing": n, "largest_gap": gap}
        print(f"\nGreedy readings that differ from generate-constrained: {n} of {len(oracle.answers)}", end="")
        print(f", the largest gap between the two choices {gap:.3f} nats." if n else ".")
    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    )
    print(f"{device}, {str(engine.model.dtype).removeprefix('torch.')}, {len(requests)} sentences.")
    if settings.json:
        whole = {
            "device": device,
            "dtype": str(engine.model.dtype),
            "data": str(settings.data),
            **facts,
            "rows": rows,
        }
        settings.json.write_text(json.dumps(whole, indent=1) + "\n", "utf8")
    if settings.plot:
        plot(rows, settings.plot)


if __name__ == "__main__":
    main()

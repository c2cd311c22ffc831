"""Thousands of requests to a server that misbehaves on purpose: is every document there, in order?

    python benchmarks/misbehaving.py --requests 5000

The server is that of the tests (tests/misbehaving.py) with all its faults at once. Most pass when a request is
sent again, some last. Waits are those of the model, but a server that asks to wait for an hour is followed for
two seconds.
"""

import argparse
import re
import sys
import time
from pathlib import Path

import psutil
import spacy
from tqdm import tqdm

from spacy_nerllama.models import retries as policy

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from misbehaving import FAULTS, Server

ENDING = ("401", "404")  # these end a run


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--share", type=float, default=0.02, help="of requests that meet each fault")
    settings = parser.parse_args()
    policy.LONGEST_WAIT = 2.0
    texts = [f"The ataxia{i} gene fell." for i in range(settings.requests)]
    faults = {name: settings.share for name in FAULTS if name not in (*ENDING, "400")}
    lasting = {text: name for i, name in enumerate(FAULTS) if name not in ENDING for text in texts[37 + i :: 1500]}
    retries = 4
    with Server(faults, lasting) as server:
        model = {"@llm_models": "nerllama.OpenAI.v1", "model": "m", "base_url": server.url}
        model.update(timeout=2.0, retries=retries, concurrency=settings.concurrency)
        nlp = spacy.blank("en")
        nlp.add_pipe("nerllama_ner", config={"labels": {"DISEASE": "disease"}, "model": model})
        failed: dict[str, str] = {}
        nlp.set_error_handler(lambda name, proc, docs, error: failed.update((d.text, str(error)) for d in docs))
        begun = time.perf_counter()
        seen, marked, unmarked = [], 0, 0
        for doc in tqdm(nlp.pipe(texts), total=len(texts), unit="doc", disable=None):
            seen.append(doc.text)
            found = [ent.text for ent in doc.ents]
            marked += found == re.findall(r"ataxia\d+", doc.text)
            unmarked += not found and doc.text not in failed
        seconds = time.perf_counter() - begun
        diagnoses = nlp.get_pipe("nerllama_ner").model.diagnoses
        in_order = seen == texts
        lost = {text for text, name in lasting.items() if name != "wrong text"} - set(failed)
        print(f"documents: {len(seen)} of {len(texts)}, in order: {in_order}, in {seconds:.0f} s")
        print(f"marked right: {marked}; failed and reported: {len(failed)}; of responses: {dict(diagnoses)}")
        print(f"with no usable response: {unmarked}; with a lasting fault, not reported: {len(lost)}")
        print(f"requests sent: {sum(server.did.values())}, the most for one document: {max(server.seen.values())}")
        print(f"most at once: {server.most_in_flight}; memory: {psutil.Process().memory_info().rss >> 20} MiB")
        print(", ".join(f"{name} {n}" for name, n in server.did.most_common()))
    ok = in_order and not lost and marked + unmarked + len(failed) == len(texts)
    raise SystemExit(0 if ok and max(server.seen.values()) <= retries + 1 else 1)


if __name__ == "__main__":
    main()

"""A long stream through `nlp.pipe`: memory stays flat, the first doc comes early, the order is kept.

    python benchmarks/streaming.py --texts 10000

Short texts of ours, all different, asked for one label. Prints the seconds to the first doc next to those of the
first batch of the model, and the memory in use (MiB) each time a tenth of the docs is through.
"""

import argparse
import time
from collections.abc import Iterator

import psutil
import spacy
from tqdm import tqdm

SUBJECTS = "Lithium|A carrier|The boy|No sibling|Her aunt|One mouse|Low-dose digoxin|The allele".split("|")
VERBS = "caused|never had|prevented|presented with|was linked to|died of|showed|masked".split("|")
OBJECTS = "ataxia|severe gout|long QT syndrome|no symptoms|hypokalemia|a rash|renal failure|it".split("|")


def texts(n: int) -> Iterator[str]:
    """Give n texts, all different."""
    for i in range(n):
        subject, verb, thing = SUBJECTS[i % 8], VERBS[i // 8 % 8], OBJECTS[i // 64 % 8]
        yield f"{subject} {verb} {thing} in case {i}."


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--samples", type=int, help="samples; default: exact votes")
    settings = parser.parse_args()
    nlp = spacy.blank("en")
    voting = {"@misc": "nerllama.Voting.v1", "samples": settings.samples}
    component = nlp.add_pipe("nerllama_ner", config={"labels": {"DISEASE": "disease"}, "voting": voting})
    component.warm_up()
    engine = component.model.load().engine
    passes: list[float] = []
    score = engine.score

    def timed(rows):
        start = time.perf_counter()
        scores = score(rows)
        passes.append(time.perf_counter() - start)
        return scores

    engine.score = timed
    memory, process = [], psutil.Process()
    start = time.perf_counter()
    first_doc = 0.0
    docs = tqdm(nlp.pipe(texts(settings.texts)), total=settings.texts)
    for i, (doc, text) in enumerate(zip(docs, texts(settings.texts), strict=True)):
        first_doc = first_doc or time.perf_counter() - start
        assert doc.text == text, "the order is kept"
        if i % max(1, settings.texts // 10) == 0:
            memory.append(process.memory_info().rss / 2**20)
    seconds = time.perf_counter() - start
    print(f"{settings.texts} docs in {seconds:.0f} s: {settings.texts / seconds:.1f} docs/s")
    print(f"first doc after {first_doc:.2f} s; the first pass took {passes[0]:.2f} s, {len(passes)} in all")
    print("MiB in use at each tenth:", " ".join(f"{each:.0f}" for each in memory))


if __name__ == "__main__":
    main()

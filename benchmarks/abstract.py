"""Seconds for one abstract, alone: nine sentences, three labels, greedy, ten samples and exact votes.

python benchmarks/abstract.py
"""

import argparse
import statistics
import time
from pathlib import Path

import spacy

ABSTRACT = Path(__file__).parent.parent / "examples" / "abstract.txt"
MODES = {"greedy": 1, "k = 10": 10, "exact": None}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    settings = parser.parse_args()
    text = ABSTRACT.read_text("utf8")
    pipelines = {}
    for mode, samples in MODES.items():
        nlp = pipelines[mode] = spacy.blank("en")
        voting = {"@misc": "nerllama.Voting.v1", "samples": samples}
        nlp.add_pipe("nerllama_ner", config={"voting": voting})
        nlp(text)
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(settings.rounds):
        for mode, nlp in pipelines.items():
            start = time.perf_counter()
            nlp(text)
            seconds[mode].append(time.perf_counter() - start)
    for mode, measured in seconds.items():
        print(f"{mode}: {statistics.median(measured):.2f} s")


if __name__ == "__main__":
    main()

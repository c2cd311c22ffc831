"""Does the vote pay? One greedy reading, k samples and exact votes, at several temperatures, on devel splits.

    python benchmarks/votes.py --corpus corpus --output votes.jsonl --update docs/voting.md --plot docs/voting.png

All settings mark the same requests: so many sentences of each tokenised devel split, drawn at random, and the
label that it annotates. They walk one tree of readings, so what one setting has read is not read again for the
next; each is charged for all that it would have read alone. That is its cost, in ids next to greedy: it depends on
no machine, and time goes with it (docs/decoding.md has sentences a second).

F1 is strict, at the threshold 0.5, and at thresholds chosen on one half of the requests and scored on the other,
both ways; so is the temperature that calibrates exact votes best. Results are appended to the output a few
requests at a time, and those that are there already are not marked again.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import put
from spacy.tokens import DocBin
from spacy.vocab import Vocab
from tqdm import tqdm

from spacy_nerllama.evaluation import best_thresholds, count
from spacy_nerllama.evaluation.bootstrap import compare
from spacy_nerllama.evaluation.calibration import expected_calibration_error, reliability
from spacy_nerllama.finetune.sequences import doc_examples
from spacy_nerllama.finetune.thresholds import Example
from spacy_nerllama.models import Llama
from spacy_nerllama.models.engine import Engine
from spacy_nerllama.models.marked import mark_requests
from spacy_nerllama.models.scoring import Past, Row, Scored
from spacy_nerllama.models.tokens import TextEncoder
from spacy_nerllama.prompts import CompactPrompt
from spacy_nerllama.requests import Request, TokenSpan
from spacy_nerllama.voting import Voting, elect

# What is asked of each split. The first wording is the one that the bundled adapter was trained with.
CORPORA = {
    "ncbi-iob-devel": "DISEASE",
    "bc5cdr-disease-iob-devel": "DISEASE",
    "bc5cdr-chem-iob-devel": "CHEMICAL",
    "bc2gm-iob-devel": "GENE",
}
WORDINGS = {
    "DISEASE": ("disease", "disease name", "disease or disorder"),
    "CHEMICAL": ("chemical", "chemical name", "chemical or drug"),
    "GENE": ("gene", "gene name", "gene or protein"),
}
TEMPERATURES = (0.5, 0.75, 1.0, 1.25, 1.5)
PART = 8  # requests whose readings are kept at a time
HALVES = 2


@dataclass(frozen=True)
class Setting:
    """A way to vote.

    samples, temperature: As `Voting` has them.
    wordings: How many wordings of the label vote together, each in a prompt of its own.
    """

    samples: int | None
    temperature: float = 1.0
    wordings: int = 1

    @property
    def votes(self) -> str:
        """What the table calls it, without the temperature."""
        name = {None: "exact", 1: "greedy"}.get(self.samples, f"k = {self.samples}")
        return f"{name}, {self.wordings} wordings" if self.wordings > 1 else name

    @property
    def has_votes(self) -> bool:
        """Whether there are votes to tune a threshold on: of one reading all are 1."""
        return self.samples != 1 or self.wordings > 1

    @property
    def name(self) -> str:
        """Its key in the output."""
        return f"{self.votes}, {self.temperature}"


GREEDY = Setting(1)
EXACT = [Setting(None, temperature) for temperature in TEMPERATURES]
SAMPLED = [Setting(k, temperature) for k in (3, 5, 10, 25) for temperature in TEMPERATURES]
SETTINGS = [GREEDY, *SAMPLED, *EXACT, Setting(1, wordings=3), Setting(None, wordings=3)]

Answer = tuple[dict[TokenSpan, float], list[TokenSpan]]  # votes, gold spans


@dataclass(frozen=True)
class Kept:
    """What was read, and which ids it is of."""

    ids: tuple[int, ...]
    past: Past

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> "Kept":
        return Kept(self.ids[part], self.past[part])


class Remembering:
    """An engine that reads no row twice, and counts what it is asked for.

    ids: How many ids the rows have had, known ones too.
    """

    at_once = 1

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[Any, tuple[Scored, Kept]] = {}
        self.context, self.efficient, self.ids = engine.context, engine.efficient, 0

    def submit(self, rows: Sequence[Row]) -> "Future[Remembered]":
        """Read what is new of a batch of rows."""
        keys = [(row.past.ids if row.past else (), row.ids, row.asks) for row in rows]
        new = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._known}
        if new:
            scores = self._engine.score([row._replace(past=row.past and row.past.past) for row in new.values()])
            for i, (before, ids, asks) in enumerate(new):
                kept = Kept((*before, *ids), scores.past(i, len(ids)))
                self._known[before, ids, asks] = scores.logits[i], kept
        self.ids += sum(len(row.ids) for row in rows)
        future: Future[Remembered] = Future()
        future.set_result(Remembered(rows, [self._known[key] for key in keys]))
        return future

    def prefix(self, ids: tuple[int, ...]) -> Kept:
        """Give the past of what many prompts begin with."""
        return Kept(ids, self._engine.prefix(ids))


class Remembered:
    """What a batch of rows gave, see `scoring.Scores`."""

    def __init__(self, rows: Sequence[Row], known: Sequence[tuple[Scored, Kept]]) -> None:
        self.logits = [logits for logits, _ in known]
        self._rows, self._kept = rows, [kept for _, kept in known]

    def past(self, row: int, n_ids: int) -> Kept:
        """Give the past of a row after the first `n_ids` of its ids."""
        return self._kept[row][: self._rows[row].past_length + n_ids]


def draw(folder: Path, limit: int) -> list[Example]:
    """Draw so many requests of each devel split, with their gold spans."""
    drawn: list[Example] = []
    for name, label in CORPORA.items():
        docs = DocBin().from_disk(folder / f"{name}.spacy").get_docs(Vocab())
        examples = list(doc_examples(docs, {label: WORDINGS[label][0]}))
        random.Random(0).shuffle(examples)
        drawn += examples[:limit]
    random.Random(0).shuffle(drawn)
    return drawn


def mark(engine: Engine, encoder: TextEncoder, examples: Sequence[Example]) -> dict[str, Any]:
    """Mark a few requests with every setting.

    RETURNS: What is written to the output, without the settings: for each request its gold spans and the votes of
        each setting, and how many ids each setting has read.
    """
    remembering = Remembering(engine)
    answers = [{"gold": gold, "votes": {}} for _, gold in examples]
    ids = {}
    for setting in SETTINGS:
        before = remembering.ids
        asked = (
            Request(request.sentence, tuple((label, WORDINGS[label][i]) for label, _ in request.labels))
            for request, _ in examples
            for i in range(setting.wordings)
        )
        voting = Voting(setting.samples, temperature=setting.temperature)
        votes = mark_requests(asked, CompactPrompt(), voting, 4096, encoder, remembering)
        for answer in answers:
            together: dict[TokenSpan, float] = {}
            for _ in range(setting.wordings):
                for span, vote in next(votes).spans.items():
                    together[span] = together.get(span, 0.0) + vote / setting.wordings
            answer["votes"][setting.name] = [(span, round(vote, 6)) for span, vote in together.items()]
        ids[setting.name] = remembering.ids - before
    return {"answers": answers, "ids": ids}


def answers_of(results: Sequence[dict[str, Any]], setting: Setting) -> list[Answer]:
    """Give the votes of a setting, and the gold spans, for all requests."""
    return [
        (
            {TokenSpan(*span): vote for span, vote in answer["votes"][setting.name]},
            [TokenSpan(*span) for span in answer["gold"]],
        )
        for result in results
        for answer in result["answers"]
    ]


def halves(answers: Sequence[Any]) -> Iterator[tuple[Sequence[Any], Sequence[Any]]]:
    """Give what to choose on and what to score, both ways."""
    for half in range(HALVES):
        yield answers[1 - half :: HALVES], answers[half::HALVES]


def counts(answers: Sequence[Answer], tuned: bool) -> np.ndarray:
    """Count right, predicted and gold spans of each request.

    tuned: Keep spans by thresholds tuned on the other half, instead of 0.5.
    RETURNS: *Shape:* (requests, 3)
    """
    if not tuned:
        return np.array([count(elect(votes, {}), gold) for votes, gold in answers])
    counted = np.empty((len(answers), 3), np.int64)
    for half, (other, mine) in enumerate(halves(answers)):
        thresholds = {label: threshold for label, (threshold, _) in best_thresholds(other).items()}
        counted[half::HALVES] = [count(elect(votes, thresholds), gold) for votes, gold in mine]
    return counted


def ece(answers: Sequence[Answer]) -> float:
    """Give the expected calibration error over all candidates."""
    return expected_calibration_error(
        reliability([(vote, span in gold) for votes, gold in answers for span, vote in votes.items()])
    )


def calibrated(results: Sequence[dict[str, Any]]) -> Iterator[tuple[float, float]]:
    """Choose the temperature of exact votes with the least ECE on one half; give it and the ECE of the other."""
    at = {setting.temperature: list(halves(answers_of(results, setting))) for setting in EXACT}
    for half in range(HALVES):
        best = min(at, key=lambda temperature: ece(at[temperature][half][0]))
        yield best, ece(at[best][half][1])


def rows_of(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Work out the figures of each setting."""
    greedy = counts(answers_of(results, GREEDY), tuned=False)
    rows = []
    for setting in SETTINGS:
        answers = answers_of(results, setting)
        plain, tuned = counts(answers, False), counts(answers, tuned=setting.has_votes)
        right, predicted, gold = plain.sum(axis=0)
        rows.append(
            {
                "setting": setting,
                "p": right / max(predicted, 1),
                "r": right / max(gold, 1),
                "f1": f1(plain),
                "tuned": f1(tuned),
                "gain": compare(tuned, greedy),
                "ece": ece(answers),
                "cost": total_ids(results, setting) / total_ids(results, GREEDY),
            }
        )
    return rows


def f1(counted: np.ndarray) -> float:
    """Give the strict F1 of requests."""
    right, predicted, gold = counted.sum(axis=0)
    return 2 * right / max(predicted + gold, 1)


def total_ids(results: Sequence[dict[str, Any]], setting: Setting) -> int:
    """Give how many ids a setting has read."""
    return sum(result["ids"][setting.name] for result in results)


def table(results: Sequence[dict[str, Any]]) -> str:
    """Write the results as a Markdown table, and what temperature does for calibration below it."""
    head = ["votes", "temperature", "P", "R", "F1 at 0.5", "F1, tuned", "less greedy (95 %)", "ECE", "cost"]
    lines = [head, ["---"] + ["--:"] * (len(head) - 1)]
    for row in rows_of(results):
        setting, gain = row["setting"], row["gain"]
        temperature = "" if setting.samples == 1 else str(setting.temperature)
        scores = [f"{row[key]:.3f}" for key in ("p", "r", "f1")]
        gained = f"{gain.difference:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
        tuned = [f"{row['tuned']:.3f}", gained] if setting.has_votes else ["", ""]
        lines.append([setting.votes, temperature, *scores, *tuned, f"{row['ece']:.3f}", f"{row['cost']:.2f}"])
    chosen = " and ".join(f"{temperature} (ECE {error:.3f})" for temperature, error in calibrated(results))
    answers = answers_of(results, GREEDY)
    n, gold = len(answers), sum(len(spans) for _, spans in answers)
    return "\n".join(
        [
            *("| " + " | ".join(line) + " |" for line in lines),
            "",
            f"{n} requests with {gold} mentions. The temperature of exact votes that is chosen on one half of "
            f"them by ECE, with its ECE on the other half: {chosen}.",
        ]
    )


def plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw tuned F1 against cost, a line for each temperature."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    rows = rows_of(results)
    for temperature in TEMPERATURES:
        mine = [row for row in rows if row["setting"].temperature == temperature and row["setting"].wordings == 1]
        sampled = [(row["cost"], row["tuned"]) for row in mine if row["setting"] in SAMPLED]
        (line,) = axes.plot(*zip(*sampled, strict=True), "o-", label=f"temperature {temperature}")
        exact = [(row["cost"], row["tuned"]) for row in mine if row["setting"] in EXACT]
        axes.plot(*zip(*exact, strict=True), "*", color=line.get_color(), markersize=12)
    axes.axhline(rows[0]["f1"], linestyle=":", color="grey", label="greedy")
    axes.set(
        xlabel="ids read next to greedy (k = 3, 5, 10, 25; stars: exact votes)",
        ylabel="strict F1, tuned thresholds",
    )
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path("corpus"), help="folder of the .spacy files")
    parser.add_argument("--output", type=Path, required=True, help="JSONL file of the results; appended to")
    parser.add_argument("--limit", type=int, default=150, help="requests of each split")
    parser.add_argument("--base", help="another base: a folder, a hub name or a .gguf file")
    parser.add_argument("--adapter", help="another adapter: a folder or a hub name")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--update", type=Path, help="put the table into this file, between its markers")
    parser.add_argument("--plot", type=Path, help="picture to draw, in the folder of that file")
    options = parser.parse_args()
    model = Llama(options.base, options.adapter, None, options.dtype, options.device)
    examples = draw(options.corpus, options.limit)
    settings = {"model": model.fingerprint(), "requests": len(examples), "limit": options.limit}
    lines = options.output.read_text("utf8").splitlines() if options.output.exists() else []
    results = [result for line in lines if (result := json.loads(line))["settings"] == settings]
    done = {result["part"] for result in results}
    encoder, engine, *_ = model.load()
    for start in tqdm(range(0, len(examples), PART), "Marking"):
        if start not in done:
            result = {"part": start, **mark(engine, encoder, examples[start : start + PART]), "settings": settings}
            with options.output.open("a", encoding="utf8") as file:
                file.write(json.dumps(result) + "\n")
            results.append(json.loads(json.dumps(result)))
    results.sort(key=lambda result: result["part"])
    text = table(results)
    print(text)
    if options.plot:
        plot(results, options.plot)
        text += f"\n\n![F1 against cost, a line for each temperature]({options.plot.name})"
    if options.update:
        put(options.update, "votes table", text)


if __name__ == "__main__":
    main()

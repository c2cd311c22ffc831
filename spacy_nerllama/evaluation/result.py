"""All figures of an evaluation, as one dict that is written as JSON and shown as tables and pages."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
from spacy.tokens import Doc

from ..errors import Errors
from .bootstrap import SAMPLES, IntArray, compare, intervals
from .calibration import expected_calibration_error, judged_votes, reliability
from .errors_by_kind import tally
from .mentions import Mention, count_seen
from .scores import Counts, count, count_relaxed
from .spans import DocSpans, gold_spans
from .thresholds import curve

EXAMPLES = 10  # of each kind of error
SCORES = ("precision", "recall", "f1")

Result = dict[str, Any]


def fingerprint(docs: Iterable[Doc], labels: Collection[str] | None = None) -> str:
    """Give a SHA-256 of what pipelines are measured against: the texts and gold entities, in order.

    docs: The gold docs.
    labels: The labels that are judged. None: all.
    """
    digest = hashlib.sha256(json.dumps(None if labels is None else sorted(labels)).encode())
    for doc in docs:
        digest.update(json.dumps([doc.text, gold_spans(doc, labels)]).encode())
    return digest.hexdigest()


def measure(
    docs: Sequence[DocSpans], known: set[Mention] | None = None, samples: int = SAMPLES, seed: int = 0
) -> Result:
    """Work out all figures of predictions.

    docs: What is judged of each doc.
    known: The mentions of the training data. None: do not tell seen from unseen ones.
    samples, seed: How the bootstrap draws.
    RETURNS: The figures, ready for JSON: how many `documents`, `misaligned` and `unannotated` predictions;
        `strict`, `relaxed`, `seen` and `unseen` scores (each `micro` and by `labels`); `calibration` and
        `thresholds` (None without votes, or if all are 1); `errors` by kind; and the `counts` of each document by
        label, as (right, predicted, gold).
    """
    labels = sorted({span.label for doc in docs for span in (*doc.gold, *doc.predicted)})

    def per_doc(counter: Callable[[DocSpans, str], Counts]) -> IntArray:
        table = [[counter(doc, label) for label in labels] for doc in docs]
        return np.array(table, dtype=np.int64).reshape(len(docs), len(labels), 3)

    counts = {
        "strict": per_doc(lambda doc, label: count(*_of_label(doc, label))),
        "relaxed": per_doc(lambda doc, label: count_relaxed(*_of_label(doc, label))),
    }
    recalls: dict[str, IntArray] = {}
    if known is not None:
        recalls["seen"] = per_doc(lambda doc, label: count_seen(doc, label, known, True))
        recalls["unseen"] = per_doc(lambda doc, label: count_seen(doc, label, known, False))
    return {
        "documents": len(docs),
        "misaligned": sum(doc.misaligned for doc in docs),
        "unannotated": sum(doc.unannotated for doc in docs),
        **{name: _scores(table, labels, samples, seed) for name, table in counts.items()},
        **{name: _recalls(_scores(table, labels, samples, seed)) for name, table in recalls.items()},
        **_votes(docs),
        "errors": {
            kind: {
                "count": sum(examples.values()),
                "examples": [
                    {"gold": gold, "predicted": predicted, "count": n}
                    for (gold, predicted), n in examples.most_common(EXAMPLES)
                ],
            }
            for kind, examples in tally(docs).items()
        },
        "counts": {"labels": labels, **{name: table.tolist() for name, table in counts.items()}},
    }


def check_comparable(other: Result, data: str, name: str) -> None:
    """Check that another result can be compared with one on this data.

    data: The fingerprint of the data.
    name: Where the other result comes from.
    RAISES: ValueError if it is no result, or on other data.
    """
    counts = other.get("counts") if isinstance(other, dict) else None
    if not isinstance(counts, dict) or not counts.keys() >= {"labels", "strict", "relaxed"}:
        raise ValueError(Errors.E096.format(path=name))
    if other.get("fingerprint") != data:
        raise ValueError(Errors.E097.format(other=name))


def compare_results(one: Result, other: Result, samples: int = SAMPLES, seed: int = 0) -> Result:
    """Compare two results on the same data, by paired bootstrap over documents.

    one, other: Results of `measure`.
    RETURNS: `strict` and `relaxed`, each `micro` and by `labels` (those with gold mentions), with the F1 of both
        and the fields of `Comparison`.
    """
    labels = sorted({*one["counts"]["labels"], *other["counts"]["labels"]})

    def compared(mine: IntArray, theirs: IntArray) -> Result:
        f1 = [Counts(*table.sum(axis=0).tolist()).f1 for table in (mine, theirs)]
        return {"f1": f1[0], "other_f1": f1[1], **compare(mine, theirs, samples, seed)._asdict()}

    result = {}
    for name in ("strict", "relaxed"):
        mine, theirs = (_counts_of(each["counts"], name, labels) for each in (one, other))
        result[name] = {
            "micro": compared(mine.sum(axis=1), theirs.sum(axis=1)),
            "labels": {
                label: compared(mine[:, i], theirs[:, i]) for i, label in enumerate(labels) if mine[:, i, 2].any()
            },
        }
    return result


def to_json(result: Result) -> str:
    """Write a result as JSON, a line for each of its parts: the counts of thousands of documents stay together."""
    lines = (
        f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False, default=float)}"
        for key, value in result.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _of_label(doc: DocSpans, label: str) -> tuple[list, list]:
    return [s for s in doc.predicted if s.label == label], [s for s in doc.gold if s.label == label]


def _scores(counts: IntArray, labels: Sequence[str], samples: int, seed: int) -> Result:
    """Score counts (documents, labels, 3), over all labels and by label, with their intervals."""
    table = np.concatenate([counts.sum(axis=1, keepdims=True), counts], axis=1)
    bounds = intervals(table, samples, seed)
    micro, *by_label = (
        _score(Counts(*total), bound) for total, bound in zip(table.sum(axis=0).tolist(), bounds, strict=True)
    )
    return {"micro": micro, "labels": dict(zip(labels, by_label, strict=True))}


def _score(counts: Counts, bounds: np.ndarray) -> Result:
    return {
        **{name: getattr(counts, name) for name in SCORES},
        "intervals": {
            name: None if np.isnan(bound).any() else bound.tolist()
            for name, bound in zip(SCORES, bounds, strict=True)
        },
        **counts._asdict(),
    }


def _recalls(scores: Result) -> Result:
    """Leave of scores what is recall."""

    def recall(score: Result) -> Result:
        return {
            "recall": score["recall"],
            "interval": score["intervals"]["recall"],
            "right": score["right"],
            "gold": score["gold"],
        }

    return {
        "micro": recall(scores["micro"]),
        "labels": {label: recall(each) for label, each in scores["labels"].items()},
    }


def _votes(docs: Sequence[DocSpans]) -> Result:
    unsure = any(vote < 1 for doc in docs for vote in (doc.votes or {}).values())  # those of one reading are 1
    if not unsure or any(doc.votes is None for doc in docs):
        return {"calibration": None, "thresholds": None}
    bins = reliability(judged_votes(docs))
    return {
        "calibration": {"ece": expected_calibration_error(bins), "bins": [each._asdict() for each in bins]},
        "thresholds": [
            {"threshold": threshold, **{name: getattr(counts, name) for name in SCORES}, **counts._asdict()}
            for threshold, counts in curve(docs).items()
        ],
    }


def _counts_of(counts: Result, name: str, labels: Sequence[str]) -> IntArray:
    """Take counts (documents, labels, 3) of a result in the order of `labels`, 0 for those that it lacks."""
    table = np.array(counts[name], dtype=np.int64)
    result = np.zeros((len(table), len(labels), 3), dtype=np.int64)
    for i, label in enumerate(counts["labels"]):
        result[:, labels.index(label)] = table[:, i]
    return result

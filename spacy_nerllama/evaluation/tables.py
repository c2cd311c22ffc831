"""The tables of a result, which the terminal and the HTML page show alike. Scores are in per cent."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from .errors_by_kind import KINDS
from .result import Result

SHOWN_EXAMPLES = 3


class Table(NamedTuple):
    """A table: its first column is text, as are those in `left`; all others are numbers."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    left: tuple[int, ...] = (0,)


def tables(result: Result) -> list[Table]:
    """Give the tables of a result, those that it has figures for."""
    strict = "start, end and label are right"
    if result["own_tokens"] and not result["misaligned"]:
        strict += "; on the corpus's own tokens, so equal to seqeval's (IOB2, mode strict)"
    if result["misaligned"]:
        strict += f"; {result['misaligned']} predictions are off the gold tokens, and judged as they are"
    if result["unannotated"]:
        strict += f"; {result['unannotated']} predictions where gold annotation is missing are left out"
    found = [
        _spacy(result["spacy"]),
        _scores("Strict", result["strict"], strict),
        _scores("Relaxed", result["relaxed"], "the label is right, and at least one character"),
    ]
    if "comparison" in result:
        found.append(_comparison(result["comparison"]))
    if "seen" in result:
        found.append(_seen(result["seen"], result["unseen"]))
    if result["calibration"]:
        found += [_calibration(result["calibration"]), _thresholds(result["thresholds"])]
    return [table for table in (*found, _errors(result["errors"])) if table.rows]


def _spacy(scores: Result) -> Table:
    names = {"ents_p": "NER P", "ents_r": "NER R", "ents_f": "NER F", "token_acc": "TOK"}
    rows = [(name, _percent(scores[key])) for key, name in names.items() if scores.get(key) is not None]
    return Table("spaCy's scores", ("", "%"), rows, "as `spacy evaluate` gives them, on gold tokens")


def _scores(title: str, scores: Result, note: str) -> Table:
    rows = [
        (
            name,
            *(_percent(score[each]) for each in ("precision", "recall", "f1")),
            _interval(score["intervals"]["f1"]),
            str(score["predicted"]),
            str(score["gold"]),
        )
        for name, score in _named(scores)
    ]
    return Table(title, ("", "P", "R", "F1", "95 % of F1", "predicted", "gold"), rows, note)


def _comparison(comparison: Result) -> Table:
    rows = [
        (
            f"{measure}, {name}",
            _percent(each["f1"]),
            _percent(each["other_f1"]),
            f"{100 * each['difference']:+.2f}",
            _interval([each["low"], each["high"]], "+.2f"),
            _percent(each["not_better"]),
        )
        for measure in ("strict", "relaxed")
        for name, each in _named(comparison[measure])
    ]
    header = ("", "F1", "other", "difference", "95 % of it", "not better")
    note = f"compared with {comparison['other']}; not better: in so many % of the paired resamples"
    return Table("Comparison", header, rows, note)


def _seen(seen: Result, unseen: Result) -> Table:
    rows = []
    for (name, known), (_, new) in zip(_named(seen), _named(unseen), strict=True):
        row = [name]
        for each in (known, new):
            row += [
                _percent(each["recall"]) if each["gold"] else "-",
                _interval(each["interval"]),
                str(each["gold"]),
            ]
        rows.append(tuple(row))
    header = ("", "seen R", "95 %", "gold", "unseen R", "95 %", "gold")
    return Table("Recall on mentions seen in training, and on others", header, rows)


def _calibration(calibration: Result) -> Table:
    rows = [
        (f"{each['low']:.1f}-{each['high']:.1f}", str(each["n"]), _percent(each["vote"]), _percent(each["right"]))
        for each in calibration["bins"]
        if each["n"]
    ]
    note = f"expected calibration error {_percent(calibration['ece'])} %, over all candidates"
    return Table("Votes: are they calibrated?", ("vote", "candidates", "mean vote", "right"), rows, note)


def _thresholds(curve: list[Result]) -> Table:
    rows = [
        (f"{each['threshold']:.2f}", *(_percent(each[name]) for name in ("precision", "recall", "f1")))
        for each in curve
    ]
    note = "one threshold for all labels, strict; one chosen here must be scored on other data"
    return Table("Votes: which threshold?", ("threshold", "P", "R", "F1"), rows, note)


def _errors(errors: Result) -> Table:
    rows = []
    for kind, meaning in KINDS.items():
        rows.append((kind, str(errors[kind]["count"]), meaning))
        for each in errors[kind]["examples"][:SHOWN_EXAMPLES]:
            texts = [text for text in (each["gold"], each["predicted"]) if text]
            rows.append(("", str(each["count"]), " -> ".join(texts)))
    note = "gold -> predicted; the most frequent of each kind"
    return Table("Errors by kind", ("kind", "count", ""), rows, note, left=(0, 2))


def _named(scores: Result) -> list[tuple[str, Any]]:
    return [*scores["labels"].items(), ("all (micro)", scores["micro"])]


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _interval(bounds: list[float] | None, form: str = ".2f") -> str:
    return "-" if bounds is None else " to ".join(format(100 * bound, form) for bound in bounds)

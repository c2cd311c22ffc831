"""Errors by kind: what a false positive and a false negative have to do with each other."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from .matching import pair_overlapping
from .mentions import normalise
from .spans import CharSpan, DocSpans

KINDS = {
    "boundary": "the label is right, start or end is not",
    "type": "start and end are right, the label is not",
    "boundary+type": "overlaps a mention, but neither its bounds nor its label are right",
    "spurious": "predicted, and no gold span is left that it could be",
    "missed": "gold, and no prediction is left that could be it",
}


class Error(NamedTuple):
    """One error; a kind in which both take part is one false positive and one false negative.

    gold: The gold span. None if it is spurious.
    predicted: The prediction. None if it is missed.
    """

    kind: str
    gold: CharSpan | None
    predicted: CharSpan | None


def errors(doc: DocSpans) -> list[Error]:
    """Explain all that is wrong in a doc.

    Each false positive and each false negative is in exactly one error; spans that overlap are paired one to one,
    those of one label first.
    """
    extra, lacking = set(doc.predicted) - set(doc.gold), set(doc.gold) - set(doc.predicted)
    found = []
    for label in {span.label for span in lacking}:
        pairs = pair_overlapping(
            [span for span in extra if span.label == label], [span for span in lacking if span.label == label]
        )
        found += [Error("boundary", gold, predicted) for predicted, gold in pairs]
    extra -= {error.predicted for error in found}
    lacking -= {error.gold for error in found}
    for predicted, gold in pair_overlapping(extra, lacking):
        kind = "type" if predicted[:2] == gold[:2] else "boundary+type"
        found.append(Error(kind, gold, predicted))
        extra.remove(predicted)
        lacking.remove(gold)
    found += [Error("spurious", None, span) for span in extra]
    found += [Error("missed", span, None) for span in lacking]
    return sorted(found, key=lambda error: min(span for span in error[1:] if span is not None))


def tally(docs: Iterable[DocSpans]) -> dict[str, Counter[tuple[str, str]]]:
    """Count the errors of each kind by what was gold and what was predicted.

    RETURNS: For each kind, the counts by (gold, predicted), each as "text LABEL" in lower case, "" for none.
    """
    counts: dict[str, Counter[tuple[str, str]]] = {kind: Counter() for kind in KINDS}
    for doc in docs:
        for error in errors(doc):
            counts[error.kind][_show(doc, error.gold), _show(doc, error.predicted)] += 1
    return counts


def _show(doc: DocSpans, span: CharSpan | None) -> str:
    return "" if span is None else f"{normalise(doc.text[span.start : span.end])} {span.label}"

"""Span scores: strict (start, end and label are right) and relaxed (the label is, and some character)."""

from collections.abc import Collection, Iterable
from typing import NamedTuple, TypeVar

from .matching import pair_overlapping
from .spans import CharSpan

S = TypeVar("S")


class Counts(NamedTuple):
    """True positives, predictions and gold spans."""

    right: int = 0
    predicted: int = 0
    gold: int = 0

    def __add__(self, other: "Counts") -> "Counts":  # type: ignore[override]
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def precision(self) -> float:
        """The share of predictions that are right, in [0, 1]; 0 without predictions."""
        return self.right / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """The share of gold spans that were found, in [0, 1]; 0 without gold spans."""
        return self.right / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall, in [0, 1]."""
        total = self.predicted + self.gold
        return 2 * self.right / total if total else 0.0


def count(predicted: Collection[S], gold: Collection[S]) -> Counts:
    """Compare the spans of one text."""
    return Counts(len(set(predicted) & set(gold)), len(set(predicted)), len(set(gold)))


def count_relaxed(predicted: Collection[CharSpan], gold: Collection[CharSpan]) -> Counts:
    """Compare the spans of one text: a prediction is right if it overlaps a gold span of its label.

    This is the "inexact" criterion of i2b2 2010 and "type" matching of SemEval-2013 task 9. Neither says what
    becomes of two predictions in one gold span; here each span is used once, so that a mention cut in two is
    found once and predicted twice.

    predicted, gold: Spans; neither overlap among themselves.
    """
    right = 0
    for label in {span.label for span in gold}:
        pairs = pair_overlapping(
            [span for span in predicted if span.label == label], [span for span in gold if span.label == label]
        )
        right += len(pairs)
    return Counts(right, len(predicted), len(gold))


def score(pairs: Iterable[tuple[Collection[S], Collection[S]]]) -> Counts:
    """Compare the spans of many texts, each as (predicted, gold); micro-averaged."""
    return sum((count(predicted, gold) for predicted, gold in pairs), Counts())

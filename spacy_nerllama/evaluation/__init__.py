"""Scores of predicted spans, how sure they are, and thresholds tuned on them."""

from .scores import Counts, count, count_relaxed, score
from .spans import CharSpan, DocSpans, doc_spans
from .thresholds import GRID, best_thresholds

__all__ = [
    "GRID",
    "CharSpan",
    "Counts",
    "DocSpans",
    "best_thresholds",
    "count",
    "count_relaxed",
    "doc_spans",
    "score",
]

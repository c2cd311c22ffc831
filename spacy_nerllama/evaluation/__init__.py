"""Scores of predicted spans, and thresholds tuned on them."""

from .scores import Counts, count, score
from .thresholds import GRID, best_thresholds

__all__ = ["GRID", "Counts", "best_thresholds", "count", "score"]

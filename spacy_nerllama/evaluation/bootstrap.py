"""Bootstrap over documents: how far a score would move on another sample of the same kind.

Mentions of one document are not independent, so documents are drawn, with replacement (Efron & Tibshirani 1993);
for two pipelines the same documents (Berg-Kirkpatrick et al., EMNLP 2012). Everything works on counts, the last
axis of which is (right, predicted, gold).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SAMPLES = 1000
TAILS = (2.5, 97.5)  # percentiles of the 95 % interval

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class Comparison(NamedTuple):
    """A paired comparison of F1.

    difference: F1 of the one less that of the other.
    low, high: Its 95 % interval.
    not_better: The share of resamples in which the one is not better.
    """

    difference: float
    low: float
    high: float
    not_better: float


def precision_recall_f1(counts: NDArray) -> FloatArray:
    """Turn counts into scores.

    counts (..., 3): Right, predicted, gold.
    RETURNS (..., 3): Precision, recall and F1 in [0, 1]; nan where there is nothing to divide by.
    """
    right, predicted, gold = np.moveaxis(np.asarray(counts, dtype=float), -1, 0)
    with np.errstate(invalid="ignore"):
        return np.stack([right / predicted, right / gold, 2 * right / (predicted + gold)], axis=-1)


def resample(counts: IntArray, samples: int = SAMPLES, seed: int = 0) -> IntArray:
    """Draw as many documents as there are, again and again, and sum their counts.

    counts (documents, ...): Counts of each document. Those of equal length and seed get the same draws.
    RETURNS (samples, ...): Their sums.
    """
    n = len(counts)
    random = np.random.default_rng(seed)
    flat = counts.reshape(n, -1)
    sums = [random.multinomial(n, np.full(n, 1 / n)) @ flat for _ in range(samples)]
    return np.stack(sums).reshape(samples, *counts.shape[1:])


def intervals(counts: IntArray, samples: int = SAMPLES, seed: int = 0) -> FloatArray:
    """Give 95 % percentile intervals.

    counts (documents, figures, 3): Counts of each document.
    RETURNS (figures, 3, 2): Low and high of precision, recall and F1. Resamples in which a score is not defined
        are left out of its interval; nan where it is defined in none.
    """
    scores = precision_recall_f1(resample(counts, samples, seed))
    bounds = np.full((*scores.shape[1:], 2), np.nan)
    defined = ~np.isnan(scores).all(axis=0)
    if defined.any():
        bounds[defined] = np.nanpercentile(scores[:, defined], TAILS, axis=0).T
    return bounds


def compare(one: IntArray, other: IntArray, samples: int = SAMPLES, seed: int = 0) -> Comparison:
    """Compare the F1 of two predictions of the same documents.

    one, other (documents, 3): Counts of each document, with at least one gold span in all.
    """
    both = np.stack([one, other], axis=1)
    f1 = precision_recall_f1(resample(both, samples, seed))[..., 2]
    differences = f1[:, 0] - f1[:, 1]
    differences = differences[~np.isnan(differences)]
    mine, theirs = precision_recall_f1(both.sum(axis=0))[:, 2]
    low, high = np.percentile(differences, TAILS)
    return Comparison(float(mine - theirs), float(low), float(high), float(np.mean(differences <= 0)))

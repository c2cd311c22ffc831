"""The bootstrap over documents, and the paired one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_nerllama.evaluation import Counts
from spacy_nerllama.evaluation.bootstrap import compare, intervals, precision_recall_f1, resample


@st.composite
def document_counts(draw: st.DrawFn, min_size: int = 20) -> np.ndarray:
    """Counts (documents, 3) of documents that all hold mentions and predictions."""
    documents = draw(
        st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=min_size, max_size=2 * min_size)
    )
    return np.array([[draw(st.integers(0, min(both))), *both] for both in documents], dtype=np.int64)


@given(document_counts())
def test_an_interval_contains_its_estimate(counts: np.ndarray) -> None:
    estimate = precision_recall_f1(counts.sum(axis=0))
    bounds = intervals(counts[:, None])[0]
    assert (bounds[:, 0] <= estimate + 1e-12).all()
    assert (estimate <= bounds[:, 1] + 1e-12).all()
    assert (bounds >= 0).all()
    assert (bounds <= 1).all()


@given(document_counts(2))
def test_scores_are_those_of_counts(counts: np.ndarray) -> None:
    for row, scores in zip(counts, precision_recall_f1(counts), strict=True):
        one = Counts(*row.tolist())
        assert scores == pytest.approx([one.precision, one.recall, one.f1])


def test_intervals_are_those_of_drawing_documents_one_by_one() -> None:
    random = np.random.default_rng(0)
    counts = np.column_stack([random.integers(0, 3, 50), random.integers(2, 5, 50), random.integers(2, 5, 50)])
    plain = [precision_recall_f1(counts[random.integers(50, size=50)].sum(axis=0)) for _ in range(4000)]
    expected = np.percentile(plain, (2.5, 97.5), axis=0).T
    assert intervals(counts[:, None], samples=4000)[0] == pytest.approx(expected, abs=0.01)


def test_draws_depend_on_the_seed_alone() -> None:
    counts = np.arange(30).reshape(10, 3)
    assert (resample(counts, 5, seed=1) == resample(counts, 5, seed=1)).all()
    assert (resample(counts, 5, seed=1) != resample(counts, 5, seed=2)).any()
    ones = resample(np.ones((10, 1), dtype=np.int64), 5)
    assert (ones == 10).all(), "as many documents as there are"


def test_a_score_that_is_not_defined_has_no_interval() -> None:
    counts = np.array([[[0, 2, 0]], [[0, 1, 0]]])
    precision, recall, f1 = intervals(counts)[0]
    assert np.isnan(recall).all()
    assert precision.tolist() == f1.tolist() == [0, 0]
    assert np.isnan(intervals(np.zeros((2, 1, 3), dtype=np.int64))).all()


@given(document_counts())
def test_nothing_is_better_than_itself(counts: np.ndarray) -> None:
    assert compare(counts, counts, samples=50) == (0, 0, 0, 1)


@given(document_counts(), document_counts())
def test_a_comparison_turned_round(one: np.ndarray, other: np.ndarray) -> None:
    n = min(len(one), len(other))
    there, back = compare(one[:n], other[:n], samples=200), compare(other[:n], one[:n], samples=200)
    assert (back.difference, back.low, back.high) == pytest.approx((-there.difference, -there.high, -there.low))
    assert there.low <= there.high
    assert there.not_better + back.not_better >= 1  # more than 1 by the ties


def test_pairing_sees_what_intervals_do_not() -> None:
    """One mention more in every tenth document is nothing next to their spread, but never to the worse."""
    random = np.random.default_rng(0)
    gold = random.integers(2, 12, 200)
    right = np.minimum(random.integers(0, 12, 200), gold - 1)
    more = right + (np.arange(200) % 10 == 0)
    one, other = (np.column_stack([found, gold, gold]) for found in (more, right))
    apart = [intervals(counts[:, None])[0][2] for counts in (one, other)]
    assert apart[1][1] > apart[0][0], "the intervals overlap"
    comparison = compare(one, other)
    assert comparison.low > 0
    assert comparison.not_better == 0

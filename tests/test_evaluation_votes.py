"""Votes: calibration, and the curve over thresholds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_nerllama.evaluation import CharSpan, DocSpans
from spacy_nerllama.evaluation.calibration import expected_calibration_error, judged_votes, reliability
from spacy_nerllama.evaluation.result import measure
from spacy_nerllama.evaluation.thresholds import curve
from spacy_nerllama.requests import TokenSpan

judged = st.lists(st.tuples(st.floats(0, 1), st.booleans()))


def voted(votes: dict[tuple, float], gold: list[tuple]) -> DocSpans:
    """A doc whose tokens are single characters."""
    return DocSpans(
        "abcdefgh",
        tuple(CharSpan(*span) for span in gold),
        (),
        votes={TokenSpan(*span): vote for span, vote in votes.items()},
        chars={TokenSpan(*span): CharSpan(*span) for span in votes},
    )


@given(judged)
def test_every_candidate_is_in_one_bin(judged: list[tuple[float, bool]]) -> None:
    bins = reliability(judged)
    assert sum(each.n for each in bins) == len(judged)
    for each in bins:
        if each.n:
            assert each.low - 1e-9 <= each.vote <= each.high + 1e-9
            assert 0 <= each.right <= 1
    assert 0 <= expected_calibration_error(bins) <= 1


def test_the_calibration_error_worked_out_by_hand() -> None:
    bins = reliability([(0.9, True), (1.0, True), (0.95, False), (0.3, False)])
    assert [(each.n, each.vote, each.right) for each in bins if each.n] == [
        (1, 0.3, 0),
        (1, 0.9, 1),  # a vote on an edge is in the bin below
        (2, pytest.approx(0.975), 0.5),
    ]
    assert expected_calibration_error(bins) == pytest.approx((0.3 + 0.1 + 2 * 0.475) / 4)
    assert expected_calibration_error(reliability([])) == 0


def test_votes_that_keep_their_word_are_calibrated() -> None:
    draw = random.Random(0)
    votes = [draw.random() for _ in range(20_000)]
    honest = [(vote, draw.random() < vote) for vote in votes]
    boastful = [(min(1.0, vote + 0.2), right) for vote, right in honest]
    assert expected_calibration_error(reliability(honest)) < 0.02
    assert expected_calibration_error(reliability(boastful)) > 0.15


def test_a_candidate_is_right_if_bounds_and_label_are() -> None:
    doc = voted({(0, 1, "GENE"): 0.9, (0, 2, "GENE"): 0.6, (0, 1, "DISEASE"): 0.2}, [(0, 1, "GENE")])
    assert judged_votes([doc]) == [(0.9, True), (0.6, False), (0.2, False)]


def test_the_curve_keeps_what_the_vote_rule_keeps() -> None:
    docs = [
        voted({(0, 1, "GENE"): 0.9, (0, 2, "GENE"): 0.6, (4, 5, "GENE"): 0.3}, [(0, 1, "GENE"), (4, 5, "GENE")]),
        voted({(0, 1, "GENE"): 0.4}, []),
    ]
    assert curve(docs, [0.2, 0.35, 0.95]) == {0.2: (2, 3, 2), 0.35: (1, 2, 2), 0.95: (0, 0, 2)}


def test_votes_that_are_all_1_have_neither_bins_nor_a_curve() -> None:
    """Those of greedy readings: each threshold keeps the same, and nothing says how sure the model is."""
    greedy = voted({(0, 1, "GENE"): 1.0, (4, 5, "GENE"): 1.0}, [(0, 1, "GENE")])
    for docs in ([greedy], [voted({}, [])]):
        result = measure(docs, samples=10)
        assert result["calibration"] is result["thresholds"] is None
    result = measure([greedy, voted({(0, 1, "GENE"): 0.4}, [])], samples=10)
    assert len(result["thresholds"]) == 19


def test_what_is_not_judged_still_takes_its_place() -> None:
    """A label that is left out wins its tokens, as it does in the pipeline, and is then not counted."""
    doc = voted({(0, 2, "GENE"): 0.9, (0, 1, "DISEASE"): 0.6}, [(0, 1, "DISEASE")])
    doc = DocSpans(
        doc.text, doc.gold, (), votes=doc.votes, chars={TokenSpan(0, 1, "DISEASE"): CharSpan(0, 1, "DISEASE")}
    )
    assert curve([doc], [0.5]) == {0.5: (0, 0, 1)}

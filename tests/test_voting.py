"""The vote rule, and the settings of voting."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_nerllama.factory import DEFAULT_CONFIG
from spacy_nerllama.requests import TokenSpan
from spacy_nerllama.voting import DEFAULT_THRESHOLD, Votes, Voting, elect, shift

LABELS = ["CHEMICAL", "DISEASE", "GENE"]

token_spans = st.builds(
    lambda start, length, label: TokenSpan(start, start + length, label),
    st.integers(0, 8),
    st.integers(1, 4),
    st.sampled_from(LABELS),
)
shares = st.sampled_from([0.1, 0.3, 0.5, 0.7, 1.0])  # few, so that there are ties
votes = st.dictionaries(token_spans, shares)
thresholds = st.dictionaries(st.sampled_from(LABELS), shares)


def overlap(one: TokenSpan, other: TokenSpan) -> bool:
    return one.start < other.end and other.start < one.end


@given(votes, thresholds)
def test_elected_spans(votes: dict[TokenSpan, float], thresholds: dict[str, float]) -> None:
    kept = elect(votes, thresholds)
    assert kept == sorted(kept)
    assert not any(overlap(one, other) for one in kept for other in kept if one != other)

    reached = {span for span in votes if votes[span] >= thresholds.get(span.label, DEFAULT_THRESHOLD)}
    assert set(kept) <= reached
    for lost in reached - set(kept):  # to a span with a higher vote, or a longer, or an earlier one
        assert any(
            (votes[span], len(range(*span[:2])), -span.start) >= (votes[lost], len(range(*lost[:2])), -lost.start)
            for span in kept
            if overlap(span, lost)
        )


@given(votes, st.randoms())
def test_the_order_of_votes_does_not_matter(votes: dict[TokenSpan, float], random: Any) -> None:
    items = list(votes.items())
    random.shuffle(items)
    assert elect(dict(items), {}) == elect(votes, {})


@pytest.mark.parametrize(
    ("votes", "kept"),
    [
        ({(0, 2, "GENE"): 0.6, (1, 3, "GENE"): 0.7}, (1, 3, "GENE")),  # the higher vote
        ({(0, 1, "GENE"): 0.6, (0, 3, "GENE"): 0.6}, (0, 3, "GENE")),  # the longer span
        ({(1, 3, "GENE"): 0.6, (0, 2, "GENE"): 0.6}, (0, 2, "GENE")),  # the earlier one
        ({(0, 2, "GENE"): 0.6, (0, 2, "DISEASE"): 0.7}, (0, 2, "DISEASE")),  # labels compete as well
    ],
)
def test_ties_between_overlapping_spans(votes: dict[tuple, float], kept: tuple) -> None:
    assert elect({TokenSpan(*span): vote for span, vote in votes.items()}, {}) == [kept]


def test_each_label_has_its_threshold() -> None:
    votes = {TokenSpan(0, 1, "GENE"): 0.3, TokenSpan(2, 3, "DISEASE"): 0.3, TokenSpan(4, 5, "CHEMICAL"): 0.5}
    assert elect(votes, {"GENE": 0.3}) == [(0, 1, "GENE"), (4, 5, "CHEMICAL")], "0.5 without a threshold"
    assert elect(votes, {"GENE": 0.31, "DISEASE": 0.0, "CHEMICAL": 1.0}) == [(2, 3, "DISEASE")]


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (None, [0.2, DEFAULT_THRESHOLD]),  # the adapter's
        (0.0, [0.0, 0.0]),
        (1, [1, 1]),
        ({"GENE": 0.9}, [0.2, 0.9]),  # the adapter's for a label without one
        ({"DISEASE": 0.9}, [0.9, DEFAULT_THRESHOLD]),
    ],
)
def test_where_a_threshold_comes_from(threshold: Any, expected: list[float]) -> None:
    voting = Voting(threshold=threshold)
    assert [voting.threshold_of(label, {"DISEASE": 0.2}) for label in ("DISEASE", "GENE")] == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"samples": 0},
        {"min_mass": -0.1},
        {"min_mass": 1.0},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"threshold": 1.1},
        {"threshold": -0.1},
        {"threshold": {"GENE": 0.5, "DISEASE": 2.0}},
        {"agreement": -0.1},
        {"agreement": 1.0},
        {"samples": 2.5},
        {"seed": 0.5},
        {"temperature": "1.0"},
    ],
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^\[NL050\] .*samples >= 1"):
        Voting(**settings)


def test_the_default_settings_are_those_of_the_component() -> None:
    settings = {key: value for key, value in DEFAULT_CONFIG["voting"].items() if key != "@misc"}
    assert Voting(**settings) == Voting()
    assert settings.keys() == vars(Voting()).keys()


def test_votes_move_with_their_sentence() -> None:
    votes = Votes({TokenSpan(0, 2, "GENE"): 0.5})
    assert dict(shift(votes.spans, 3)) == {TokenSpan(3, 5, "GENE"): 0.5}

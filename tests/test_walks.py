"""Walks through a grammar whose choices have known probabilities, against every reading enumerated.

There is no model here. The probability of a choice is a fixed, arbitrary function of all ids before it.
"""

import math
import sys
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_nerllama.grammar import Grammar, State
from spacy_nerllama.marking import typed_scheme
from spacy_nerllama.models.walks import Branch, Exact, Floats, Greedy, Sampling, Walk, make_walk
from spacy_nerllama.requests import Request, Sentence, TokenSpan
from spacy_nerllama.voting import Voting

LABELS = {"DISEASE": "disease", "GENE": "gene"}
Spans = tuple[TokenSpan, ...]


def make_request(words: str, *labels: str) -> Request:
    texts = tuple(words.split())
    return Request(Sentence(texts, (True,) * len(texts)), tuple((label, LABELS[label]) for label in labels))


# One id a character: both markers begin with " @", and are told apart, if at all, at the third id.
def make_grammar(request: Request) -> Grammar:
    return Grammar(request, typed_scheme(LABELS), lambda text: tuple(map(ord, text)))


ONE = make_request("the @tm gene", "GENE")
BOTH = make_request("the ATM", "DISEASE", "GENE")


def distribution(before: tuple[int, ...], choices: tuple[int, ...]) -> list[float]:
    """The probabilities of the choices after what stands before; some of them are near 0."""
    weights = [zlib.crc32(repr((before, choice)).encode()) ** 3 for choice in choices]
    return [weight / sum(weights) for weight in weights]


def enumerate_readings(
    grammar: Grammar,
    state: State | None = None,
    ids: tuple[int, ...] = (),
    mass: float = 1.0,
) -> Iterator[tuple[Spans, float]]:
    """Every reading with its probability."""
    state = State() if state is None else state
    choices = grammar.choices(state)
    if not choices:
        yield grammar.last_span(state), mass
        return
    for choice, share in zip(choices, distribution(ids, choices), strict=True):
        following, span = grammar.advance(state, choice)
        for spans, product in enumerate_readings(grammar, following, (*ids, choice), mass * share):
            yield ((span, *spans) if span else spans), product


def walked(walk: Walk, grammar: Grammar, guess: bool = False, ahead: int | None = None) -> dict[Spans, float]:
    """The readings of a walk with their shares, gone through as decoding does, draft by draft.

    guess: Draft the last choice wherever there is one, instead of the first.
    """
    shares: dict[Spans, float] = {}
    waiting: list[tuple] = [(walk.start(), State(), (), ())]
    while waiting:
        readings, state, ids, spans = waiting.pop()
        draft = grammar.draft(state, Last(grammar) if guess else None, ahead)
        taken = np.array([decision.taken for decision in draft.decisions], dtype=np.int64)
        staying, leaving = walk.follow(readings, probabilities(ids, draft), taken)
        branches = list(leaving)
        if staying is not None and draft.whole:
            reading = (*spans, *draft.spans)
            assert reading not in shares, "a reading is reached on one way only"
            shares[reading] = walk.share(staying)
        elif staying is not None and walk.goes_on(staying):
            branches.append(Branch(len(taken) - 1, int(taken[-1]), staying))
        for branch in branches:
            decision = draft.decisions[branch.decision]
            choice = decision.choices[branch.choice]
            following, span = grammar.advance(decision.state, choice)
            closed = (*spans, *decision.spans, *([span] if span else []))
            written = (*ids, *draft.ids[: decision.position], choice)
            waiting.append((branch.readings, following, written, closed))
    return shares


class Last(dict):
    """Guesses the last choice of every state."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar

    def __bool__(self) -> bool:
        return True

    def get(self, state: State, default: int) -> int:
        return self._grammar.choices(state)[-1]


def probabilities(before: tuple[int, ...], draft) -> Floats:
    rows = [distribution((*before, *draft.ids[: d.position]), d.choices) for d in draft.decisions]
    width = max(map(len, rows), default=1)
    return np.array([[*row, *[0.0] * (width - len(row))] for row in rows]).reshape(len(rows), width)


@pytest.mark.parametrize("request_", [ONE, BOTH, make_request("a", "GENE")])
def test_exact_votes_hold_every_reading(request_: Request) -> None:
    grammar = make_grammar(request_)
    expected = dict(enumerate_readings(grammar))
    shares = walked(Exact(0.0), grammar)
    assert shares == pytest.approx(expected)
    assert sum(shares.values()) == pytest.approx(1.0)


drafts = pytest.mark.parametrize(("guess", "ahead"), [(True, None), (False, 0), (True, 3), (False, 4)])


@drafts
def test_drafts_change_no_votes(guess: bool, ahead: int | None) -> None:
    """Whatever is drafted, and wherever a draft stops, the readings and their shares are the same."""
    for request in (ONE, BOTH):
        grammar = make_grammar(request)
        for walk in (Exact(0.0), Greedy(), Sampling(request, 200, seed=0)):
            assert walked(walk, grammar, guess, ahead) == pytest.approx(walked(walk, grammar))


@drafts
@pytest.mark.parametrize("min_mass", [0.001, 0.02, 0.3, 0.99])
def test_exact_votes_leave_out_what_is_improbable(min_mass: float, guess: bool, ahead: int | None) -> None:
    """Explored is what has at least `min_mass` as a whole, the greedy reading, and what is read on the way."""
    grammar = make_grammar(ONE)
    shares = walked(Exact(min_mass), grammar, guess, ahead)
    everything = dict(enumerate_readings(grammar))
    assert len(shares) < len(everything)
    assert shares == pytest.approx({reading: everything[reading] for reading in shares})
    assert {reading for reading, mass in everything.items() if mass >= min_mass} <= shares.keys()
    assert walked(Greedy(), grammar).keys() <= shares.keys()


@drafts
def test_exact_votes_of_many_unsure_mentions(guess: bool, ahead: int | None, monkeypatch) -> None:
    """No reading has `min_mass` where each of ten mentions is opened with 0.8 and closed with 0.7."""
    grammar = make_grammar(make_request(" ".join("abcdefghij"), "GENE"))

    def unsure(before: tuple[int, ...], choices: tuple[int, ...]) -> list[float]:
        return [0.3, 0.7] if ord("#") in choices else [0.2, 0.8]

    monkeypatch.setattr(sys.modules[__name__], "distribution", unsure)
    ((greedy, _),) = walked(Greedy(), grammar).items()
    assert len(greedy) == 10
    shares = walked(Exact(0.02), grammar, guess, ahead)
    assert greedy in shares
    for mention in greedy:
        assert sum(share for reading, share in shares.items() if mention in reading) > 0.3 * sum(shares.values())


def test_the_greedy_reading_takes_the_likeliest_choice() -> None:
    for request in (ONE, BOTH):
        grammar, state, ids, spans = make_grammar(request), State(), (), ()
        while choices := grammar.choices(state):
            choice = max(zip(distribution(ids, choices), choices, strict=True))[1]
            state, span = grammar.advance(state, choice)
            ids, spans = (*ids, choice), (*spans, *([span] if span else []))
        assert walked(Greedy(), grammar) == {(*spans, *grammar.last_span(state)): 1.0}


@pytest.mark.parametrize("request_", [ONE, BOTH])
def test_samples_have_the_distribution_of_the_readings(request_: Request) -> None:
    """Pearson's chi-square test at the level of one in a thousand, readings expected less than 8 times pooled."""
    k = 4000
    grammar = make_grammar(request_)
    expected = dict(enumerate_readings(grammar))
    drawn = walked(Sampling(request_, k, seed=0), grammar)
    assert sum(drawn.values()) == pytest.approx(1.0)
    assert drawn.keys() <= expected.keys()

    cells: dict[Spans | None, tuple[float, float]] = {}  # how often a reading was seen, and is expected
    for reading, mass in expected.items():
        cell = reading if k * mass >= 8 else None
        seen, wanted = cells.get(cell, (0.0, 0.0))
        cells[cell] = (seen + k * drawn.get(reading, 0.0), wanted + k * mass)
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in cells.values())
    freedom = len(cells) - 1
    assert freedom > 5
    # Wilson and Hilferty's approximation of the quantile at 0.999
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


def test_five_samples_are_the_first_five_of_ten() -> None:
    grammar = make_grammar(ONE)
    seen: dict[Spans, int] = {}
    for k in range(1, 11):
        counts = {reading: round(k * share) for reading, share in walked(Sampling(ONE, k, 0), grammar).items()}
        more = {reading: n - seen.get(reading, 0) for reading, n in counts.items()}
        assert sorted(more.values())[-1] == sum(more.values()) == 1, "one sample more, the others as before"
        assert seen.keys() <= counts.keys()
        seen = counts
    assert len(seen) > 1


def test_what_samples_depend_on() -> None:
    first = walked(Sampling(ONE, 50, seed=0), make_grammar(ONE))
    assert walked(Sampling(ONE, 50, seed=0), make_grammar(ONE)) == first
    assert walked(Sampling(ONE, 50, seed=1), make_grammar(ONE)) != first

    def drawn(request: Request) -> Floats:
        return Sampling(request, 5, seed=0)._numbers(Sampling(request, 5, seed=0).start(), 3)

    same = drawn(make_request("the @tm gene", "GENE"))
    assert (same == drawn(ONE)).all()
    assert not (same == drawn(make_request("the @tm gene", "DISEASE"))).any()
    assert not (same == drawn(make_request("the @tm genes", "GENE"))).any()


def test_the_numbers_of_a_sample_go_on_where_it_left() -> None:
    """However many decisions a draft has, the decision that a sample is at has the same number."""
    whole, parts = Sampling(ONE, 3, seed=0), Sampling(ONE, 3, seed=0)
    numbers = whole._numbers(whole.start(), 100)
    readings = parts.start()
    for n in (1, 7, 40, 52):
        start = readings.decisions
        assert (parts._numbers(readings, n) == numbers[:, start : start + n]).all()
        readings.decisions += n


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=1, max_size=4), st.integers(0, 20))
def test_samples_take_only_possible_choices(rows: list[list[float]], seed: int) -> None:
    """Also where probabilities are 0 or padded; the last possible choice has what rounding leaves."""
    table = np.array([[*row, *[0.0] * (4 - len(row))] for row in rows])
    table = table[table.sum(axis=1) > 0.01]
    if not len(table):
        return
    table /= table.sum(axis=1, keepdims=True) * 1.1
    taken = np.random.default_rng(seed).integers(0, 4, len(table))
    own = table[np.arange(len(table)), taken]
    walk = Sampling(ONE, 20, seed)
    staying, branches = walk.follow(walk.start(), table, taken)
    left = 0
    for branch in branches:
        assert branch.choice != taken[branch.decision]
        assert table[branch.decision, branch.choice] > 0
        assert (own[: branch.decision] > 0).all()
        left += len(branch.readings.indices)
    assert left + (0 if staying is None else len(staying.indices)) == 20
    assert staying is None or (own > 0).all()


def test_the_walk_of_a_setting() -> None:
    assert isinstance(make_walk(ONE, Voting(samples=None)), Exact)
    assert isinstance(make_walk(ONE, Voting(samples=1)), Greedy)
    assert isinstance(make_walk(ONE, Voting(samples=2)), Sampling)


def test_a_draft_without_decisions_is_followed() -> None:
    for walk in (Exact(0.0), Greedy(), Sampling(ONE, 3, 0)):
        staying, branches = walk.follow(walk.start(), np.zeros((0, 1)), np.zeros(0, dtype=np.int64))
        assert (walk.share(staying), list(branches)) == (1.0, [])


def test_the_readings_of_a_distribution_sum_to_one() -> None:
    """The enumeration that the tests compare with is complete."""
    readings: Mapping[Spans, float] = dict(enumerate_readings(make_grammar(BOTH)))
    assert sum(readings.values()) == pytest.approx(1.0)
    gene, disease = TokenSpan(1, 2, "GENE"), TokenSpan(0, 1, "DISEASE")
    assert {(), (gene,), (disease, gene), (TokenSpan(0, 2, "GENE"),)} <= readings.keys()

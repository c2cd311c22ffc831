"""Errors by kind, and mentions seen in training."""

from collections import Counter

import pytest
import spacy
from hypothesis import given
from test_evaluation_scores import char_spans

from spacy_nerllama.evaluation import CharSpan, DocSpans, count, count_relaxed
from spacy_nerllama.evaluation.errors_by_kind import KINDS, errors, tally
from spacy_nerllama.evaluation.mentions import Mention, count_seen, mentions, normalise

TEXT = "Severe ataxia of KCNH2"
ATAXIA, SEVERE, KCNH2 = (7, 13), (0, 13), (17, 22)


def doc(gold: list[tuple], predicted: list[tuple], text: str = TEXT) -> DocSpans:
    return DocSpans(text, tuple(CharSpan(*s) for s in gold), tuple(CharSpan(*s) for s in predicted))


@given(char_spans(), char_spans())
def test_errors_add_up_to_false_positives_and_false_negatives(gold, predicted) -> None:
    found = errors(doc(gold, predicted))
    strict, relaxed = count(predicted, gold), count_relaxed(predicted, gold)
    assert Counter(e.predicted for e in found if e.predicted) == Counter(set(predicted) - set(gold))
    assert Counter(e.gold for e in found if e.gold) == Counter(set(gold) - set(predicted))
    kinds = Counter(error.kind for error in found)
    assert strict.predicted - strict.right == sum(kinds.values()) - kinds["missed"]
    assert strict.gold - strict.right == sum(kinds.values()) - kinds["spurious"]
    assert kinds["boundary"] == relaxed.right - strict.right, "what relaxed scores forgive"


@pytest.mark.parametrize(
    ("gold", "predicted", "kinds"),
    [
        ([(*ATAXIA, "DISEASE")], [(*ATAXIA, "DISEASE")], []),
        ([(*SEVERE, "DISEASE")], [(*ATAXIA, "DISEASE")], ["boundary"]),
        ([(*ATAXIA, "DISEASE")], [(*ATAXIA, "GENE")], ["type"]),
        ([(*SEVERE, "DISEASE")], [(*ATAXIA, "GENE")], ["boundary+type"]),
        ([(*ATAXIA, "DISEASE")], [(*KCNH2, "GENE")], ["missed", "spurious"]),
        # Cut in two: one half is what was found of it, the other is one too many.
        ([(*SEVERE, "DISEASE")], [(0, 6, "DISEASE"), (*ATAXIA, "DISEASE")], ["boundary", "spurious"]),
        # The label decides what belongs together, then the place.
        ([(*SEVERE, "DISEASE")], [(0, 6, "GENE"), (*ATAXIA, "DISEASE")], ["spurious", "boundary"]),
    ],
)
def test_the_kind_of_an_error(gold, predicted, kinds) -> None:
    assert [error.kind for error in errors(doc(gold, predicted))] == kinds


def test_frequent_errors_come_together() -> None:
    docs = [
        doc([(*SEVERE, "DISEASE")], [(*ATAXIA, "DISEASE")]),
        doc([(*SEVERE, "DISEASE")], [(*ATAXIA, "DISEASE")], text="SEVERE\nATAXIA of KCNH2"),
        doc([], [(*KCNH2, "GENE")]),
    ]
    counts = tally(docs)
    assert set(counts) == set(KINDS)
    assert counts["boundary"] == {("severe ataxia DISEASE", "ataxia DISEASE"): 2}
    assert counts["spurious"] == {("", "kcnh2 GENE"): 1}
    assert counts["missed"] == {}


def test_mentions_are_compared_in_lower_case_with_single_spaces() -> None:
    assert normalise("Severe\n  ATAXIA") == "severe ataxia"
    nlp = spacy.blank("en")
    train = nlp.make_doc("SEVERE  ataxia")
    train.set_ents([spacy.tokens.Span(train, 0, len(train), "DISEASE")])
    assert mentions([train]) == {("severe ataxia", "DISEASE")}


@given(char_spans(), char_spans(), char_spans())
def test_seen_and_unseen_mentions_are_all_mentions(gold, predicted, train) -> None:
    text = "abcabcab abcabcab"
    known = {Mention(normalise(text[start:end]), label) for start, end, label in train}
    one = doc(gold, predicted, text)
    for label in ("DISEASE", "GENE"):
        seen, unseen = (count_seen(one, label, known, which) for which in (True, False))
        total = count([s for s in predicted if s.label == label], [s for s in gold if s.label == label])
        assert (seen + unseen).gold == total.gold
        assert (seen + unseen).right == total.right


def test_a_mention_is_seen_with_its_label() -> None:
    one = doc([(*ATAXIA, "DISEASE"), (*KCNH2, "GENE")], [(*ATAXIA, "DISEASE")])
    known = {Mention("ataxia", "DISEASE"), Mention("kcnh2", "DISEASE")}
    assert count_seen(one, "DISEASE", known, seen=True)[::2] == (1, 1)
    assert count_seen(one, "GENE", known, seen=True)[::2] == (0, 0)
    assert count_seen(one, "GENE", known, seen=False)[::2] == (0, 1)

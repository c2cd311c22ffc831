"""Spans on characters, and strict and relaxed scores: next to spaCy's scorer and seqeval."""

import itertools

import numpy as np
import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.v1 import precision_recall_fscore_support
from seqeval.scheme import IOB2
from spacy.scorer import get_ner_prf
from spacy.tokens import Doc, Span, SpanGroup
from spacy.training import Example, iob_utils
from strategies import plain_words, sentences, spans_of

from spacy_nerllama.evaluation import CharSpan, Counts, DocSpans, count, count_relaxed, doc_spans, score
from spacy_nerllama.evaluation.matching import pair_overlapping
from spacy_nerllama.evaluation.spans import gold_spans
from spacy_nerllama.requests import TokenSpan

LABELS = ["CHEMICAL", "DISEASE", "GENE"]
VOCAB = spacy.blank("en").vocab


@st.composite
def char_spans(draw: st.DrawFn, length: int = 16) -> tuple[CharSpan, ...]:
    """Spans of a text of so many characters that do not overlap; they may touch."""
    cuts = sorted(draw(st.sets(st.integers(0, length))))
    kinds = [draw(st.sampled_from([None, *LABELS])) for _ in cuts[1:]]
    return tuple(
        CharSpan(*place, label)
        for place, label in zip(itertools.pairwise(cuts), kinds, strict=False)
        if label is not None
    )


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Gold and predicted entities on the same tokens."""
    sentence = draw(sentences(plain_words))
    docs = []
    for _ in range(2):
        doc = Doc(VOCAB, words=list(sentence.words), spaces=list(sentence.spaces))
        doc.set_ents([Span(doc, start, end, label) for start, end, label in draw(spans_of(sentence, LABELS))])
        docs.append(doc)
    return Example(*docs)


def micro_of(docs: list[DocSpans], label: str) -> Counts:
    return score(
        ([s for s in doc.predicted if s.label == label], [s for s in doc.gold if s.label == label]) for doc in docs
    )


def overlap(one: CharSpan, other: CharSpan) -> bool:
    return one.start < other.end and other.start < one.end


def most_pairs(predicted: tuple[CharSpan, ...], gold: tuple[CharSpan, ...]) -> int:
    """The size of the largest one-to-one matching, by trying everything."""
    if not predicted:
        return 0
    first, rest = predicted[0], predicted[1:]
    return max(
        most_pairs(rest, gold),
        *(
            1 + most_pairs(rest, tuple(span for span in gold if span != other))
            for other in gold
            if overlap(first, other)
        ),
        0,
    )


@given(char_spans(), char_spans())
def test_pairs_overlap_and_none_could_be_added(predicted, gold) -> None:
    pairs = pair_overlapping(predicted, gold)
    assert all(overlap(*pair) for pair in pairs)
    assert all(len(set(side)) == len(side) for side in zip(*pairs, strict=True))
    assert len(pairs) == most_pairs(predicted, gold)


@given(char_spans(), char_spans())
def test_relaxed_is_never_below_strict(predicted, gold) -> None:
    strict, relaxed = count(predicted, gold), count_relaxed(predicted, gold)
    assert strict[1:] == relaxed[1:] == (len(predicted), len(gold))
    assert strict.right <= relaxed.right <= min(len(predicted), len(gold))
    assert strict.f1 <= relaxed.f1


@given(char_spans(), char_spans())
def test_labels_add_up(predicted, gold) -> None:
    for counter in (count, count_relaxed):
        by_label = [
            counter([s for s in predicted if s.label == label], [s for s in gold if s.label == label])
            for label in LABELS
        ]
        assert [sum(column) for column in zip(*by_label, strict=True)] == list(counter(predicted, gold))


@pytest.mark.parametrize(
    ("predicted", "gold", "right"),
    [
        ([(0, 5, "GENE")], [(4, 9, "GENE")], 1),  # one character will do
        ([(0, 5, "GENE")], [(5, 9, "GENE")], 0),  # touching is not overlapping
        ([(0, 5, "GENE")], [(0, 5, "DISEASE")], 0),  # the label counts
        ([(0, 2, "GENE"), (3, 5, "GENE")], [(0, 5, "GENE")], 1),  # a mention cut in two is found once
        ([(0, 5, "GENE")], [(0, 2, "GENE"), (3, 5, "GENE")], 1),  # two taken for one: one of them is found
    ],
)
def test_what_relaxed_means(predicted, gold, right) -> None:
    counts = count_relaxed([CharSpan(*span) for span in predicted], [CharSpan(*span) for span in gold])
    assert counts == (right, len(predicted), len(gold))


@given(st.lists(examples(), min_size=1, max_size=4))
def test_strict_scores_are_spacys_where_tokens_agree(cases: list[Example]) -> None:
    docs = [doc_spans(case) for case in cases]
    theirs = get_ner_prf(cases)
    ours = score((doc.predicted, doc.gold) for doc in docs)
    if theirs["ents_f"] is None:
        assert ours == (0, 0, 0)
        return
    assert [theirs[f"ents_{key}"] for key in "prf"] == pytest.approx([ours.precision, ours.recall, ours.f1])
    for label, scores in theirs["ents_per_type"].items():
        mine = micro_of(docs, label)
        assert [scores[key] for key in "prf"] == pytest.approx([mine.precision, mine.recall, mine.f1])


@given(st.lists(examples(), min_size=1, max_size=4))
def test_strict_scores_are_seqevals_on_the_same_tokens(cases: list[Example]) -> None:
    """Of seqeval: IOB2, mode strict."""
    tags = [[iob_utils.doc_to_biluo_tags(doc) for doc in (case.y, case.x)] for case in cases]
    gold, predicted = ([iob_utils.biluo_to_iob(doc) for doc in side] for side in zip(*tags, strict=True))

    def seqeval(average: str | None) -> list:
        return list(
            precision_recall_fscore_support(gold, predicted, scheme=IOB2, average=average, zero_division=0)
        )

    docs = [doc_spans(case) for case in cases]
    micro = score((doc.predicted, doc.gold) for doc in docs)
    labels = sorted({span.label for doc in docs for span in (*doc.gold, *doc.predicted)})
    by_label = [
        (one.precision, one.recall, one.f1, one.gold) for one in (micro_of(docs, label) for label in labels)
    ]
    assert seqeval("micro") == pytest.approx([micro.precision, micro.recall, micro.f1, micro.gold])
    assert list(zip(*seqeval(None), strict=True)) == [pytest.approx(row) for row in by_label]


def tokens(*words: str) -> Doc:
    """A doc without spaces, of these tokens."""
    return Doc(VOCAB, words=list(words), spaces=[False] * len(words))


def example(predicted: Doc, gold: Doc, found: list[tuple], true: list[tuple]) -> Example:
    for doc, spans in ((predicted, found), (gold, true)):
        doc.set_ents([doc.char_span(start, end, label=label) for start, end, label in spans])
    return Example(predicted, gold)


def test_half_of_a_gold_token_is_an_error() -> None:
    """spaCy's scorer widens a prediction to gold tokens, and finds nothing wrong."""
    case = example(tokens("KCNH2", "x"), tokens("KCNH2x"), [(0, 5, "GENE")], [(0, 6, "GENE")])
    assert get_ner_prf([case])["ents_f"] == pytest.approx(1)
    doc = doc_spans(case)
    assert doc.misaligned == 1
    assert count(doc.predicted, doc.gold) == (0, 1, 1)
    assert count_relaxed(doc.predicted, doc.gold) == (1, 1, 1)


def test_other_tokens_do_not_matter_where_characters_agree() -> None:
    case = example(tokens("KCN", "H2"), tokens("KCNH2"), [(0, 5, "GENE")], [(0, 5, "GENE")])
    doc = doc_spans(case)
    assert (doc.misaligned, count(doc.predicted, doc.gold)) == (0, (1, 1, 1))


def test_predictions_where_annotation_is_missing_are_left_out_as_by_spacy() -> None:
    predicted, gold = tokens("a", "b", "c"), tokens("a", "b", "c")
    predicted.set_ents([Span(predicted, i, i + 1, "GENE") for i in range(3)])
    gold.set_ents([Span(gold, 0, 1, "GENE")], missing=[gold[1:2]], default="outside")
    case = Example(predicted, gold)
    doc = doc_spans(case)
    assert doc.unannotated == 1
    assert count(doc.predicted, doc.gold) == (1, 2, 1)
    assert get_ner_prf([case])["ents_p"] == pytest.approx(0.5)


def test_labels_can_be_left_out() -> None:
    case = example(tokens("a", "b"), tokens("a", "b"), [(0, 1, "GENE"), (1, 2, "DISEASE")], [(1, 2, "DISEASE")])
    assert doc_spans(case, ["DISEASE"]).predicted == ((1, 2, "DISEASE"),)
    assert gold_spans(case.predicted, ["GENE"]) == ((0, 1, "GENE"),)


def test_votes_come_from_the_span_group() -> None:
    case = example(tokens("ab", "c"), tokens("ab", "c"), [], [(0, 2, "GENE")])
    assert doc_spans(case) == DocSpans("abc", ((0, 2, "GENE"),), ())
    doc = case.predicted
    candidates = [Span(doc, 0, 1, "GENE"), Span(doc, 0, 2, "DISEASE")]
    doc.spans["sc"] = SpanGroup(doc, spans=candidates, attrs={"scores": [0.75, 0.25]})
    assert doc_spans(case).votes is None, "another key"
    read = doc_spans(case, ["GENE"], spans_key="sc")
    assert read.votes == {TokenSpan(0, 1, "GENE"): 0.75, TokenSpan(0, 2, "DISEASE"): 0.25}
    assert read.chars == {TokenSpan(0, 1, "GENE"): (0, 2, "GENE")}, "judged are those of the labels"


@pytest.mark.parametrize(
    "scores",
    [
        [0.5],
        [0.5, 0.5, 0.5],
        [None, 0.5],
        [0.5, float("nan")],
        [0.5, float("inf")],
        [[0.5, 0.5], [0.5, 0.5]],
        [[0.5], [0.5, 0.5]],
        {0: 0.5, 1: 0.5},
        ["0.5", "0.5"],
        0.5,
        None,
    ],
)
def test_scores_that_are_no_votes_cost_the_votes_alone(scores: object) -> None:
    """Whoever set them, another component or a user, the strict scores are still to be had."""
    case = example(tokens("ab", "c"), tokens("ab", "c"), [(0, 2, "GENE")], [(0, 2, "GENE")])
    doc = case.predicted
    spans = [Span(doc, 0, 1, "GENE"), Span(doc, 0, 2, "DISEASE")]
    doc.spans["nerllama"] = SpanGroup(doc, spans=spans, attrs={"scores": scores})
    read = doc_spans(case)
    assert (read.votes, read.unread) == (None, True)
    assert count(read.predicted, read.gold) == (1, 1, 1)


@pytest.mark.parametrize("scores", [(1, 0), np.array([1, 0], dtype="float32"), np.array([1, 0])])
def test_votes_may_be_any_vector_of_numbers(scores: object) -> None:
    case = example(tokens("ab", "c"), tokens("ab", "c"), [], [])
    spans = [Span(case.predicted, 0, 1, "GENE"), Span(case.predicted, 0, 2, "GENE")]
    case.predicted.spans["nerllama"] = SpanGroup(case.predicted, spans=spans, attrs={"scores": scores})
    assert doc_spans(case).votes == {TokenSpan(0, 1, "GENE"): 1.0, TokenSpan(0, 2, "GENE"): 0.0}


def test_no_candidates_are_votes_too() -> None:
    case = example(tokens("ab"), tokens("ab"), [], [])
    case.predicted.spans["nerllama"] = SpanGroup(case.predicted, attrs={"scores": []})
    assert doc_spans(case).votes == {}


def test_another_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="NL094"):
        doc_spans(Example(tokens("ab"), tokens("a", "b", "c")))

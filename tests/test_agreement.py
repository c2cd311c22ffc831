"""The sentences of a doc agree on words that come again; nothing else of their votes changes."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc
from spacy.vocab import Vocab
from strategies import PLAIN, sentences, spans_of

from spacy_nerllama.agreement import Answer, agree, doc_votes
from spacy_nerllama.requests import Request, Sentence, TokenSpan, doc_requests
from spacy_nerllama.voting import DEFAULT_THRESHOLD, Votes, elect

Read = list[tuple[int, Sentence]]
VOCAB = Vocab()


def read(*texts: str) -> Read:
    """Sentences, each with the doc's token at which it begins."""
    words = [tuple(text.split()) for text in texts]
    starts = accumulate(map(len, words), initial=0)
    return [(start, Sentence(each, (True,) * len(each))) for start, each in zip(starts, words, strict=False)]


def test_a_vote_moves_halfway_to_the_mean_of_all_occurrences() -> None:
    sentences = read("ATM is mutated .", "Loss of ATM", "The ATM")
    first, second, third = TokenSpan(0, 1, "GENE"), TokenSpan(6, 7, "GENE"), TokenSpan(8, 9, "GENE")
    votes = agree({first: 0.9, second: 0.7, third: 0.4}, sentences, 0.5)
    mean = 2 / 3
    assert votes == pytest.approx(
        {first: (0.9 + mean) / 2, second: (0.7 + mean) / 2, third: (0.4 + mean) / 2}, abs=1e-12
    )
    assert elect(votes, {}) == [first, second, third]


def test_an_occurrence_without_a_vote_counts_and_gets_none() -> None:
    span = TokenSpan(0, 1, "GENE")
    assert agree({span: 0.8}, read("ATM fell .", "cash from the ATM"), 0.5) == {span: pytest.approx(0.6)}


def test_words_of_a_longer_mention_are_no_occurrence() -> None:
    sentences = read("diabetes insipidus is rare .", "diabetes is not .")
    long, inside, alone = (TokenSpan(*place, "DISEASE") for place in ((0, 2), (0, 1), (5, 6)))
    votes = {long: 0.8, inside: 0.1, alone: 0.9}
    assert agree(votes, sentences, 0.5) == votes

    doubtful = {long: 0.4, inside: 0.1, alone: 0.9}  # no majority: that "diabetes" is a mention of its own is open
    assert agree(doubtful, sentences, 0.5) == pytest.approx({long: 0.4, inside: 0.3, alone: 0.7})


def test_upper_and_lower_case_are_different_words() -> None:
    votes = {TokenSpan(0, 1, "GENE"): 0.9, TokenSpan(2, 3, "GENE"): 0.1}
    assert agree(votes, read("CAT fell", "cat fell"), 0.5) == votes


def test_labels_agree_each_for_itself() -> None:
    gene, disease = TokenSpan(0, 1, "GENE"), TokenSpan(2, 3, "DISEASE")
    votes = agree({gene: 0.8, disease: 0.6}, read("ATM fell", "ATM fell"), 0.5)
    assert votes == pytest.approx({gene: 0.6, disease: 0.45})


def test_what_was_read_as_a_whole_stays() -> None:
    """Of a single sentence, and of a doc to which a model has one answer, the model has seen all occurrences."""
    doc = Doc(VOCAB, words="ATM is one . Not this ATM .".split(), sent_starts=[1, 0, 0, 0, 1, 0, 0, 0])
    whole = list(doc_requests(doc, {"GENE": "gene"}, answers=lambda request: True))
    ((start, request),) = whole
    votes = {TokenSpan(0, 1, "GENE"): 0.9, TokenSpan(6, 7, "GENE"): 0.1}
    assert doc_votes([Answer(start, request, Votes(votes))], 0.5) == votes
    by_sentence = [Request(sentence, request.labels) for _, sentence in read("ATM is one .", "Not this ATM .")]
    answers = [
        Answer(0, by_sentence[0], Votes({TokenSpan(0, 1, "GENE"): 0.9})),
        Answer(4, by_sentence[1], Votes({TokenSpan(2, 3, "GENE"): 0.1})),
    ]
    assert doc_votes(answers, 0.5) == pytest.approx({TokenSpan(0, 1, "GENE"): 0.7, TokenSpan(6, 7, "GENE"): 0.3})
    assert doc_votes(answers, 0.0) == votes


@st.composite
def voted_docs(draw: st.DrawFn) -> tuple[Read, dict[TokenSpan, float]]:
    """Sentences of a few words that come again and again, and votes for spans within them."""
    found, votes, start = Read(), dict[TokenSpan, float](), 0
    for sentence in draw(st.lists(sentences(st.sampled_from(PLAIN[:3])), min_size=1, max_size=5)):
        found.append((start, sentence))
        for reading in draw(st.lists(spans_of(sentence, ["GENE", "DISEASE"]), max_size=3)):
            for span in reading:
                place = TokenSpan(span.start + start, span.end + start, span.label)
                votes[place] = draw(st.floats(0, 1, exclude_min=True))
        start += len(sentence.words)
    return found, votes


@given(voted_docs(), st.floats(0, 0.99))
def test_agreeing_moves_votes_and_nothing_else(doc: tuple[Read, dict[TokenSpan, float]], agreement: float) -> None:
    sentences, votes = doc
    agreed = agree(votes, sentences, agreement)
    assert agreed.keys() == votes.keys()
    assert all(0 <= vote <= 1 for vote in agreed.values())
    words = [word for _, sentence in sentences for word in sentence.words]
    for span, vote in agreed.items():
        text = words[span.start : span.end]
        same = [v for s, v in votes.items() if s.label == span.label and words[s.start : s.end] == text]
        assert vote <= max(same) + 1e-12
        assert vote >= (1 - agreement) * votes[span] - 1e-12
    assert agree(votes, sentences[::-1], agreement) == agreed


@given(voted_docs(), st.floats(0, 0.5))
def test_a_single_reading_is_not_outvoted(doc: tuple[Read, dict[TokenSpan, float]], agreement: float) -> None:
    """One greedy reading has votes of 1 only: agreement gives confidences, and changes no entity."""
    sentences, votes = doc
    reading = dict.fromkeys(elect(votes, {"GENE": 0.0, "DISEASE": 0.0}), 1.0)
    agreed = agree(reading, sentences, agreement)
    assert elect(agreed, {}) == sorted(reading)
    assert all(vote >= DEFAULT_THRESHOLD for vote in agreed.values())

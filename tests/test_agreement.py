"""The sentences of a doc agree on words that come again; nothing else of their votes changes."""

from itertools import accumulate, chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc
from spacy.vocab import Vocab
from strategies import PLAIN, sentences, spans_of

from spacy_nerllama.agreement import Answered, agree, doc_votes
from spacy_nerllama.requests import Request, Sentence, TokenSpan, doc_requests
from spacy_nerllama.voting import DEFAULT_THRESHOLD, Votes, elect

Read = list[tuple[int, Sentence]]
VOCAB = Vocab()
LABELS = ("GENE", "DISEASE")


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


@pytest.mark.parametrize(("vote", "n"), [(0.9, 9), (0.85, 13), (0.45, 9)])
def test_votes_that_agree_stay_as_they_are(vote: float, n: int) -> None:
    """Their mean may be a bit below them, and below a threshold that they reach."""
    spans = [TokenSpan(2 * i, 2 * i + 1, "GENE") for i in range(n)]
    assert agree(dict.fromkeys(spans, vote), read(*["ATM fell"] * n), 0.5) == dict.fromkeys(spans, vote)


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


def test_words_around_a_shorter_mention_are_an_occurrence() -> None:
    """Where a mention begins is what sentences disagree about most."""
    long, short = TokenSpan(0, 3, "DISEASE"), TokenSpan(5, 6, "DISEASE")
    votes = agree({long: 1.0, short: 1.0}, read("type 2 diabetes", "type 2 diabetes"), 0.5)
    assert votes == pytest.approx({long: 0.75, short: 1.0})


def test_upper_and_lower_case_are_different_words() -> None:
    votes = {TokenSpan(0, 1, "GENE"): 0.9, TokenSpan(2, 3, "GENE"): 0.1}
    assert agree(votes, read("CAT fell", "cat fell"), 0.5) == votes


def test_labels_agree_each_for_itself() -> None:
    gene, disease = TokenSpan(0, 1, "GENE"), TokenSpan(2, 3, "DISEASE")
    votes = agree({gene: 0.8, disease: 0.6}, read("ATM fell", "ATM fell"), 0.5)
    assert votes == pytest.approx({gene: 0.6, disease: 0.45})


def test_occurrences_in_one_sentence_stay() -> None:
    """The model has seen all of them, whatever else the doc has."""
    votes = {TokenSpan(0, 1, "GENE"): 0.9, TokenSpan(4, 5, "GENE"): 0.1}
    assert agree(votes, read("ATM is not this ATM"), 0.5) == votes
    assert agree(votes, read("ATM is not this ATM", "Yes ."), 0.5) == votes


def test_labels_of_one_request_agree_too() -> None:
    labels = (("GENE", "gene"), ("DISEASE", "disease"))
    votes = {"GENE": (0.8, 0.4), "DISEASE": (0.1, 0.3)}
    answered = [
        Answered(
            start, Request(sentence, labels), Votes({TokenSpan(0, 1, label): votes[label][i] for label in votes})
        )
        for i, (start, sentence) in enumerate(read("ATM fell", "ATM rose"))
    ]
    assert doc_votes(answered, 0.5) == pytest.approx(
        {
            TokenSpan(0, 1, "GENE"): 0.7,
            TokenSpan(2, 3, "GENE"): 0.5,
            TokenSpan(0, 1, "DISEASE"): 0.15,
            TokenSpan(2, 3, "DISEASE"): 0.25,
        }
    )


def test_a_sentence_without_a_reading_says_nothing() -> None:
    """An unusable response, or no record of a sentence, is no vote against what other sentences hold."""
    gene = (("GENE", "gene"),)
    (first, mentions), (second, same) = read("ATM fell", "ATM rose")
    held = Answered(first, Request(mentions, gene), Votes({TokenSpan(0, 1, "GENE"): 0.7}))
    silent = Answered(second, Request(same, gene), Votes(answered=False))
    against = Answered(second, Request(same, gene), Votes())
    assert doc_votes([held, silent], 0.5) == {TokenSpan(0, 1, "GENE"): 0.7}
    assert doc_votes([held, against], 0.5) == pytest.approx({TokenSpan(0, 1, "GENE"): 0.525})


def test_what_was_read_as_a_whole_stays() -> None:
    """A model has one answer to the doc for GENE, and is asked for DISEASE sentence by sentence."""
    doc = Doc(VOCAB, words="ATM is one . Not this ATM .".split(), sent_starts=[1, 0, 0, 0, 1, 0, 0, 0])
    names = {"GENE": "gene", "DISEASE": "disease"}
    requests = list(doc_requests(doc, names, answers=lambda request: request.labels[0][0] == "GENE"))
    votes = [
        Votes({TokenSpan(0, 1, "GENE"): 0.9, TokenSpan(6, 7, "GENE"): 0.1}),
        Votes({TokenSpan(0, 1, "DISEASE"): 0.9}),
        Votes({TokenSpan(2, 3, "DISEASE"): 0.1}),
    ]
    answered = [Answered(*each, found) for each, found in zip(requests, votes, strict=True)]
    places = [TokenSpan(i, i + 1, label) for label in names for i in (0, 6)]
    assert doc_votes(answered, 0.5) == pytest.approx(dict(zip(places, (0.9, 0.1, 0.7, 0.3), strict=True)))
    assert doc_votes(answered, 0.0) == dict(zip(places, (0.9, 0.1, 0.9, 0.1), strict=True))


@st.composite
def voted_docs(draw: st.DrawFn) -> tuple[Read, dict[TokenSpan, float]]:
    """Sentences of a few words that come again and again, and votes for spans within them."""
    found, votes, start = Read(), dict[TokenSpan, float](), 0
    for sentence in draw(st.lists(sentences(st.sampled_from(PLAIN[:3])), min_size=1, max_size=5)):
        found.append((start, sentence))
        for reading in draw(st.lists(spans_of(sentence, LABELS), max_size=3)):
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
    """Of one greedy reading for each label all votes are 1: agreement changes none of its entities."""
    sentences, votes = doc
    readings = [
        elect({span: vote for span, vote in votes.items() if span.label == label}, {label: 0.0})
        for label in LABELS
    ]
    agreed = agree(dict.fromkeys(chain(*readings), 1.0), sentences, agreement)
    assert all(vote >= DEFAULT_THRESHOLD for vote in agreed.values())
    for label, reading in zip(LABELS, readings, strict=True):
        assert elect({span: vote for span, vote in agreed.items() if span.label == label}, {}) == reading

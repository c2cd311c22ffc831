"""Sentences longer than a model can read: nothing is truncated, and every span comes back in its place."""

import warnings
from collections.abc import Iterable, Iterator
from itertools import cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorder import DISEASE, GENE, Recorder, make_job, sentence
from strategies import sentences

from spacy_nerllama.examples import Example
from spacy_nerllama.grammar import Grammar
from spacy_nerllama.marking import SINGLE
from spacy_nerllama.models import Llama
from spacy_nerllama.models.decoding import Job, decode
from spacy_nerllama.models.walks import make_walk
from spacy_nerllama.models.windows import in_windows
from spacy_nerllama.prompts import CompactPrompt, PaperPrompt
from spacy_nerllama.requests import Request, Sentence, TokenSpan
from spacy_nerllama.voting import Votes, Voting, shift

WORDS = "Of 200 carriers of the ATM mutation only few had ataxia before low doses of lithium were given to them ."


def whole_window(jobs: Iterable[Job]) -> Iterator[Votes]:
    """Votes for one span, which is all of the window."""
    for job in jobs:
        yield Votes({TokenSpan(0, len(job.grammar.sentence.words), "GENE"): 1.0}, 0.1)


def windows_of(encoder, requests: Iterable[Request], limit: int) -> Iterator[list[TokenSpan]]:
    votes = in_windows(requests, lambda request: make_job(encoder, request, Voting()), whole_window, limit)
    return (sorted(answer.spans) for answer in votes)


def size(encoder, words: Sentence) -> int:
    return make_job(encoder, Request(words, GENE), Voting()).size


def test_a_long_sentence_is_whole_and_a_text_without_full_stops_is_not(encoder) -> None:
    """However much there is room for: the time of a window grows with the square of its length."""
    words = WORDS.removesuffix(" .").split()
    long, endless = (Request(sentence(" ".join(islice(cycle(words), n))), GENE) for n in (200, 1500))
    spans, cut = windows_of(encoder, [long, endless], 100_000)
    assert spans == [(0, 200, "GENE")]
    assert len(cut) == 8
    assert [start for start, _, _ in cut] == [0, *(end for _, end, _ in cut[:-1])]


def test_a_sentence_that_fits_is_one_window(encoder) -> None:
    request = Request(sentence(WORDS), GENE)
    fits = size(encoder, request.sentence)
    (spans,) = windows_of(encoder, [request], fits)
    assert spans == [(0, 21, "GENE")]
    (spans,) = windows_of(encoder, [request], fits - 1)
    assert spans == [(0, 10, "GENE"), (10, 21, "GENE")]


@given(sentences(max_size=20), st.integers(20, 120))
def test_windows_are_the_whole_sentence(encoder, whole: Sentence, limit: int) -> None:
    """In order, each within the limit. Left out are white space at edges, and tokens too long, with a warning."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        (spans,) = windows_of(encoder, [Request(whole, GENE)], limit)
    end, lost = 0, 0
    for span in [*spans, TokenSpan(len(whole.words), len(whole.words), "GENE")]:
        assert span.start >= end
        lost += sum(not word.isspace() for word in whole.words[end : span.start])
        end = span.end
        if span.start < end:
            assert size(encoder, Sentence(whole.words[span.start : end], whole.spaces[span.start : end])) <= limit
    assert len(warned) == lost
    assert all(str(each.message).startswith("[NLW001]") for each in warned)


def test_a_token_too_long_is_left_out_with_a_warning(encoder) -> None:
    long = "ATG" * 400
    request = Request(Sentence(("the", long, "and", "ATM"), (True,) * 4), GENE)
    with pytest.warns(UserWarning, match=r"^\[NLW001\] A token of 1200 characters .*max_batch_tokens"):
        (spans,) = windows_of(encoder, [request], 100)
    assert spans == [(0, 1, "GENE"), (2, 4, "GENE")]


def test_a_prompt_that_leaves_no_room_is_an_error(encoder) -> None:
    """Not an empty result with a warning for each word, which would look like a text without mentions."""
    prompt = PaperPrompt(tuple(Example(sentence(f"{WORDS} ( {n} )"), ()) for n in range(9)), n_examples=9)

    def make(request: Request) -> Job:
        text = prompt(request)._replace(system=None)
        return Job(encoder.prompt(text), Grammar(request, SINGLE, encoder.piece), make_walk(request, Voting()))

    requests = [Request(sentence("Neither TP53 nor MDM2 was expressed"), GENE)]
    with pytest.raises(ValueError, match=r"^\[NL048\] .*into 256 .*max_batch_tokens.*fewer in-context examples"):
        list(in_windows(requests, make, whole_window, 256))
    (votes,) = in_windows(requests, make, whole_window, 1024)
    assert len(votes.spans) == 1


def test_order_is_kept_whatever_fits(encoder) -> None:
    """Also where a sentence has no window at all, at the beginning, in between and at the end."""
    one, whole, none = "ATM", WORDS, "ATG" * 400
    limit = size(encoder, sentence(WORDS)) - 1
    for texts in ([one, whole], [none, one, none, none, whole, none], [none], [none, none, one], []):
        requests = [Request(sentence(text), GENE) for text in texts]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = [len(spans) for spans in windows_of(encoder, requests, limit)]
        assert found == [{one: 1, whole: 2, none: 0}[text] for text in texts]


def test_requests_are_a_stream(encoder) -> None:
    def endless() -> Iterator[Request]:
        while True:
            yield Request(sentence(WORDS), GENE)

    assert list(islice(windows_of(encoder, endless(), 10_000), 3)) == [[(0, 21, "GENE")]] * 3


def test_what_windows_left_unexplored(encoder) -> None:
    """The most that any of them left."""
    shares = iter([0.1, 0.3, 0.2, 0.0])

    def votes(jobs: Iterable[Job]) -> Iterator[Votes]:
        return (Votes({}, next(shares)) for _ in jobs)

    requests = [Request(sentence(WORDS), GENE)]
    limit = size(encoder, sentence(WORDS)) // 2
    (answer,) = in_windows(requests, lambda request: make_job(encoder, request, Voting()), votes, limit)
    assert answer == Votes({}, 0.3)


def test_a_window_that_failed_is_that_of_its_request(encoder) -> None:
    """And the next request gets its own votes."""
    error = ConnectionError("no answer")
    answers = iter([Votes(), error, Votes(), Votes(), Votes({}, 0.5)])
    limit = size(encoder, sentence(WORDS)) // 2
    requests = [Request(sentence(WORDS), GENE), Request(sentence("ATM"), GENE)]
    votes = in_windows(
        requests,
        lambda request: make_job(encoder, request, Voting()),
        lambda jobs: (next(answers) for _ in jobs),
        limit,
    )
    assert list(votes) == [error, Votes({}, 0.5)]


def test_a_model_reads_in_windows(tiny: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the model, with the least memory that the component allows; each window reads as a sentence."""
    encoder, engine, *_ = tiny.load()
    recorder = Recorder(engine)
    requests = [Request(sentence(WORDS), labels) for labels in (DISEASE, GENE)]
    with monkeypatch.context() as patch:
        patch.setattr(engine, "score", recorder.score)
        found = list(tiny.vote(requests, CompactPrompt(), Voting(), 64))
    assert max(recorder.batches) <= 64

    for request, votes in zip(requests, found, strict=True):
        (cut,) = windows_of(encoder, [request], 64)
        assert len(cut) > 2
        expected: dict[TokenSpan, float] = {}
        for start, end, _ in cut:
            part = Sentence(request.sentence.words[start:end], request.sentence.spaces[start:end])
            (alone,) = decode([make_job(encoder, Request(part, request.labels), Voting())], engine, 1.0, 4096)
            expected.update(shift(alone.spans, start))
        assert votes.spans == pytest.approx(expected, abs=1e-4)

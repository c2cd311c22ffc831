"""The cache: what was answered before is answered again, to the last bit, and nothing else is."""

import json
import sqlite3
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from recorder import DISEASE, GENE, sentence
from strategies import sentences

from spacy_nerllama.marking import SINGLE
from spacy_nerllama.models import cache as cache_module
from spacy_nerllama.models.cache import Cache, Recorder, request_key, text_key
from spacy_nerllama.models.llama import Llama
from spacy_nerllama.models.records import Record
from spacy_nerllama.models.texts import count_votes
from spacy_nerllama.pipe import NerLlama
from spacy_nerllama.prompts import CompactPrompt, InstructPrompt
from spacy_nerllama.requests import Request, Sentence, TokenSpan
from spacy_nerllama.voting import Votes, Voting

REQUESTS = [Request(sentence(f"Case {i} had ataxia."), labels) for i in range(6) for labels in (DISEASE, GENE)]


class Counting:
    """Votes that tell how often and for what they were asked; each time they are different."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def __call__(self, requests: Iterable[Request]) -> Iterator[Votes | Exception]:
        for request in requests:
            self.asked.append(request)
            yield Votes({TokenSpan(0, 1, request.labels[0][0]): 1 / (2 + len(self.asked))}, 0.1)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "folder" / "cache.db")


def through(cache: Cache, vote: Any, requests: Iterable[Request] = REQUESTS) -> list[Votes | Exception]:
    return list(cache.through(vote, text_key, SINGLE)(requests))


# What is kept


@given(sentences(), st.data())
def test_an_answer_comes_back_to_the_last_bit(source: Sentence, data: st.DataObject) -> None:
    """Votes with offsets for marked decoding, texts for models that write: each as a line, read again."""
    visible = [i for i, word in enumerate(source.words) if not word.isspace()]
    request = Request(source, (*DISEASE, *GENE))
    if visible:
        span = st.tuples(st.sampled_from(visible), st.sampled_from(visible), st.sampled_from(["DISEASE", "GENE"]))
        spans = data.draw(st.dictionaries(span, st.floats(0, 1, exclude_min=True)))
        votes = Votes({TokenSpan(min(i, j), max(i, j) + 1, x): v for (i, j, x), v in spans.items()}, 0.25)
        record = Record.of(request, votes)
        again = Record.from_line(record.to_line(), Path("cache"), 1)
        assert again == record
        assert again.votes_on(request, SINGLE)[0] == votes
    responses = tuple(data.draw(st.lists(st.text(), min_size=1, max_size=3)))
    votes, _ = count_votes(Request(source, GENE), responses, SINGLE)
    again = Record.from_line(Record.of(Request(source, GENE), votes).to_line(), Path("cache"), 1)
    assert again.responses == responses
    assert again.votes_on(Request(source, GENE), SINGLE)[0] == votes


def test_a_line_of_half_a_character_can_be_written() -> None:
    request = Request(sentence("p53 fell."), GENE)
    record = Record.of(request, count_votes(request, ["\ud83d β"], SINGLE)[0])
    assert Record.from_line(record.to_line().encode("utf8").decode("utf8"), Path("x"), 1) == record
    assert "β" in Record(text="β", labels=("GENE",)).to_line()


@pytest.mark.parametrize(
    "voting", [Voting(1), Voting(5, seed=3), Voting()], ids=["greedy", "samples", "exact votes"]
)
def test_a_hit_is_the_answer_of_the_local_model(tiny: Llama, cache: Cache, voting: Voting) -> None:
    key = request_key(CompactPrompt(), voting, 4096, tiny)

    def vote(requests: Iterable[Request]) -> Iterator[Votes]:
        return tiny.vote(requests, CompactPrompt(), voting, 4096)

    expected = list(vote(REQUESTS))
    assert any(votes.spans for votes in expected)
    assert list(cache.through(vote, key, SINGLE)(REQUESTS)) == expected
    unasked = cache.through(lambda requests: pytest.fail("it was asked again"), key, SINGLE)
    assert list(unasked(REQUESTS)) == expected


def test_each_request_is_asked_once_and_its_first_answer_stays(cache: Cache) -> None:
    vote = Counting()
    first = through(cache, vote, REQUESTS[:4])
    assert through(cache, vote, [*REQUESTS, *REQUESTS[:2]])[:4] == first
    assert vote.asked == REQUESTS
    twice = through(cache, vote, [Request(sentence("New."), GENE)] * 2)
    assert twice[0] == twice[1]


def test_a_prompt_is_written_once_for_its_key(cache: Cache) -> None:
    made = []
    list(cache.through(Counting(), lambda request: made.append(request) or text_key(request), SINGLE)(REQUESTS))
    assert made == REQUESTS


def test_errors_are_not_kept(cache: Cache) -> None:
    error = ConnectionError("for good")
    assert through(cache, lambda requests: (error for _ in requests)) == [error] * len(REQUESTS)
    vote = Counting()
    through(cache, vote)
    assert vote.asked == REQUESTS


def test_a_model_that_leaves_out_answers_is_found_out(cache: Cache) -> None:
    vote = Counting()
    through(cache, vote, REQUESTS[1:3])
    with pytest.raises(ValueError, match=r"^\[NL207\]"):
        through(cache, lambda requests: islice(list(vote(requests)), 1))


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 8), st.integers(1, 5))
def test_answers_are_in_order_whatever_is_kept(kept: list[bool], ahead: int, most: int) -> None:
    """And whatever the model takes ahead; streams end early so that not too many wait."""
    requests = [Request(Sentence((f"w{i}",), (False,)), GENE) for i in range(len(kept))]
    answers = {r: Votes({TokenSpan(0, 1, "GENE"): 1 / (i + 1)}) for i, r in enumerate(requests)}
    held = 0

    def vote(asked: Iterable[Request]) -> Iterator[Votes]:
        asked = iter(asked)
        while batch := list(islice(asked, ahead)):
            yield from (answers[request] for request in batch)

    def taken() -> Iterator[Request]:
        nonlocal held
        for request in requests:
            held += 1
            yield request

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "MOST_WAITING", most)
        found = {request: answers[request] for request, is_kept in zip(requests, kept, strict=True) if is_kept}
        store = Dictionary({text_key(request): Record.of(request, votes) for request, votes in found.items()})
        stream = cache_module._answers(taken(), vote, text_key, SINGLE, store)  # type: ignore[arg-type]
        for i, votes in enumerate(stream):
            assert votes == answers[requests[i]]
            assert held - i <= most + ahead + 1
        assert held == len(requests)


class Dictionary(dict):
    """A store without a file."""

    def put(self, key: str, record: Record) -> Record:
        return self.setdefault(key, record)

    def close(self) -> None:
        pass


# What an answer depends on


class Model:
    def __init__(self, name: str = "model") -> None:
        self.fingerprint = lambda: name


def test_the_key_tells_apart_what_answers_depend_on() -> None:
    request = REQUESTS[0]
    spaced = Sentence(request.sentence.words, (True,) * len(request.sentence.words))
    keys = [
        request_key(CompactPrompt(), Voting(), 4096, Model())(request),
        request_key(CompactPrompt(), Voting(), 4096, Model())(Request(request.sentence, GENE)),
        request_key(CompactPrompt(), Voting(), 4096, Model())(Request(request.sentence, (("DISEASE", "d"),))),
        request_key(CompactPrompt(), Voting(), 4096, Model())(Request(spaced, request.labels)),
        request_key(InstructPrompt(), Voting(), 4096, Model())(request),
        request_key(CompactPrompt(), Voting(), 512, Model())(request),
        request_key(CompactPrompt(), Voting(), 4096, Model("other"))(request),
        *(
            request_key(CompactPrompt(), voting, 4096, Model())(request)
            for voting in (Voting(5), Voting(5, seed=1), Voting(min_mass=0.1), Voting(temperature=0.5))
        ),
    ]
    assert len(set(keys)) == len(keys)
    assert request_key(CompactPrompt(), Voting(threshold=0.9), 4096, Model())(request) == keys[0]


def test_models_are_told_apart_by_base_adapter_and_numbers(tiny_base: Path, tiny_adapter: Path) -> None:
    def fingerprint(**settings: Any) -> str:
        return Llama(str(tiny_base), **{"dtype": "float32", "device": "cpu", **settings}).fingerprint()

    fingerprints = [
        fingerprint(),
        fingerprint(adapter=str(tiny_adapter)),
        fingerprint(dtype="bfloat16"),
        fingerprint(quantization="nf4"),
    ]
    assert len(set(fingerprints)) == 4
    assert fingerprint() == fingerprints[0], "it is the same in another object"


def test_a_model_that_cannot_be_told_from_others_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^\[NL202\] .*object"):
        request_key(CompactPrompt(), Voting(), 4096, object())


# In the component


def found(docs: Iterable[Any]) -> list[Any]:
    return [
        [(s.start, s.end, s.label_, v) for s, v in zip(g, g.attrs["scores"], strict=True)]
        for g in (doc.spans["nerllama"] for doc in docs)
    ]


TEXTS = [f"Mutations of the ATM gene cause ataxia in case {i}." for i in range(6)]


def test_the_component_asks_its_model_once(
    tiny_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache.db"
    config = {**tiny_config, "cache": {"@misc": "nerllama.Cache.v1", "path": str(path)}}
    plain, first, second = (spacy.blank("en") for _ in range(3))
    plain.add_pipe("nerllama_ner", config=tiny_config)
    first.add_pipe("nerllama_ner", config=config)
    second.add_pipe("nerllama_ner", config=config)
    assert found(first.pipe(TEXTS)) == found(plain.pipe(TEXTS))
    expected = found(first.pipe(TEXTS))
    monkeypatch.setattr(Llama, "load", lambda self: pytest.fail("the model was loaded"))
    assert found(second.pipe(TEXTS)) == expected
    assert second.get_pipe("nerllama_ner").cache.path == path
    second.to_disk(tmp_path / "pipeline")
    assert found(spacy.load(tmp_path / "pipeline").pipe(TEXTS)) == expected


def test_several_processes_share_a_cache(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    nlp = spacy.blank("en")
    nlp.add_pipe(
        "nerllama_ner", config={**tiny_config, "cache": {"@misc": "nerllama.Cache.v1", "path": str(path)}}
    )
    expected = found(nlp.pipe(TEXTS[:3]))
    docs = found(nlp.pipe(TEXTS * 2, n_process=2, batch_size=2))
    assert docs[:3] == expected
    assert docs[6:] == docs[:6]
    with sqlite3.connect(path) as file:
        assert file.execute("SELECT count(*) FROM answers").fetchone() == (len(TEXTS) * 2,)


def test_a_model_that_is_missing_is_the_fault_of_no_doc(tmp_path: Path, cache: Cache) -> None:
    """As without a cache, though the model is asked later: when a request is not in it."""
    ner = NerLlama(
        spacy.blank("en").vocab,
        Llama(str(tmp_path / "none")),
        labels=dict(GENE),
        prompt=CompactPrompt(),
        voting=Voting(),
        cache=cache,
    )
    ner.model.fingerprint = lambda: "none"  # type: ignore[method-assign]
    ner.set_error_handler(lambda *_: pytest.fail("it is the fault of no doc"))
    with pytest.raises(FileNotFoundError, match="NL042"):
        ner(spacy.blank("en")("p53"))


# A file that fails


@pytest.mark.parametrize("content", [b"no database, but long enough to be one" * 40, None])
def test_a_file_that_is_no_cache_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "cache.db"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^\[NL201\] .*cache\.db"):
        Cache(path).through(Counting(), text_key, SINGLE)(REQUESTS)
    assert content is None or path.read_bytes() == content


def test_a_cache_that_is_locked_is_gone_without(cache: Cache) -> None:
    cache.timeout = 0.1
    vote = Counting()
    expected = through(cache, vote, REQUESTS[:2])
    locker = sqlite3.connect(cache.path, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    with pytest.warns(UserWarning, match=r"^\[NLW200\] .*locked") as caught:
        answers = through(cache, vote, REQUESTS)
    locker.close()
    assert len(caught) == 1
    assert answers[:2] == expected
    assert vote.asked == REQUESTS
    assert len(answers) == len(REQUESTS)


def test_a_cache_that_breaks_on_the_way_is_gone_without(cache: Cache) -> None:
    through(cache, Counting())
    stream = cache.through(Counting(), text_key, SINGLE)(REQUESTS)
    first = next(stream)
    with sqlite3.connect(cache.path) as file:
        file.execute("DROP TABLE answers")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rest = list(stream)
    assert isinstance(first, Votes)
    assert len(rest) == len(REQUESTS) - 1
    assert [str(w.message)[:8] for w in caught if w.category is UserWarning] == ["[NLW200]"]


def test_what_a_recorder_keeps_can_be_written_as_records(tmp_path: Path) -> None:
    cache = Recorder(tmp_path / "kept" / "answers")
    through(cache, Counting())
    cache.write(tmp_path / "records.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text("utf8").splitlines()]
    assert [(line["text"], line["label"]) for line in lines] == [
        (request.sentence.text, request.labels[0][0]) for request in REQUESTS
    ]
    assert lines[0]["votes"] == [{"start": 0, "end": 4, "label": "DISEASE", "vote": 1 / 3}]
    cache.remove()
    assert list(cache.path.parent.iterdir()) == []

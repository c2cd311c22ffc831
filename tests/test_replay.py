"""Recorded responses in the place of a model: what was said about a text is what its doc gets."""

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc

from spacy_nerllama.marking import Markers, MarkingScheme
from spacy_nerllama.models import Replay
from spacy_nerllama.prompts import MultiTaskPrompt, PaperPrompt
from spacy_nerllama.requests import Request, Sentence
from spacy_nerllama.voting import Votes, Voting

LABELS = {"GENE": "gene", "DISEASE": "disease"}
RECORDS = [
    {"text": "ATM causes ataxia .", "label": "GENE", "response": "@@ATM## causes ataxia."},
    {"text": "ATM causes ataxia .", "label": "DISEASE", "response": "ATM causes @disease@ataxia#disease# ."},
    {"text": "p53 fell .", "label": "GENE", "response": "@@p53##"},
    {"text": "p53 rose .", "label": "GENE", "response": None},
    {
        "text": "ATM and p53",
        "label": "GENE",
        "responses": ["@@ATM## and @@p53##", "@@ATM## and p53", "@@ATM and p53##", None, "I do not know."],
    },
]
Record = Callable[..., str]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Write records to a file, and give its path."""

    def write(*records: dict[str, Any] | str) -> str:
        lines = [line if isinstance(line, str) else json.dumps(line) for line in records]
        (tmp_path / "responses.jsonl").write_text("\n".join(lines), encoding="utf8")
        return str(tmp_path / "responses.jsonl")

    return write


def pipeline(path: str, labels: dict[str, str] = LABELS, **settings: Any) -> Language:
    nlp = spacy.blank("en")
    model = {"@llm_models": "nerllama.Replay.v1", "path": path}
    nlp.add_pipe("nerllama_ner", config={"labels": labels, "model": model, **settings})
    return nlp


def tokenised(nlp: Language, text: str) -> Doc:
    return Doc(nlp.vocab, words=text.split(" "))


def entities(doc: Doc) -> list[tuple[str, str]]:
    return [(ent.text, ent.label_) for ent in doc.ents]


def test_what_was_recorded_is_what_a_doc_gets(record: Record) -> None:
    nlp = pipeline(record(*RECORDS))
    texts = ["ATM causes ataxia .", "p53 fell .", "p53 rose .", "Nothing is known of BRCA1 ."]
    docs = list(nlp.pipe(tokenised(nlp, text) for text in texts))
    assert [entities(doc) for doc in docs] == [[("ATM", "GENE"), ("ataxia", "DISEASE")], [("p53", "GENE")], [], []]
    assert [entities(nlp(tokenised(nlp, text))) for text in texts] == [entities(doc) for doc in docs]
    assert all("nerllama" in doc.spans for doc in docs)


def test_white_space_does_not_matter(record: Record) -> None:
    nlp = pipeline(record(*RECORDS))
    for text in ("ATM causes ataxia.", "\nATM causes\n\nataxia .\n "):
        assert entities(nlp(text)) == [("ATM", "GENE"), ("ataxia", "DISEASE")]


def test_a_doc_is_looked_up_as_a_whole_then_by_sentences(record: Record) -> None:
    text = "ATM causes ataxia. p53 fell."
    nlp = pipeline(record(*RECORDS, {"text": text, "label": "DISEASE", "response": "@@ATM causes ataxia. p53##"}))
    doc = nlp.make_doc(text)
    for token in doc:
        token.is_sent_start = token.text in ("ATM", "p53")
    [group] = nlp(doc).spans.values()
    assert [(span.text, span.label_) for span in group] == [
        ("ATM", "GENE"),
        ("ATM causes ataxia. p53", "DISEASE"),  # across the sentences, which were not asked for this label
        ("p53", "GENE"),
    ]
    assert [sentence.text for sentence in doc.sents] == ["ATM causes ataxia.", "p53 fell."]


def test_several_responses_vote(record: Record) -> None:
    """A span's vote is its share of the readings; null and what cannot be used are no readings."""
    path = record(*RECORDS)
    doc = pipeline(path)("ATM and p53")
    group = doc.spans["nerllama"]
    votes = dict(zip((span.text for span in group), group.attrs["scores"], strict=True))
    assert votes == pytest.approx({"ATM": 2 / 3, "ATM and p53": 1 / 3, "p53": 1 / 3})
    assert entities(doc) == [("ATM", "GENE")]
    assert doc.ents[0]._.nerllama_vote == pytest.approx(2 / 3)
    low = {"@misc": "nerllama.Voting.v1", "threshold": 0.3}
    assert entities(pipeline(path, voting=low)("ATM and p53")) == [("ATM", "GENE"), ("p53", "GENE")]
    one = {"@misc": "nerllama.Voting.v1", "samples": 1}
    assert entities(pipeline(path, voting=one)("ATM and p53")) == [("ATM", "GENE"), ("p53", "GENE")]


def test_lines_with_the_same_text_and_label_add_up(record: Record) -> None:
    lines = [{"text": "ATM fell", "label": "GENE", "response": x} for x in ("@@ATM## fell", "ATM fell", None)]
    doc = pipeline(record(*lines), {"GENE": "gene"})("ATM fell")
    assert list(doc.spans["nerllama"].attrs["scores"]) == [0.5]


@pytest.mark.parametrize("nothing", [{"response": None}, {"responses": [None]}, {"responses": []}])
def test_a_record_without_a_response_says_nothing(record: Record, nothing: dict[str, Any]) -> None:
    """It is no reading without mentions, in which words that come again would count as none."""
    lines = [{"text": "ATM fell.", "label": "GENE", "responses": ["@@ATM## fell.", "@@ATM## fell.", "ATM fell."]}]

    def votes(*more: dict[str, Any]) -> list[float]:
        nlp = pipeline(record(*lines, *more), {"GENE": "gene"})
        nlp.add_pipe("sentencizer", first=True)
        return list(nlp("ATM fell. So ATM is low.").spans["nerllama"].attrs["scores"])

    assert votes() == pytest.approx([2 / 3])
    for text in ("So ATM is low.", "ATM fell. So ATM is low."):
        assert votes({"text": text, "label": "GENE", **nothing}) == votes()


def test_responses_go_before_votes_on_the_same_text(record: Record) -> None:
    votes = [{"start": 0, "end": 8, "label": "GENE", "vote": 1.0}]
    lines = [{"text": "ATM fell", "label": "GENE", "votes": votes}]
    lines.append({"text": "ATM fell", "label": "GENE", "response": "@@ATM## fell"})
    assert entities(pipeline(record(*lines[:1]), {"GENE": "gene"})("ATM fell")) == [("ATM fell", "GENE")]
    assert entities(pipeline(record(*lines), {"GENE": "gene"})("ATM fell")) == [("ATM", "GENE")]


def test_responses_are_counted_by_diagnosis(record: Record, caplog: pytest.LogCaptureFixture) -> None:
    nlp = pipeline(record(*RECORDS, {"text": "BRCA1 rose .", "label": "GENE", "response": "@@BRCA1## has"}))
    model = nlp.get_pipe("nerllama_ner").model
    assert not model.diagnoses
    texts = ["ATM causes ataxia .", "p53 fell .", "p53 rose .", "ATM and p53", "BRCA1 rose .", "unknown"]
    with caplog.at_level(logging.INFO, logger="spacy_nerllama"):
        for _ in range(2):  # a response that is asked for again is still one
            list(nlp.pipe(tokenised(nlp, text) for text in texts))
    assert model.diagnoses == {"exact": 5, "truncated": 1, "aligned": 1, "unusable": 1}
    assert "5 exact, 1 aligned, 1 unusable, 1 truncated" in caplog.messages[-1]


def test_the_scheme_of_the_prompt_is_that_of_the_responses(record: Record) -> None:
    path = record({"text": "ATM fell", "label": "GENE", "response": "<g>ATM</g> fell"})
    request = Request(Sentence(("ATM", "fell"), (True, True)), (("GENE", "gene"),))
    for markers, expected in ((Markers("<g>", "</g>"), {(0, 1, "GENE"): 1.0}), (Markers("@@", "##"), {})):
        [votes] = Replay(path).vote([request], PaperPrompt(scheme=MarkingScheme(markers)), Voting(), 0)
        assert votes.spans == expected


def test_a_request_for_several_labels(record: Record) -> None:
    sentence = Sentence(("ATM", "causes", "ataxia", "."), (True,) * 4)
    request = Request(sentence, tuple(LABELS.items()))
    [votes] = Replay(record(*RECORDS)).vote([request], PaperPrompt(), Voting(), 0)
    assert votes == Votes({(0, 1, "GENE"): 1.0, (2, 3, "DISEASE"): 1.0})


def test_several_labels_may_be_recorded_in_any_order(record: Record) -> None:
    request = Request(Sentence(("ATM", "fell"), (True, True)), tuple(LABELS.items()))
    for labels in (["GENE", "DISEASE"], ["DISEASE", "GENE"]):
        path = record({"text": "ATM fell", "label": labels, "response": "@gene@ATM#gene# fell"})
        [votes] = Replay(path).vote([request], MultiTaskPrompt(dict(LABELS)), Voting(), 0)
        assert votes.spans == {(0, 1, "GENE"): 1.0}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("{", "NL115"),
        ("[" * 100_000, "NL115"),
        ("[1]", "NL081"),
        ({"label": "GENE", "response": ""}, "NL082"),
        ({"text": "ATM", "response": ""}, "NL082"),
        ({"text": 1, "label": "GENE", "response": ""}, "NL082"),
        ({"text": "ATM", "label": "GENE"}, "NL083"),
        ({"text": "ATM", "label": "GENE", "response": 1}, "NL083"),
        ({"text": "ATM", "label": "GENE", "responses": "ATM"}, "NL083"),
        ({"text": "ATM", "label": "GENE", "responses": [1]}, "NL083"),
    ],
)
def test_broken_lines_are_named(record: Record, line: Any, code: str) -> None:
    nlp = pipeline(record(RECORDS[0], "", line))
    ner = nlp.get_pipe("nerllama_ner")
    ner.set_error_handler(lambda *_: pytest.fail("it is the fault of no doc"))
    with pytest.raises(ValueError, match=rf"^\[{code}\] .*responses\.jsonl, line 3\b"):
        ner(nlp.make_doc("ATM fell"))


def test_a_missing_file(tmp_path: Path) -> None:
    nlp = pipeline(str(tmp_path / "none.jsonl"))
    ner = nlp.get_pipe("nerllama_ner")
    ner.set_error_handler(lambda *_: pytest.fail("it is the fault of no doc"))
    with pytest.raises(FileNotFoundError, match=r"^\[NL080\] .*none\.jsonl"):
        ner(nlp.make_doc("ATM fell"))
    with pytest.raises(FileNotFoundError, match=r"^\[NL080\]"):
        ner.warm_up()


def test_it_is_read_on_first_use_and_again_after_unload(record: Record) -> None:
    ner = (nlp := pipeline(record(RECORDS[0]))).get_pipe("nerllama_ner")
    ner.warm_up()
    record(RECORDS[2])
    assert entities(nlp("p53 fell.")) == []
    ner.unload()
    assert entities(nlp("p53 fell.")) == [("p53", "GENE")]


def test_it_travels(record: Record, tmp_path: Path) -> None:
    nlp = pipeline(record(*RECORDS))
    nlp("p53 fell.")
    nlp.to_disk(tmp_path / "pipeline")
    for again in (spacy.load(tmp_path / "pipeline"), pipeline(record(*RECORDS)).from_bytes(nlp.to_bytes())):
        assert entities(again("p53 fell.")) == [("p53", "GENE")]
    model = pickle.loads(pickle.dumps(nlp.get_pipe("nerllama_ner").model))
    assert model.diagnoses == {"aligned": 1}
    docs = nlp.pipe(["p53 fell.", "ATM causes ataxia."], n_process=2)
    assert [entities(doc) for doc in docs] == [[("p53", "GENE")], [("ATM", "GENE"), ("ataxia", "DISEASE")]]


def test_sentences_without_a_record_say_nothing_of_the_others(tmp_path: Path) -> None:
    """Whether nothing was marked or nothing recorded is not the same to sentences that agree."""
    path = tmp_path / "records.jsonl"
    said = {"ATM fell.": ["@@ATM## fell.", "ATM fell."], "ATM rose.": ["ATM rose.", "ATM rose."]}
    votes = {}
    for recorded in (("ATM fell.",), ("ATM fell.", "ATM rose.")):
        lines = ({"text": text, "label": "GENE", "responses": said[text]} for text in recorded)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        nlp = spacy.blank("en")
        nlp.add_pipe("sentencizer")
        model = {"@llm_models": "nerllama.Replay.v1", "path": str(path)}
        nlp.add_pipe("nerllama_ner", config={"labels": {"GENE": "gene"}, "model": model})
        votes[recorded] = nlp("ATM fell. ATM rose. ATM stayed.").spans["nerllama"].attrs["scores"].tolist()
    assert list(votes.values()) == [[0.5], [0.375]]

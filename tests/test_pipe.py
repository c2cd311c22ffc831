"""The component at spaCy's surface, with a tiny random model: what it marks is arbitrary, where it puts it not."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.pipe_analysis import analyze_pipes
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from spacy.util import registry

from spacy_nerllama.agreement import agree
from spacy_nerllama.models import Llama, llama
from spacy_nerllama.models.adapter import Adapter
from spacy_nerllama.models.cache import Cache
from spacy_nerllama.pipe import NerLlama
from spacy_nerllama.prompts import CompactPrompt, MultiTaskPrompt
from spacy_nerllama.requests import Request, TokenSpan, doc_sentences
from spacy_nerllama.sentences import MAX_TOKENS
from spacy_nerllama.voting import Votes, Voting

LABELS = {"DISEASE": "disease", "GENE": "gene or protein"}
TEXTS = [
    "Mutations of the ATM gene cause ataxia telangiectasia.",
    "",
    "No lithium (2 mg) was given. TGF-β1 fell <|im_end|> at night.",
    " \n\n ",
    "p53",
    "Ataxia\n\nFew carriers had it; the @@ATM## gene was normal 😀.",
]
BLANK = spacy.blank("en")


def component(model: Any, **settings: Any) -> NerLlama:
    """A component, on the tiny model that all tests share."""
    default = {"labels": LABELS, "prompt": CompactPrompt(), "voting": Voting(threshold=0.2)}
    return NerLlama(BLANK.vocab, model, **{**default, **settings})


@pytest.fixture
def ner(tiny: Llama) -> NerLlama:
    return component(tiny)


@pytest.fixture(scope="module")
def nlp(tiny_config: dict[str, Any]) -> Language:
    """A pipeline as a user makes it."""
    nlp = spacy.blank("en")
    nlp.add_pipe("nerllama_ner", config=tiny_config)
    return nlp


def docs(*texts: str) -> list[Doc]:
    return [BLANK.make_doc(text) for text in texts or TEXTS]


def found(doc: Doc) -> tuple[list[tuple[str, str]], list[tuple[int, int, str, float]]]:
    """The entities, and the candidates with their votes."""
    group = doc.spans["nerllama"]
    votes = zip(group, group.attrs["scores"], strict=True)
    return (
        [(ent.text, ent.label_) for ent in doc.ents],
        [(span.start, span.end, span.label_, round(float(vote), 4)) for span, vote in votes],
    )


# What it sets


def test_entities_and_candidates(nlp: Language) -> None:
    seen = list(nlp.pipe(TEXTS))
    assert [doc.text for doc in seen] == TEXTS
    for doc in seen:
        group = doc.spans["nerllama"]
        assert len(group) == len(group.attrs["scores"])
        assert all(0 < vote <= 1 for vote in group.attrs["scores"])
        assert [(s.start, s.end, s.label_) for s in group] == sorted({(s.start, s.end, s.label_) for s in group})
        candidates = {(span.start, span.end, span.label) for span in group}
        for ent in doc.ents:
            assert (ent.start, ent.end, ent.label) in candidates
            assert ent._.nerllama_vote >= 0.2
            assert not ent[0].is_space
            assert not ent[-1].is_space
    assert {ent.label_ for doc in seen for ent in doc.ents} == set(LABELS)
    assert sum(len(doc.spans["nerllama"]) for doc in seen) > sum(len(doc.ents) for doc in seen)


def test_all_labels_in_one_reading(tiny: Llama) -> None:
    """The multi-task prompt: one request for each sentence, and no overlaps between labels in a reading."""
    names = {"DISEASE": "disease", "GENE": "gene"}
    ner = component(tiny, prompt=MultiTaskPrompt(names), voting=Voting(1))
    seen = list(ner.pipe(docs()))
    assert {span.label_ for doc in seen for span in doc.spans["nerllama"]} == set(names)
    for doc in seen:
        assert [(s.start, s.end) for s in doc.ents] == [(s.start, s.end) for s in doc.spans["nerllama"]]


def test_a_label_without_markers_is_refused(tiny: Llama) -> None:
    ner = component(tiny, prompt=MultiTaskPrompt({"GENE": "gene"}))
    with pytest.raises(ValueError, match="NL032.*DISEASE"):
        ner(docs("p53")[0])


def test_seven_of_ten_reach_a_threshold_of_seven_tenths(tiny: Llama) -> None:
    doc = docs("p53")[0]
    component(tiny).set_annotations([doc], [{TokenSpan(0, 1, "GENE"): 0.7}])
    assert doc.ents[0]._.nerllama_vote == 0.7


def test_one_doc_gives_the_same_as_many(nlp: Language) -> None:
    for text, doc in zip(TEXTS, nlp.pipe(TEXTS), strict=True):
        ents, candidates = found(nlp(text))
        assert ents == found(doc)[0]
        assert candidates == [pytest.approx(candidate, abs=1e-3) for candidate in found(doc)[1]]


def test_a_vote_for_each_entity(ner: NerLlama) -> None:
    doc = ner(docs(TEXTS[0])[0])
    group = doc.spans["nerllama"]
    assert [span._.nerllama_vote for span in group] == pytest.approx(list(group.attrs["scores"]))
    assert Span(doc, 0, len(doc), "OTHER")._.nerllama_vote is None
    assert docs("p53")[0][0:1]._.nerllama_vote is None, "a doc that was not annotated"


def test_a_group_that_was_changed_has_no_votes(ner: NerLlama) -> None:
    """Which vote is whose cannot be told any more, once a user has deleted a span of the group."""
    doc = ner(docs(TEXTS[0])[0])
    del doc.spans["nerllama"][-1]
    assert doc.ents
    assert {ent._.nerllama_vote for ent in doc.ents} == {None}


def test_the_votes_of_a_long_doc_are_found_at_once(tiny: Llama) -> None:
    doc = docs("p53 " * 4096)[0]
    component(tiny).set_annotations([doc], [{TokenSpan(i, i + 1, "GENE"): 0.9 for i in range(4096)}])
    looked_at: list[int] = []

    class Counted(list):
        def __getitem__(self, i: Any) -> Any:
            looked_at.append(i)
            return super().__getitem__(i)

    group = doc.spans["nerllama"]
    group.attrs["places"] = Counted(group.attrs["places"])
    assert doc.ents[-1]._.nerllama_vote == 0.9
    assert 0 < len(looked_at) < 20


def test_votes_are_found_when_tokens_were_merged(tiny: Llama) -> None:
    """spaCy leaves the groups of a doc as they were: their tokens are then wrong, their characters are not."""
    doc = docs("Severe non - syndromic hearing loss and gout were seen for years in a family with ataxia")[0]
    votes = {TokenSpan(1, 6, "DISEASE"): 0.9, TokenSpan(7, 8, "DISEASE"): 0.8, TokenSpan(16, 17, "DISEASE"): 0.7}
    ner = component(tiny)
    ner.set_annotations([doc], [votes])
    spacy.pipeline.merge_entities(doc)
    assert [(ent.text, ent._.nerllama_vote) for ent in doc.ents] == [
        ("non - syndromic hearing loss", 0.9),
        ("gout", 0.8),
        ("ataxia", 0.7),
    ]
    ner.set_annotations([doc], [{TokenSpan(3, 4, "GENE"): 0.7}])
    assert [(ent.text, ent.label_, ent._.nerllama_vote) for ent in doc.ents] == [("gout", "GENE", 0.7)]


def test_merged_tokens_are_settled_by_a_component(tiny: Llama) -> None:
    """spaCy cannot save a doc with spans behind its last token, nor send it to another process."""
    nlp = spacy.blank("en")
    nlp.add_pipe("merge_entities")
    nlp.add_pipe("nerllama_settle_votes")
    doc = docs("A rare ataxia and gout")[0]
    votes = {TokenSpan(1, 3, "DISEASE"): 0.9, TokenSpan(2, 3, "DISEASE"): 0.3, TokenSpan(4, 5, "DISEASE"): 0.8}
    component(tiny).set_annotations([doc], [votes])
    doc = Doc(doc.vocab).from_bytes(nlp(doc).to_bytes())
    assert [(ent.text, ent._.nerllama_vote) for ent in doc.ents] == [("rare ataxia", 0.9), ("gout", 0.8)]
    assert [span.text for span in doc.spans["nerllama"]] == ["rare ataxia", "gout"], "ataxia is no token any more"


def test_the_vote_of_an_entity_is_the_one_that_made_it(tiny: Llama) -> None:
    doc = docs("gout")[0]
    for key, vote in (("one", 0.1), ("two", 0.9), ("three", 0.15)):
        component(tiny, spans_key=key).set_annotations([doc], [{TokenSpan(0, 1, "DISEASE"): vote}])
    assert doc.spans["one"][0]._.nerllama_vote == 0.9


def test_empty_docs_have_an_empty_group(ner: NerLlama) -> None:
    for doc in ner.pipe(docs("", " ", "\n\n \t")):
        assert doc.ents == ()
        assert len(doc.spans["nerllama"]) == len(doc.spans["nerllama"].attrs["scores"]) == 0


@pytest.mark.parametrize("bounds", [None, "rule", "every token"])
def test_nothing_else_changes(ner: NerLlama, bounds: str | None) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    for text in [*TEXTS, " ".join(TEXTS) * 4]:
        doc = nlp(text) if bounds == "rule" else nlp.make_doc(text)
        if bounds == "every token":
            for token in doc:
                token.is_sent_start = True
        doc.user_data["mine"] = 1
        doc.spans["mine"] = [doc[0:1]] if len(doc) else []
        before, was = doc.to_json(), doc.has_annotation("SENT_START")
        after = ner(doc).to_json()
        assert doc.has_annotation("SENT_START") == was
        for untouched in ("text", "tokens", "sents"):
            assert after.get(untouched) == before.get(untouched)
        assert after["spans"]["mine"] == before["spans"]["mine"]
        assert doc.user_data["mine"] == 1


def test_sentences_are_read_one_by_one(ner: NerLlama) -> None:
    """Those of the doc where it has them; else a short doc is one, and a long one is cut by rule."""
    asked: list[str] = []

    class Spy:
        adapter, meta = None, {}

        def vote(self, requests: Iterable[Request], *settings: Any) -> Iterator[Any]:
            def seen() -> Iterator[Request]:
                for request in requests:
                    asked.append(request.sentence.text)
                    yield request

            return ner.model.vote(seen(), *settings)

    spy = component(Spy(), labels={"GENE": "gene"})
    text = "The ATM gene fell. It rose."
    spy(docs(text)[0])
    assert asked == [text]

    asked.clear()
    with_sentences = docs(text)[0]
    for token in with_sentences:
        token.is_sent_start = token.i == 3
    spy(with_sentences)
    assert asked == ["The ATM gene", "fell. It rose."]

    asked.clear()
    n = MAX_TOKENS // 5 + 1
    spy(docs(" ".join(["The ATM gene fell."] * n))[0])
    assert asked == ["The ATM gene fell."] * n


def test_entities_of_later_sentences_are_in_their_place(ner: NerLlama) -> None:
    """A sentence's votes are the same wherever it stands in a doc, unless words of it come again."""
    first, second = "Few carriers had it?", "The ATM gene fell in ataxia."
    alone = ner(docs(second)[0])
    doc = docs(f"{first} {second}")[0]
    start = len(docs(first)[0])
    for token in doc:
        token.is_sent_start = token.i in (0, start)
    ner(doc)
    moved = [(s - start, e - start, label, vote) for s, e, label, vote in found(doc)[1] if s >= start]
    assert moved == [pytest.approx(candidate, abs=1e-3) for candidate in found(alone)[1]]


def test_sentences_agree_on_words_that_come_again(tiny: Llama) -> None:
    """By a setting of the vote, after the model has answered: what it says of a sentence is the same."""
    doc = docs("Few carriers had it. The ATM gene fell in ataxia.")[0]
    for token in doc:
        token.is_sent_start = token.i in (0, 5)

    def votes(agreement: float) -> dict[TokenSpan, float]:
        component(tiny, labels={"GENE": "gene"}, voting=Voting(agreement=agreement))(doc)
        return {TokenSpan(*place): vote for *place, vote in found(doc)[1]}

    alone, agreed = votes(0.0), votes(0.5)
    assert agreed == pytest.approx(agree(alone, list(doc_sentences(doc)), 0.5), abs=1e-3)
    assert agreed != pytest.approx(alone, abs=1e-2)


def test_the_group_has_the_name_of_the_setting(tiny: Llama) -> None:
    doc = component(tiny, spans_key="llm")(docs(TEXTS[0])[0])
    assert list(doc.spans) == ["llm"]
    assert all(ent._.nerllama_vote is not None for ent in doc.ents)


# Entities that are there already


def with_entities(ner: NerLlama) -> tuple[Doc, Span]:
    """A doc with an entity that overlaps with one that the component finds, and one that does not."""
    text = f"Boston: {TEXTS[0]}"
    ent = ner(docs(text)[0]).ents[-1]
    assert ent.start > 1
    doc = docs(text)[0]
    doc.ents = [Span(doc, 0, 1, "GPE", kb_id="Q100"), Span(doc, ent.start, ent.end, "MINE", span_id="M1")]
    return doc, ent


def test_entities_that_overlap_are_overwritten(tiny: Llama) -> None:
    ner = component(tiny, voting=Voting(threshold=0.2))
    doc, ent = with_entities(ner)
    ner(doc)
    assert (ent.start, ent.end, ent.label_) in [(e.start, e.end, e.label_) for e in doc.ents]
    assert "MINE" not in [e.label_ for e in doc.ents]
    assert {e.ent_id_ for e in doc.ents} == {""}, "that of the entity which gave way went with it"


def test_entities_that_overlap_are_kept(tiny: Llama) -> None:
    ner = component(tiny, overwrite_ents=False)
    doc, ent = with_entities(ner)
    ner(doc)
    assert (ent.start, ent.end, "MINE") in [(e.start, e.end, e.label_) for e in doc.ents]
    assert [(e.text, e.kb_id_) for e in doc.ents if e.label_ == "GPE"] == [("Boston", "Q100")]
    assert (ent.start, ent.end, ent.label_) in [s[:3] for s in found(doc)[1]], "it is a candidate all the same"


@pytest.mark.parametrize("overwrite", [True, False])
def test_entities_beside_the_new_ones_stay(tiny: Llama, overwrite: bool) -> None:
    ner = component(tiny, overwrite_ents=overwrite, voting=Voting(threshold=1.0))
    doc, _ = with_entities(component(tiny))
    ner(doc)
    assert [ent.label_ for ent in doc.ents] == ["GPE", "MINE"], "no vote reaches 1"


def test_a_doc_that_is_annotated_again_is_voted_on_anew(tiny: Llama) -> None:
    """What was kept before and is not now does not stay; what others set does."""
    doc, _ = with_entities(component(tiny))
    once, strict = component(tiny, overwrite_ents=False), component(tiny, voting=Voting(threshold=1.0))
    once(doc)
    assert len(doc.ents) > 2
    strict(doc)
    assert [ent.label_ for ent in doc.ents] == ["GPE", "MINE"], "no vote reaches 1"
    once(doc)
    found = list(doc.ents)
    component(tiny, labels={"CHEMICAL": "drug"}, voting=Voting(threshold=1.0))(doc)
    assert list(doc.ents) == found, "a component of other labels"


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_entity_of_another_that_is_a_candidate_stays(tiny: Llama, overwrite: bool) -> None:
    """Whether the votes would keep it or not, and with its link to a knowledge base."""
    doc = docs("The ATM gene fell.")[0]
    doc.ents = [Span(doc, 1, 2, "GENE", kb_id="ATM")]
    ner = component(tiny, overwrite_ents=overwrite)
    for vote in (0.9, 0.1, 0.9, 0.1):
        ner.set_annotations([doc], [{TokenSpan(1, 2, "GENE"): vote}])
        assert [(ent.text, ent.label_, ent.kb_id_) for ent in doc.ents] == [("ATM", "GENE", "ATM")]


def test_components_of_other_labels_share_a_group(tiny: Llama) -> None:
    doc = docs("The ATM gene fell in ataxia.")[0]
    genes, diseases = component(tiny, labels={"GENE": "gene"}), component(tiny, labels={"DISEASE": "disease"})
    genes.set_annotations([doc], [{TokenSpan(1, 2, "GENE"): 0.9, TokenSpan(1, 3, "GENE"): 0.1}])
    diseases.set_annotations([doc], [{TokenSpan(5, 6, "DISEASE"): 0.8}])
    everything = [(1, 2, "GENE", 0.9), (1, 3, "GENE", 0.1), (5, 6, "DISEASE", 0.8)]
    assert found(doc) == ([("ATM", "GENE"), ("ataxia", "DISEASE")], everything)
    assert [ent._.nerllama_vote for ent in doc.ents] == [0.9, 0.8]
    genes.set_annotations([doc], [{TokenSpan(2, 3, "GENE"): 0.7}])
    assert found(doc) == ([("gene", "GENE"), ("ataxia", "DISEASE")], [(2, 3, "GENE", 0.7), everything[2]])
    read = Doc(doc.vocab).from_bytes(doc.to_bytes())
    diseases.set_annotations([read], [{}])
    assert found(read) == ([("gene", "GENE")], [(2, 3, "GENE", 0.7)]), "also of a doc that was written and read"


def test_exact_votes_that_may_never_end_are_refused(tiny: Llama) -> None:
    with pytest.raises(ValueError, match=r"^\[NL050\] .*in a component at least 0\.0001"):
        component(tiny, voting=Voting(min_mass=0.0))
    component(tiny, voting=Voting(10, min_mass=0.0))


def test_a_threshold_of_no_label_is_an_error(tiny: Llama) -> None:
    ner = component(tiny, voting=Voting(threshold={"DISESE": 0.2}))
    with pytest.raises(ValueError, match=r"^\[NL058\] .*'DISESE'.* DISEASE, GENE"):
        ner(docs("Ataxia.")[0])


def test_an_adapter_with_another_prompt_is_told(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    adapter = Adapter.from_folder(tiny_adapter)
    prompts = {"compact": {"@misc": "nerllama.CompactPrompt.v1"}, "gone": {"@misc": "elsewhere.Prompt.v1"}}
    prompts["paper"] = {"@misc": "nerllama.PaperPrompt.v1", "examples": "of/the/training.spacy"}
    prompts["typed"] = {"@misc": "nerllama.MultiTaskPrompt.v1", "names": {"DISEASE": "disease"}}
    for name, prompt in prompts.items():
        replace(adapter, meta={**adapter.meta, "prompt": prompt}).to_folder(tmp_path / name)
        ner = component(Llama(str(tiny_base), str(tmp_path / name), dtype="float32", device="cpu"))
        if name in ("compact", "gone"):
            ner.asks()
        else:
            with pytest.warns(UserWarning, match=r"^\[NLW003\] .* CompactPrompt"):
                ner.asks()


def test_a_label_that_the_adapter_was_not_taught_is_told(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    adapter = Adapter.from_folder(tiny_adapter)
    replace(adapter, meta={**adapter.meta, "labels": {"DISEASE": "disease"}}).to_folder(tmp_path / "one")
    model = Llama(str(tiny_base), str(tmp_path / "one"), dtype="float32", device="cpu")
    component(model, labels={"DIS": "disease"}).asks()
    component(model, labels={"disease": "any illness"}).asks()
    with pytest.warns(UserWarning, match=r"^\[NLW004\] .*mark disease, .* not taught 'species' \(SPECIES\)"):
        component(model, labels={"DIS": "disease", "SPECIES": "species"}).asks()


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"prompt": None}, "NL176.*prompt is None.*nerllama.CompactPrompt.v1"),
        ({"prompt": "nerllama.PaperPrompt.v1"}, "NL176.*prompt is 'nerllama.Paper"),
        ({"prompt": {"@misc": "nerllama.Voting.v1"}}, "NL176.*prompt is Voting"),
        ({"voting": {"@misc": "nerllama.CompactPrompt.v1"}}, "NL176.*voting is Compact"),
        ({"cache": {"@misc": "nerllama.CompactPrompt.v1"}}, "NL176.*cache is Compact.*nerllama.Cache.v1"),
        ({"updating": {"@misc": "nerllama.Lora.v1"}}, "NL176.*updating is .*nerllama.Updating.v1"),
        ({"voting": {"samples": "3"}}, "NL050"),
        ({"voting": {"threshold": {"GENE": "0.5"}}}, "NL050"),
        ({"max_batch_tokens": "4096"}, "NL053.*'4096'"),
    ],
)
def test_a_setting_of_another_kind_is_an_error_at_once(settings: dict[str, Any], code: str) -> None:
    with pytest.raises(ValueError, match=rf"\[{code}"):
        spacy.blank("en").add_pipe("nerllama_ner", config=settings)


def test_labels_outlive_a_memory_zone(nlp: Language) -> None:
    fresh = spacy.blank("en")
    fresh.add_pipe("nerllama_ner", source=nlp)
    with fresh.memory_zone():
        doc = fresh(TEXTS[0])
        labels = [span.label for span in doc.spans["nerllama"]]
    assert labels
    assert {fresh.vocab.strings[label] for label in labels} <= set(LABELS)


def test_the_vote_of_a_saved_entity_needs_the_package_alone(ner: NerLlama, tmp_path: Path) -> None:
    DocBin(docs=[ner(docs(TEXTS[0])[0])]).to_disk(tmp_path / "saved.spacy")
    script = f"""
import spacy_nerllama
from spacy.tokens import DocBin
from spacy.vocab import Vocab
(doc,) = DocBin().from_disk({str(tmp_path / "saved.spacy")!r}).get_docs(Vocab())
assert doc.ents and all(0 < ent._.nerllama_vote <= 1 for ent in doc.ents)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


# Streams


def test_order_is_kept(ner: NerLlama) -> None:
    texts = [f"{text} {i}" for i in range(6) for text in TEXTS]
    seen = list(ner.pipe(docs(*texts)))
    assert [doc.text for doc in seen] == texts
    assert seen[0] is not seen[1]


def test_contexts_stay_with_their_docs(nlp: Language) -> None:
    pairs = [(text, {"id": i}) for i, text in enumerate(TEXTS)]
    seen = list(nlp.pipe(pairs, as_tuples=True))
    assert [(doc.text, context) for doc, context in seen] == pairs


def test_docs_come_out_of_an_endless_stream(ner: NerLlama) -> None:
    taken = 0

    def endless() -> Iterator[Doc]:
        nonlocal taken
        while True:
            yield from docs(*TEXTS)
            taken += len(TEXTS)

    ner.max_batch_tokens = 256
    assert [doc.text for doc in islice(ner.pipe(endless()), 8)] == [*TEXTS, *TEXTS][:8]
    assert taken < 200


def test_a_live_stream_does_not_wait_for_more(ner: NerLlama) -> None:
    taken: list[Doc] = []

    def live() -> Iterator[Doc]:
        for doc in docs(*TEXTS):
            taken.append(doc)
            yield doc

    for n, doc in enumerate(ner.pipe(live(), batch_size=2)):
        assert doc is taken[n]
        assert len(taken) == n // 2 * 2 + 2


def test_docs_without_sentences_hold_nothing_up(ner: NerLlama) -> None:
    texts = ["", "", "p53", "", " ", "p53", ""]
    assert [doc.text for doc in ner.pipe(docs(*texts))] == texts
    assert list(ner.pipe([])) == []


# Errors


@pytest.fixture
def poisoned(ner: NerLlama, monkeypatch: pytest.MonkeyPatch) -> NerLlama:
    """A component whose model fails for a sentence with POISON in it, and with it the batch that it is in."""
    vote = ner.model.vote

    def failing(requests: Iterable[Request], *settings: Any) -> Iterator[Any]:
        def checked() -> Iterator[Request]:
            for request in requests:
                if "POISON" in request.sentence.text:
                    raise RuntimeError("poisoned")
                yield request

        return vote(checked(), *settings)

    monkeypatch.setattr(ner.model, "vote", failing)
    return ner


MIXED = ["p53 fell", "POISON", "ATM rose", "", "More POISON here", "POISON", "Ataxia"]


def test_a_failing_doc_is_reported_and_comes_out_in_its_place(
    poisoned: NerLlama, caplog: pytest.LogCaptureFixture
) -> None:
    reports: list[tuple] = []
    poisoned.set_error_handler(lambda *report: reports.append(report))
    seen = list(poisoned.pipe(docs(*MIXED)))
    assert [doc.text for doc in seen] == MIXED
    assert [[doc.text for doc in failed] for _, _, failed, _ in reports] == [[x] for x in MIXED if "POISON" in x]
    for name, proc, _, error in reports:
        assert (name, proc, str(error)) == ("nerllama_ner", poisoned, "poisoned")
    for doc in seen:
        assert ("nerllama" in doc.spans) == ("POISON" not in doc.text)
        assert not ("POISON" in doc.text and doc.ents)
    assert caplog.messages == [
        f"nerllama_ner: a doc is not annotated: {x!r}: poisoned" for x in MIXED if "POISON" in x
    ]


def test_docs_beside_a_failing_one_are_as_without_it(tiny: Llama, poisoned: NerLlama) -> None:
    poisoned.set_error_handler(lambda *report: None)
    seen = {doc.text: found(doc) for doc in poisoned.pipe(docs(*MIXED)) if "POISON" not in doc.text}
    for text, (ents, candidates) in seen.items():
        (alone,) = poisoned.pipe(docs(text))
        assert found(alone)[0] == ents
        assert candidates == [pytest.approx(candidate, abs=1e-3) for candidate in found(alone)[1]]


def test_without_a_handler_a_failing_doc_raises(poisoned: NerLlama) -> None:
    stream = poisoned.pipe(docs(*MIXED))
    assert next(stream).text == MIXED[0]
    with pytest.raises(RuntimeError, match="poisoned"):
        next(stream)
    with pytest.raises(RuntimeError, match="poisoned"):
        poisoned(docs("POISON")[0])


def test_the_pipelines_own_handler(poisoned: NerLlama) -> None:
    """`nlp.set_error_handler` reaches it, and `nlp(text)` calls it once."""
    nlp = spacy.blank("en")
    nlp._components.append(("nerllama_ner", poisoned))
    reports: list[tuple] = []
    nlp.set_error_handler(lambda *report: reports.append(report))
    assert nlp("POISON").text == "POISON"
    assert len(reports) == 1
    assert [doc.text for doc in nlp.pipe(MIXED)] == MIXED
    assert len(reports) == 4


def test_a_doc_that_cannot_be_written_is_not_half_annotated() -> None:
    class Beyond:
        """Votes for a span that no doc has."""

        adapter, meta = None, {}

        def vote(self, requests: Iterable[Request], *settings: Any) -> Iterator[Any]:
            return (Votes({TokenSpan(0, 99, "GENE"): 1.0}) for _ in requests)

    reports: list[tuple] = []
    broken = component(Beyond())
    broken.set_error_handler(lambda *report: reports.append(report))
    (doc,) = broken.pipe(docs("p53 fell"))
    assert len(reports) == 1
    assert (doc.ents, dict(doc.spans)) == ((), {})


def test_an_error_of_the_stream_comes_after_the_docs_before_it(ner: NerLlama) -> None:
    reports: list[tuple] = []
    ner.set_error_handler(lambda *report: reports.append(report))

    def stream() -> Iterator[Doc]:
        yield from docs(*TEXTS)
        raise OSError("disk gone")

    seen: list[Doc] = []
    with pytest.raises(OSError, match="disk gone"):
        seen.extend(ner.pipe(stream()))
    assert [doc.text for doc in seen] == TEXTS
    assert all("nerllama" in doc.spans for doc in seen)
    assert reports == [], "it is no fault of a doc"


@pytest.mark.parametrize("where", ["stream", "model"])
def test_an_interrupt_goes_through(ner: NerLlama, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    ner.set_error_handler(lambda *report: pytest.fail("an interrupt is no failing doc"))

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    def stream() -> Iterator[Doc]:
        yield from docs("p53")
        if where == "stream":
            interrupt()

    if where == "model":
        monkeypatch.setattr(ner.model.load().engine, "score", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(ner.pipe(stream()))


def test_what_no_doc_is_to_blame_for_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing base, for example: a handler that goes on would give a corpus without annotation."""
    monkeypatch.setenv("NERLLAMA_HOME", str(tmp_path))
    model = Llama()
    model.set_adapter(None)
    ner = component(model)
    ner.set_error_handler(lambda *report: pytest.fail("no doc failed"))
    with pytest.raises(FileNotFoundError, match=r"^\[NL001\] .*python -m spacy nerllama download$"):
        list(ner.pipe(docs("p53", "ATM")))
    with pytest.raises(FileNotFoundError, match=r"^\[NL001\] "):
        ner(docs("p53")[0])
    cached = component(model, cache=Cache(tmp_path / "cache.sqlite"))
    with pytest.raises(FileNotFoundError, match=r"^\[NL001\] "):
        list(cached.pipe(docs("p53", "ATM")))


# Labels and settings


def test_a_label_is_added_to_those_of_an_adapter_that_is_fetched_late(
    tiny_base: Path, tiny_adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def folder(name: str, local_files_only: bool = False) -> Path:
        asked.append(local_files_only)
        if local_files_only:
            raise FileNotFoundError(name)
        return tiny_adapter

    monkeypatch.setattr(llama, "adapter_folder", folder)
    model = Llama(str(tiny_base), "owner/adapter", dtype="float32", device="cpu")
    ner = component(model, labels=None)
    assert (ner.labels, asked) == ((), [True]), "asking fetches nothing"
    ner.add_label("DOSE", "dose")
    assert set(ner.labels) == {*model.meta["labels"], "DOSE"}


def test_labels(tiny: Llama) -> None:
    ner = component(tiny, labels={"GENE": "gene"})
    assert (ner.labels, ner.label_data) == (("GENE",), {"GENE": "gene"})
    assert ner.add_label("DISEASE", "disease") == 1
    assert ner.add_label("DISEASE") == 0
    assert ner.add_label("GENE", "gene or protein") == 0
    assert ner.label_data == {"GENE": "gene or protein", "DISEASE": "disease"}
    (doc,) = docs(TEXTS[0])
    assert {span.label_ for span in ner(doc).spans["nerllama"]} == {"GENE", "DISEASE"}


@pytest.mark.parametrize("description", [None, "", " "])
def test_a_label_needs_a_description(tiny: Llama, description: str | None) -> None:
    ner = component(tiny, labels=None)
    message = r'^\[NL052\] The label \'GENE\' has no description.*add_label\("GENE", "disease"\)'
    with pytest.raises(ValueError, match=message):
        ner.add_label("GENE", description)
    with pytest.raises(ValueError, match=message):
        component(tiny, labels={"GENE": description})
    with pytest.raises(ValueError, match=message):
        ner.initialize(labels={"GENE": description})
    assert ner.labels == ()


def test_without_labels_nothing_can_be_asked(tiny: Llama) -> None:
    """The pipeline can be made and described, labels can be added; only annotating is an error."""
    message = r"^\[NL051\] The component nerllama_ner has no labels\. Set `labels`"
    for none in (None, {}):
        ner = component(tiny, labels=none)
        assert (ner.labels, ner.label_data) == ((), {})
        with pytest.raises(ValueError, match=message):
            list(ner.pipe(docs()))
    ner.add_label("GENE", "gene")
    assert len(list(ner.pipe(docs()))) == len(TEXTS)


def test_labels_and_thresholds_of_the_adapter(tiny_base: Path, tiny_adapter: Path) -> None:
    nlp = spacy.blank("en")
    model = {"name": str(tiny_base), "adapter": str(tiny_adapter), "dtype": "float32", "device": "cpu"}
    ner = nlp.add_pipe("nerllama_ner", config={"model": model})
    assert ner.label_data == {"DISEASE": "disease", "GENE": "gene or protein"}
    assert nlp.pipe_labels == {"nerllama_ner": ["DISEASE", "GENE"]}
    votes = {label: [] for label in ner.labels}
    lost = []
    for doc in nlp.pipe([f"{text} {i}" for i in range(5) for text in TEXTS]):
        taken = {i for ent in doc.ents for i in range(ent.start, ent.end)}
        for ent in doc.ents:
            votes[ent.label_].append(ent._.nerllama_vote)
        lost += [span for span in doc.spans["nerllama"] if taken.isdisjoint(range(span.start, span.end))]
    assert 0.2 <= min(votes["DISEASE"]) < 0.5 <= min(votes["GENE"])
    assert lost
    assert all(span._.nerllama_vote < {"DISEASE": 0.2, "GENE": 0.5}[span.label_] for span in lost)
    assert ner.add_label("DISEASE") == 0


@pytest.mark.parametrize(
    "config",
    [
        {"sample": 3},
        {"voting": {"sample": 3}},
        {"voting": {"samples": "many"}},
        {"model": {"adaptor": "x"}},
        {"model": {"quantization": "nf5"}},
        {"prompt": {"n_examples": 3}},
        {"labels": ["GENE"]},
        {"max_batch_tokens": "4k"},
    ],
)
def test_a_mistyped_setting_is_an_error(config: dict[str, Any]) -> None:
    from confection import ConfigValidationError

    with pytest.raises(ConfigValidationError):
        spacy.blank("en").add_pipe("nerllama_ner", config=config)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"max_batch_tokens": 10}, "NL053"),
        ({"voting": {"samples": 0}}, "NL050"),
        ({"labels": {"GENE": ""}}, "NL052"),
        *(({"labels": {label: "x"}}, "NL175") for label in ("UMLS:T047", "A=B", "#A", "[A]", " A", "A\nB")),
        ({"labels": {"COST": "cost in $"}}, "NL175"),
        ({"voting": {"threshold": {"UMLS:T047": 0.2}}}, "NL175"),
        ({"prompt": {"@misc": "nerllama.PaperPrompt.v1", "examples": "no-such.spacy"}}, "NL037"),
    ],
)
def test_a_setting_out_of_range_is_an_error(config: dict[str, Any], code: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=rf"^\[{code}\] "):
        spacy.blank("en").add_pipe("nerllama_ner", config=config)


def test_the_papers_prompt(tiny_config: dict[str, Any]) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("nerllama_ner", config={**tiny_config, "prompt": {"@misc": "nerllama.PaperPrompt.v1"}})
    assert [doc.text for doc in nlp.pipe(TEXTS)] == TEXTS


# The pipeline around it


def test_what_it_says_of_itself(nlp: Language) -> None:
    analysis = analyze_pipes(nlp)
    assert analysis["summary"]["nerllama_ner"]["assigns"] == [
        "doc.ents",
        "token.ent_iob",
        "token.ent_type",
        "doc.spans",
    ]
    assert analysis["problems"] == {"nerllama_ner": []}
    assert nlp.get_pipe_meta("nerllama_ner").default_score_weights["ents_f"] == 1.0
    assert nlp.meta["labels"] == {"nerllama_ner": list(LABELS)}
    assert nlp.get_pipe("nerllama_ner").is_trainable


def test_it_can_be_left_out(nlp: Language) -> None:
    with nlp.select_pipes(disable="nerllama_ner"):
        assert not nlp(TEXTS[0]).spans
    assert "nerllama" in nlp(TEXTS[0]).spans


def test_it_is_scored(nlp: Language) -> None:
    predicted = list(nlp.pipe(TEXTS[:1] * 2))
    assert predicted[0].ents
    reference = nlp.make_doc(TEXTS[0])
    reference.ents = [Span(reference, ent.start, ent.end, ent.label_) for ent in predicted[0].ents]
    scores = nlp.evaluate([Example(nlp.make_doc(TEXTS[0]), reference)])
    assert (scores["ents_p"], scores["ents_r"], scores["ents_f"]) == (1.0, 1.0, 1.0)
    assert set(scores["ents_per_type"]) == {ent.label_ for ent in reference.ents}

    nothing = nlp.make_doc(TEXTS[0])
    nothing.ents = []
    assert nlp.evaluate([Example(nlp.make_doc(TEXTS[0]), nothing)])["ents_p"] == 0.0
    assert component(nlp.get_pipe("nerllama_ner").model).score([]) == {}, "without a scorer"


def test_initialize_needs_no_examples(nlp: Language, tiny: Llama) -> None:
    nlp.initialize()
    assert nlp.get_pipe("nerllama_ner").labels == tuple(LABELS)
    ner = component(tiny)
    ner.initialize(lambda: [], nlp=nlp, labels={"GENE": "gene"})
    assert ner.label_data == {"GENE": "gene"}


def test_it_is_registered() -> None:
    assert Language.has_factory("nerllama_ner")
    assert isinstance(registry.misc.get("nerllama.Voting.v1")(), Voting)
    assert isinstance(registry.misc.get("nerllama.CompactPrompt.v1")(), CompactPrompt)


IN_PROCESSES = """
import json, sys
import spacy, torch

torch.set_num_threads(2)
nlp = spacy.blank("en")
nlp.add_pipe("nerllama_ner", config=json.loads(sys.argv[1]))
texts = json.loads(sys.argv[2]) * 3
if sys.argv[3] == "used":  # its threads run, and after a fork they are gone
    torch.rand(1000, 1000) @ torch.rand(1000, 1000)
    nlp(texts[0])

def found(doc):
    return doc.text, [(ent.text, ent.label_) for ent in doc.ents], len(doc.spans["nerllama"])

several = [found(doc) for doc in nlp.pipe(texts, n_process=2, batch_size=4)]
assert several == [found(doc) for doc in nlp.pipe(texts)]
assert any(ents for _, ents, _ in several)
"""


@pytest.mark.slow
@pytest.mark.parametrize("parent", ["used", "fresh"])
def test_several_processes(tiny_config: dict[str, Any], parent: str) -> None:
    """Also after the parent has used the model. In a process of its own, which is killed if it hangs."""
    command = [sys.executable, "-c", IN_PROCESSES, json.dumps(tiny_config), json.dumps(TEXTS), parent]
    subprocess.run(command, check=True, timeout=180)

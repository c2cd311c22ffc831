"""spacy-llm: our task under its component `llm`, its models under `nerllama_ner`, our models under both."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any, Iterable  # noqa: UP035 (as spacy-llm reads them)

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy_llm.models.rest.noop import NoOpModel
from spacy_llm.registry import registry

from spacy_nerllama.models.adapter import Adapter
from spacy_nerllama.models.spacyllm import BATCH_SIZE, SpacyLLM, as_model
from spacy_nerllama.models.texts import TextModel
from spacy_nerllama.prompts import CompactPrompt, InstructPrompt
from spacy_nerllama.task import NerTask

LABELS = {"DISEASE": "disease", "SPECIES": "organisms named by species or strain"}
WORDS = {"disease": ["ataxia"], "organisms named by species or strain": ["mice"]}
TEXTS = ["Ataxia: mice had ataxia.", "", "No lithium (2 mg).", " \n ", "Two mice.\n\nThe ataxia of mice was mild."]
EXPECTED = [
    [("mice", "SPECIES"), ("ataxia", "DISEASE")],
    [],
    [],
    [],
    [("mice", "SPECIES"), ("ataxia", "DISEASE"), ("mice", "SPECIES")],
]


def marked(prompt: str) -> str:
    """What a model would write that has read the instruction: it marks the words that it knows of a label."""
    description = prompt.partition("Mark: ")[2].partition("\n")[0]
    response = prompt.rpartition("Text: ")[2].removesuffix("\nCopy:")
    for word in WORDS[description]:
        response = response.replace(word, f"@@{word}##")
    return response


class REST:
    """A model as those of spacy-llm that ask a server."""

    context_length = 2048

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, prompts: Iterable[Iterable[str]]) -> Iterable[Iterable[str]]:
        asked = [list(each) for each in prompts]
        self.asked += asked
        return [[marked(prompt) for prompt in each] for each in asked]


def function(prompts: Iterable[Iterable[Any]]) -> Iterable[Iterable[Any]]:
    """A model as those of LangChain."""
    return ([marked(prompt) for prompt in each] for each in prompts)


registry.llm_models.register("test.REST.v1", func=REST)
registry.llm_models.register("test.Function.v1", func=lambda: function)


def llm(model: Any = "test.REST.v1", **settings: Any) -> Language:
    """A pipeline with spacy-llm's component and our task."""
    nlp = spacy.blank("en")
    task = {"@llm_tasks": "nerllama.NER.v1", "labels": LABELS, **settings.pop("task", {})}
    model = {"@llm_models": model} if isinstance(model, str) else model
    nlp.add_pipe("llm", config={"task": task, "model": model, **settings})
    return nlp


def entities(doc: Doc) -> list[tuple[str, str]]:
    return [(ent.text, ent.label_) for ent in doc.ents]


def scored(doc: Doc) -> list[tuple[int, int, str, float]]:
    group = doc.spans["nerllama"]
    return [(s.start, s.end, s.label_, v) for s, v in zip(group, group.attrs["scores"], strict=True)]


# Our task under `llm`


def test_the_task_with_a_model_of_spacy_llm() -> None:
    """Its types are checked, and docs are changed in place, however many prompts they are."""
    nlp = llm()
    docs = [nlp.make_doc(text) for text in TEXTS]
    seen = list(nlp.pipe(docs))
    assert all(one is other for one, other in zip(docs, seen, strict=True))
    assert [entities(doc) for doc in seen] == EXPECTED
    assert [entities(nlp(text)) for text in TEXTS] == EXPECTED
    assert all("nerllama" in doc.spans for doc in seen)
    assert seen[0].ents[0]._.nerllama_vote == 1.0


def test_models_without_a_context_length_are_warned_of_by_spacy_llm_alone() -> None:
    with pytest.warns(UserWarning, match="does not provide context length") as caught:
        nlp = llm("test.Function.v1")
    assert len(caught) == 1
    assert [entities(doc) for doc in nlp.pipe(TEXTS)] == EXPECTED


def test_samples_are_copies_of_a_prompt_that_vote() -> None:
    nlp = llm(task={"voting": {"@misc": "nerllama.Voting.v1", "samples": 4, "threshold": 0.75}})

    class Unsure(REST):
        def __call__(self, prompts: Iterable[Iterable[str]]) -> Iterable[Iterable[str]]:
            for responses in super().__call__(prompts):
                yield [r.replace("@", "").replace("#", "") if i % 4 == 3 else r for i, r in enumerate(responses)]

    nlp.get_pipe("llm")._model = model = Unsure()
    doc = nlp("The mice had ataxia.")
    assert scored(doc) == [(1, 2, "SPECIES", 0.75), (3, 4, "DISEASE", 0.75)]
    assert entities(doc) == [("mice", "SPECIES"), ("ataxia", "DISEASE")]
    [prompts] = model.asked
    assert [prompts.count(prompt) for prompt in dict.fromkeys(prompts)] == [4, 4]


def test_threads_share_a_task() -> None:
    """Each doc gets what was answered to its own prompts."""
    task = NerTask(LABELS)
    nlp, found, interval = spacy.blank("en"), [], sys.getswitchinterval()

    def annotate(word: str, marked: str) -> None:
        for _ in range(100):
            docs = [nlp.make_doc(f"Two {word}.")]
            task_docs = task.parse_responses([docs], [[f"Two {word}.", f"Two {marked}."]])
            found.extend((word, [ent.text for ent in doc.ents]) for doc in task_docs)

    threads = [Thread(target=annotate, args=pair) for pair in (("mice", "@@mice##"), ("cells", "cells"))]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(found) == 200
    assert all(ents == (["mice"] if word == "mice" else []) for word, ents in found)


def test_what_was_asked_and_answered_can_be_saved() -> None:
    io = llm(save_io=True)("Two mice.").user_data["llm_io"]["llm"]
    assert len(io["prompt"]) == 2
    assert "organisms named by species or strain\n\nText: Two mice.\nCopy:" in io["prompt"][1]
    assert io["response"] == ["Two mice.", "Two @@mice##."]


def test_spacy_llms_cache(tmp_path: Path) -> None:
    """It keeps docs whole, so it must not be that of other labels or prompts."""
    cache = {"@llm_misc": "spacy.BatchCache.v1", "path": str(tmp_path), "batch_size": 1, "max_batches_in_mem": 2}
    expected = [scored(doc) for doc in llm(cache=cache).pipe(TEXTS[:1] + TEXTS[2:3])]
    nlp = llm(cache=cache)
    docs = list(nlp.pipe(TEXTS[:1] + TEXTS[2:3]))
    assert nlp.get_pipe("llm")._model.asked == []
    assert [scored(doc) for doc in docs] == expected
    assert [entities(doc) for doc in docs] == [EXPECTED[0], EXPECTED[2]]
    with pytest.raises(ValueError, match="not equal with current prompt template"):
        llm(cache=cache, task={"labels": {"DISEASE": "illness"}})
    with pytest.raises(ValueError, match="not equal with current prompt template"):
        llm(cache=cache, task={"voting": {"@misc": "nerllama.Voting.v1", "samples": 3}})


def test_labels_scores_and_settings_travel(tmp_path: Path) -> None:
    nlp = llm(task={"labels": {"DISEASE": "disease"}})
    pipe = nlp.get_pipe("llm")
    assert (pipe.add_label("SPECIES", LABELS["SPECIES"]), pipe.add_label("DISEASE", "disease")) == (1, 0)
    assert pipe.labels == ("DISEASE", "SPECIES")
    nlp.to_disk(tmp_path)
    for again in (spacy.load(tmp_path), llm(task={"labels": {"DISEASE": "disease"}}).from_bytes(nlp.to_bytes())):
        assert [entities(doc) for doc in again.pipe(TEXTS)] == EXPECTED
    gold = nlp.make_doc(TEXTS[0])
    gold.set_ents([Span(gold, 2, 3, "SPECIES")])
    scores = nlp.evaluate([Example(nlp.make_doc(TEXTS[0]), gold)])
    assert (scores["ents_p"], scores["ents_r"]) == (0.5, 1.0)
    pipe.clear()
    with pytest.raises(ValueError, match="NL051"):
        nlp(TEXTS[0])


def test_labels_can_be_given_when_it_is_initialized() -> None:
    nlp = llm(task={"labels": {"DISEASE": "disease"}})
    nlp.config["initialize"]["components"]["llm"] = {"labels": LABELS}
    nlp.initialize()
    assert [entities(doc) for doc in nlp.pipe(TEXTS)] == EXPECTED


def test_a_model_that_gives_too_little_is_named() -> None:
    class OneADoc(REST):
        def __call__(self, prompts: Iterable[Iterable[str]]) -> Iterable[Iterable[str]]:
            return [["Two mice."] for _ in prompts]

    nlp = llm()
    nlp.get_pipe("llm")._model = OneADoc()
    with pytest.raises(ValueError, match=r"^\[NL205\] The model gave 1 responses where 2"):
        nlp("Two mice.")


def test_a_model_that_leaves_docs_out_is_an_error() -> None:
    task = NerTask({"SPECIES": "organisms"})
    docs = [spacy.blank("en")(text) for text in ("Two mice.", "Three mice.")]
    with pytest.raises(ValueError, match="shorter"):
        list(task.parse_responses([[doc] for doc in docs], [["Two @@mice##."]]))


@pytest.mark.parametrize("text", ["", "Two mice.", "Two mice.\n\nThree more."])
def test_the_model_that_says_nothing(text: str) -> None:
    """spacy-llm's own model for trying things out."""
    assert llm("spacy.NoOp.v1")(text).ents == ()


# Our models under `llm`


def test_the_local_model_under_llm_is_that_under_our_component(tiny_config: dict[str, Any]) -> None:
    """Exact votes and all: a prompt of the task is a text to others, and a request to ours."""
    plain = spacy.blank("en")
    plain.add_pipe("nerllama_ner", config=tiny_config)
    expected = [scored(doc) for doc in plain.pipe(TEXTS)]
    assert any(vote < 1 for doc in expected for *_, vote in doc)
    for samples in (None, 3):
        voting = {"@misc": "nerllama.Voting.v1", "threshold": 0.2, "samples": samples}
        task = {
            "labels": tiny_config["labels"],
            "voting": voting,
            "prompt": {"@misc": "nerllama.CompactPrompt.v1"},
        }
        nlp = llm({"@llm_models": "nerllama.Llama.v1", **tiny_config["model"]}, task=task, save_io=True)
        if samples:
            plain.get_pipe("nerllama_ner").voting = nlp.get_pipe("llm").task._ner.voting
            expected = [scored(doc) for doc in plain.pipe(TEXTS)]
        for doc, votes in zip(nlp.pipe(TEXTS), expected, strict=True):
            assert [x[:3] for x in scored(doc)] == [x[:3] for x in votes]
            assert [x[3] for x in scored(doc)] == pytest.approx([x[3] for x in votes], abs=1e-4)


def test_the_prompt_of_the_adapter_has_to_be_asked_for(
    tmp_path: Path, tiny_config: dict[str, Any], tiny_adapter: Path
) -> None:
    adapter = Adapter.from_folder(tiny_adapter)
    trained = {**adapter.meta, "prompt": {"@misc": "nerllama.CompactPrompt.v1"}}
    replace(adapter, meta=trained).to_folder(tmp_path / "adapter")
    model = {"@llm_models": "nerllama.Llama.v1", **tiny_config["model"], "adapter": str(tmp_path / "adapter")}
    nlp = llm(model, task={"@llm_tasks": "nerllama.NER.v1", "labels": {"DISEASE": "disease"}})
    with pytest.warns(UserWarning, match=r"\[NLW003\] llm: .*CompactPrompt.* asked with InstructPrompt"):
        nlp("Ataxia.")


def test_recorded_responses_under_llm(tmp_path: Path) -> None:
    record = {"text": "Two mice.", "label": "SPECIES", "response": "Two @@mice##."}
    (tmp_path / "responses.jsonl").write_text(json.dumps(record))
    nlp = llm({"@llm_models": "nerllama.Replay.v1", "path": str(tmp_path / "responses.jsonl")})
    assert entities(nlp("Two mice.")) == [("mice", "SPECIES")]


def test_our_models_write_no_text_for_other_tasks() -> None:
    nlp = spacy.blank("en")
    task = {"@llm_tasks": "spacy.NER.v3", "labels": ["DISEASE"]}
    nlp.add_pipe("llm", config={"task": task, "model": {"@llm_models": "nerllama.Llama.v1", "name": "none"}})
    with pytest.raises(ValueError, match=r"^\[NL206\]"):
        nlp("Two mice.")


def test_what_failed_in_a_model_of_ours_is_raised() -> None:
    class Failing(TextModel):
        def respond(self, prompts: Any, voting: Any) -> Iterator[Exception]:
            return (ConnectionError("for good") for _ in prompts)

    nlp = llm()
    nlp.get_pipe("llm")._model = Failing()
    with pytest.raises(ConnectionError, match="for good"):
        nlp("Two mice.")


# Models of spacy-llm under `nerllama_ner`


def ours(model: str, **settings: Any) -> Language:
    nlp = spacy.blank("en")
    prompt = {"@misc": "nerllama.InstructPrompt.v1"}
    config = {"labels": LABELS, "model": {"@llm_models": model}, "prompt": prompt, **settings}
    nlp.add_pipe("nerllama_ner", config=config)
    return nlp


@pytest.mark.parametrize("model", ["test.REST.v1", "test.Function.v1"])
def test_any_model_of_spacy_llm_can_be_ours(model: str, tmp_path: Path) -> None:
    nlp = ours(model)
    texts = TEXTS * BATCH_SIZE
    assert [entities(doc) for doc in nlp.pipe(texts)] == EXPECTED * BATCH_SIZE
    assert isinstance(nlp.get_pipe("nerllama_ner").model, SpacyLLM)
    assert nlp.get_pipe("nerllama_ner").model.diagnoses.keys() == {"exact"}
    nlp.to_disk(tmp_path)
    assert [entities(doc) for doc in spacy.load(tmp_path).pipe(TEXTS)] == EXPECTED


def test_it_is_given_each_prompt_once_for_each_sample() -> None:
    nlp = ours("test.REST.v1", voting={"samples": 3})
    nlp("Two mice.")
    asked = nlp.get_pipe("nerllama_ner").model._model.asked
    assert [len(prompts) for prompts in asked] == [3, 3]
    assert len({prompt for prompts in asked for prompt in prompts}) == 2


def test_a_doc_that_its_model_fails_on_is_the_only_one(tmp_path: Path) -> None:
    class Fragile(REST):
        def __call__(self, prompts: Iterable[Iterable[str]]) -> Iterable[Iterable[str]]:
            asked = [list(each) for each in prompts]
            if any("lithium" in prompt for each in asked for prompt in each):
                raise ConnectionError("no lithium")
            return super().__call__(asked)

    nlp = ours("test.REST.v1")
    ner = nlp.get_pipe("nerllama_ner")
    ner.model = SpacyLLM(Fragile())
    failed: list[str] = []
    ner.set_error_handler(lambda name, proc, docs, error: failed.extend(f"{doc.text} {error}" for doc in docs))
    assert [entities(doc) for doc in nlp.pipe(TEXTS)] == EXPECTED
    assert failed == ["No lithium (2 mg). no lithium"]


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (lambda prompts: [["one", "two"] for _ in prompts], "2 responses where 1"),
        (lambda prompts: [], "0 lists where 2"),
        (lambda prompts: [[{"error": "busy"}] for _ in prompts], "{'error': 'busy'} where texts"),
    ],
)
def test_a_model_that_answers_otherwise_is_named(model: Any, problem: str) -> None:
    nlp = ours("test.REST.v1")
    nlp.get_pipe("nerllama_ner").model = SpacyLLM(model)
    with pytest.raises(ValueError, match=rf"^\[NL205\] The model gave {problem}"):
        nlp("Two mice.")


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^\[NL204\] 'gpt'"):
        as_model("gpt")
    model = TextModel()
    assert as_model(model) is model


def test_its_answers_can_be_kept_if_it_says_what_it_is(tmp_path: Path) -> None:
    cache = {"@misc": "nerllama.Cache.v1", "path": str(tmp_path / "cache.db")}
    with pytest.raises(ValueError, match=r"^\[NL202\] .*function"):
        ours("test.Function.v1", cache=cache)("Two mice.")
    assert "NoOp" in SpacyLLM(NoOpModel()).fingerprint()

    nlp = ours("test.REST.v1", cache=cache)
    model = nlp.get_pipe("nerllama_ner").model._model
    model.fingerprint = lambda: "mine"
    for _ in range(2):
        assert [entities(doc) for doc in nlp.pipe(TEXTS)] == EXPECTED
    requests = len(model.asked)
    assert requests == len({tuple(prompts) for prompts in model.asked}), "nothing is asked twice"


def test_a_task_without_the_pipeline() -> None:
    """As spacy-llm uses it."""
    nlp = spacy.blank("en")
    task = NerTask(LABELS, CompactPrompt())
    [(prompts, shards)] = task.generate_prompts([nlp("Two mice.")])
    assert list(prompts) == [f"Two mice.\nMark {description}:\n" for description in LABELS.values()]
    [doc] = task.parse_responses([shards], [["Two mice.", "Two @@mice##."]])
    assert entities(doc) == [("mice", "SPECIES")]
    assert isinstance(NerTask(LABELS)._ner.prompt, InstructPrompt)

"""A pipeline that is written and read again marks the same, wherever its adapter came from."""

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from confection import Config
from spacy.language import Language
from spacy.tokens import DocBin

from spacy_nerllama.models.adapter import META
from spacy_nerllama.pipe import NerLlama

TEXTS = ["Mutations of the ATM gene cause ataxia.", "", "No lithium (2 mg) was given at night."]


def found(nlp: Language) -> list[tuple]:
    """Entities, candidates and votes."""
    return [
        (
            [(ent.text, ent.label_) for ent in doc.ents],
            [(span.start, span.end, span.label_) for span in doc.spans["nerllama"]],
            doc.spans["nerllama"].attrs["scores"].tolist(),
        )
        for doc in nlp.pipe(TEXTS)
    ]


@pytest.fixture
def config(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> dict[str, Any]:
    """A component whose labels and thresholds are its adapter's, in a folder that a test may take away."""
    shutil.copytree(tiny_adapter, tmp_path / "adapter")
    adapter = str(tmp_path / "adapter")
    return {"model": {"name": str(tiny_base), "adapter": adapter, "dtype": "float32", "device": "cpu"}}


@pytest.fixture
def nlp(config: dict[str, Any]) -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("nerllama_ner", config=config)
    return nlp


def another(nlp: Language) -> Language:
    """A pipeline with the same config, whose adapter is not read from its folder."""
    return spacy.util.load_model_from_config(nlp.config)


def test_a_pipeline_on_disk(nlp: Language, tmp_path: Path) -> None:
    """The adapter travels with it; the base is named in its config."""
    expected = found(nlp)
    assert any(ents for ents, _, _ in expected)
    nlp.to_disk(tmp_path / "pipeline")
    shutil.rmtree(tmp_path / "adapter")
    loaded = spacy.load(tmp_path / "pipeline")
    assert found(loaded) == expected
    assert loaded.config == nlp.config
    assert loaded.get_pipe("nerllama_ner").labels == ("DISEASE", "GENE")
    size = sum(path.stat().st_size for path in (tmp_path / "pipeline" / "nerllama_ner").rglob("*"))
    assert size < 200_000, "the base does not travel"


def test_a_pipeline_is_read_twice_and_written_over_itself(nlp: Language, tmp_path: Path) -> None:
    expected = found(nlp)
    nlp.to_disk(tmp_path / "pipeline")
    shutil.rmtree(tmp_path / "adapter")
    loaded = spacy.load(tmp_path / "pipeline")
    loaded.to_disk(tmp_path / "pipeline")
    assert found(spacy.load(tmp_path / "pipeline")) == expected


def test_a_pipeline_as_bytes(nlp: Language, tmp_path: Path) -> None:
    expected, data = found(nlp), nlp.to_bytes()
    shutil.rmtree(tmp_path / "adapter")
    assert found(another(nlp).from_bytes(data)) == expected


def through_disk(ner: NerLlama, other: NerLlama, tmp_path: Path, **exclude: Any) -> NerLlama:
    ner.to_disk(tmp_path / "component", **exclude)
    return other.from_disk(tmp_path / "component", **exclude)


def through_bytes(ner: NerLlama, other: NerLlama, tmp_path: Path, **exclude: Any) -> NerLlama:
    return other.from_bytes(ner.to_bytes(**exclude), **exclude)


@pytest.mark.filterwarnings("ignore:.*NLW004")
@pytest.mark.parametrize("through", [through_disk, through_bytes])
def test_what_was_changed_travels(nlp: Language, tmp_path: Path, through: Callable) -> None:
    ner = nlp.get_pipe("nerllama_ner")
    ner.add_label("CHEMICAL", "drug")
    expected = found(nlp)
    assert "CHEMICAL" in {label for _, spans, _ in expected for _, _, label in spans}
    other = another(nlp)
    assert through(ner, other.get_pipe("nerllama_ner"), tmp_path) is other.get_pipe("nerllama_ner")
    assert other.get_pipe("nerllama_ner").label_data == ner.label_data
    assert found(other) == expected


@pytest.mark.parametrize("through", [through_disk, through_bytes])
def test_what_a_config_does_not_name_is_taken_from_what_was_written(
    config: dict[str, Any], tmp_path: Path, through: Callable
) -> None:
    """spaCy's `add_pipe(...).from_disk(...)`."""
    ner = spacy.blank("en").add_pipe("nerllama_ner", config={**config, "labels": {"GENE": "locus"}})
    bare = {**config, "model": {**config["model"], "adapter": None}}
    other = through(ner, spacy.blank("en").add_pipe("nerllama_ner", config=bare), tmp_path)
    assert other.label_data == {"GENE": "locus"}
    assert other.model.adapter == ner.model.adapter


@pytest.mark.parametrize("through", [through_disk, through_bytes])
def test_any_label_that_was_added_travels(nlp: Language, tmp_path: Path, through: Callable) -> None:
    ner = nlp.get_pipe("nerllama_ner")
    for label in ("UMLS:T047", "A=B", "#A", "[A]", " A "):
        ner.add_label(label, "cost in $")
    assert through(ner, another(nlp).get_pipe("nerllama_ner"), tmp_path).label_data == ner.label_data


@pytest.mark.parametrize("through", [through_disk, through_bytes])
def test_what_is_left_out_stays_as_configured(nlp: Language, tmp_path: Path, through: Callable) -> None:
    ner, adapter = nlp.get_pipe("nerllama_ner"), nlp.get_pipe("nerllama_ner").model.adapter
    ner.add_label("CHEMICAL", "drug")
    other = another(nlp).get_pipe("nerllama_ner")
    through(ner, other, tmp_path, exclude=["cfg"])
    assert other.labels == ("DISEASE", "GENE")
    ner.model.set_adapter(None)
    other = another(nlp).get_pipe("nerllama_ner")
    through(ner, other, tmp_path, exclude=["adapter"])
    assert other.model.adapter == adapter
    assert other.labels == ("DISEASE", "GENE", "CHEMICAL")


@pytest.mark.parametrize("through", [through_disk, through_bytes])
def test_that_there_is_no_adapter_travels_too(nlp: Language, tmp_path: Path, through: Callable) -> None:
    ner = nlp.get_pipe("nerllama_ner")
    ner.model.set_adapter(None)
    assert through(ner, another(nlp).get_pipe("nerllama_ner"), tmp_path).model.adapter is None


def test_another_kind_of_model_can_be_named_when_it_is_loaded(nlp: Language, tmp_path: Path) -> None:
    """It takes the adapter that was written, for labels and thresholds; if there was none it keeps its own."""
    (tmp_path / "answers.jsonl").write_text("")
    replay = {"@llm_models": "nerllama.Replay.v1", "path": str(tmp_path / "answers.jsonl")}

    def with_model(model: dict[str, Any], folder: Path) -> NerLlama:
        config = Config().from_disk(folder / "config.cfg")
        config["components"]["nerllama_ner"]["model"] = model
        config.to_disk(folder / "config.cfg")
        return spacy.load(folder).get_pipe("nerllama_ner")

    nlp.to_disk(tmp_path / "local")
    replayed = with_model(replay, tmp_path / "local")
    assert replayed.labels == ("DISEASE", "GENE")
    assert replayed.model.meta["thresholds"] == {"DISEASE": 0.2}

    without = spacy.blank("en")
    without.add_pipe("nerllama_ner", config={"labels": {"GENE": "gene"}, "model": replay})
    without.to_disk(tmp_path / "replay")
    local = with_model(nlp.config["components"]["nerllama_ner"]["model"], tmp_path / "replay")
    assert local.model.adapter == nlp.get_pipe("nerllama_ner").model.adapter is not None


def test_another_adapter_can_be_named_when_it_is_loaded(nlp: Language, tmp_path: Path) -> None:
    """As `evaluate` does with `--components.nerllama_ner.model.adapter`: that one is used, not the one saved."""
    nlp.to_disk(tmp_path / "pipeline")
    shutil.copytree(tmp_path / "adapter", tmp_path / "better")
    meta = json.loads((tmp_path / "better" / META).read_text("utf8"))
    (tmp_path / "better" / META).write_text(json.dumps({**meta, "labels": {"DOSE": "dose"}}), "utf8")
    setting = "components.nerllama_ner.model.adapter"
    loaded = spacy.load(tmp_path / "pipeline", config={setting: str(tmp_path / "better")})
    assert loaded.get_pipe("nerllama_ner").labels == ("DOSE",)
    loaded.to_disk(tmp_path / "again")
    assert spacy.load(tmp_path / "again").get_pipe("nerllama_ner").labels == ("DOSE",)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(spacy.load(tmp_path / "pipeline", config={setting: "./nowhere"}).pipe(TEXTS))


def test_labels_can_be_called_otherwise_when_it_is_loaded(config: dict[str, Any], tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("nerllama_ner", config={**config, "labels": {"DISEASE": "disease"}})
    nlp.get_pipe("nerllama_ner").add_label("GENE", "gene")
    nlp.to_disk(tmp_path / "pipeline")
    assert spacy.load(tmp_path / "pipeline").get_pipe("nerllama_ner").labels == ("DISEASE", "GENE")
    override = {"components.nerllama_ner.labels.DISEASE": "illness"}
    loaded = spacy.load(tmp_path / "pipeline", config=override).get_pipe("nerllama_ner")
    assert loaded.label_data == {"DISEASE": "illness"}


def test_an_adapter_of_an_earlier_pipeline_does_not_stay(nlp: Language, tmp_path: Path) -> None:
    ner = nlp.get_pipe("nerllama_ner")
    ner.to_disk(tmp_path / "component")
    assert (tmp_path / "component" / "adapter").is_dir()
    ner.model.set_adapter(None)
    ner.to_disk(tmp_path / "component")
    assert not (tmp_path / "component" / "adapter").exists()


def test_settings_can_be_changed_when_it_is_loaded(nlp: Language, tmp_path: Path) -> None:
    expected = found(nlp)
    nlp.to_disk(tmp_path / "pipeline")
    strict = spacy.load(tmp_path / "pipeline", config={"components.nerllama_ner.voting.threshold": 1.0})
    assert [(spans, scores) for _, spans, scores in found(strict)] == [x[1:] for x in expected]
    assert not any(ents for ents, _, _ in found(strict)), "no vote reaches 1"

    greedy = spacy.load(tmp_path / "pipeline", config={"components": {"nerllama_ner": {"voting": {"samples": 1}}}})
    assert {score for _, _, scores in found(greedy) for score in scores} == {1.0}


def test_a_config_alone(nlp: Language, tmp_path: Path) -> None:
    """As text it holds every setting, and makes the same component."""
    nlp.config.to_disk(tmp_path / "config.cfg")
    config = spacy.util.load_config(tmp_path / "config.cfg")
    again = spacy.util.load_model_from_config(config)
    assert again.config["components"] == nlp.config["components"]
    assert found(again) == found(nlp)
    section = config["components"]["nerllama_ner"]
    assert section["model"]["@llm_models"] == "nerllama.Llama.v1"
    assert section["voting"]["min_mass"] == 0.02
    assert section["factory"] == "nerllama_ner"


def test_assembled_from_a_config(nlp: Language, tmp_path: Path) -> None:
    """What `spacy assemble` does: made from a config, initialized without examples, written."""
    expected = found(nlp)
    assembled = spacy.util.load_model_from_config(nlp.config, auto_fill=True)
    assembled.initialize()
    assembled.to_disk(tmp_path / "pipeline")
    assert found(spacy.load(tmp_path / "pipeline")) == expected


@pytest.mark.parametrize("copied", [lambda ner: pickle.loads(pickle.dumps(ner)), copy.deepcopy])
def test_a_component_is_copied(nlp: Language, copied: Callable) -> None:
    ner = nlp.get_pipe("nerllama_ner")
    expected = found(nlp)
    again = copied(ner)
    assert again.label_data == ner.label_data
    docs = [nlp.make_doc(text) for text in TEXTS]
    assert [[ent.text for ent in doc.ents] for doc in again.pipe(docs)] == [[e for e, _ in x[0]] for x in expected]


def test_docs_keep_their_candidates(nlp: Language) -> None:
    """In a `DocBin`, without user data: votes are attributes of the group."""
    doc = nlp(TEXTS[0])
    (again,) = DocBin().from_bytes(DocBin(docs=[doc]).to_bytes()).get_docs(nlp.vocab)
    group, expected = again.spans["nerllama"], doc.spans["nerllama"]
    assert [(s.start, s.end, s.label_) for s in group] == [(s.start, s.end, s.label_) for s in expected]
    assert group.attrs["scores"].tolist() == expected.attrs["scores"].tolist()
    assert [ent._.nerllama_vote for ent in again.ents] == [ent._.nerllama_vote for ent in doc.ents]

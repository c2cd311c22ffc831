"""The worker of examples/ray_annotate.py, without a cluster."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import spacy

PATH = Path(__file__).parent.parent / "examples" / "ray_annotate.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    pytest.importorskip("ray")
    spec = importlib.util.spec_from_file_location("ray_annotate", PATH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_batch_of_files(example: ModuleType, tmp_path: Path) -> None:
    """Every document comes out, with its spans and votes, or with why it has none."""
    record = {"text": "Ataxia fell.", "label": "DISEASE", "responses": ["@@Ataxia## fell.", "Ataxia fell."]}
    (tmp_path / "responses.jsonl").write_text(json.dumps(record))
    nlp = spacy.blank("en")
    model = {"@llm_models": "nerllama.Replay.v1", "path": str(tmp_path / "responses.jsonl")}
    nlp.add_pipe("nerllama_ner", config={"labels": {"DISEASE": "disease"}, "model": model})
    nlp.to_disk(tmp_path / "pipeline")
    annotator = example.Annotator(str(tmp_path / "pipeline"))
    texts = ["Ataxia fell.", "", "Nothing.", "x " * 600_000]
    batch = {
        "path": np.array([f"/texts/d{i}.txt" for i in range(len(texts))]),
        "bytes": np.array([text.encode() for text in texts], dtype=object),
    }
    rows = annotator(batch)
    assert rows["id"] == ["d0", "d1", "d2", "d3"]
    assert rows["text"] == texts
    assert rows["spans"] == [[{"start": 0, "end": 6, "label": "DISEASE", "score": 0.5}], [], [], []]
    assert rows["error"][:3] == [None] * 3
    assert "E088" in rows["error"][3]


def test_a_document_that_failed_has_no_spans(example: ModuleType, tmp_path: Path) -> None:
    """Not even those of components before the one that failed, as with `annotate`."""
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "DISEASE", "pattern": "Ataxia"}])
    model = {"@llm_models": "nerllama.Replay.v1", "path": str(tmp_path / "empty.jsonl")}
    nlp.add_pipe("nerllama_ner", config={"labels": {"DISEASE": "disease"}, "model": model})
    (tmp_path / "empty.jsonl").touch()
    nlp.to_disk(tmp_path / "pipeline")
    annotator = example.Annotator(str(tmp_path / "pipeline"))

    def failing(requests, *settings):
        yield from (RuntimeError("no answer") for _ in requests)

    batch = {"path": np.array(["/texts/d0.txt"]), "bytes": np.array([b"Ataxia fell."], dtype=object)}
    assert len(annotator(batch)["spans"][0]) == 1
    annotator.nlp.get_pipe("nerllama_ner").model.vote = failing
    rows = annotator(batch)
    assert rows["error"] == ["nerllama_ner: no answer"]
    assert rows["spans"] == [[]]

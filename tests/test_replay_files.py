"""Recorded responses of the 8B model, where they lie beside the repository: how much of them is kept."""

import json
from pathlib import Path

import pytest
import spacy
from spacy.tokens import Doc

from spacy_nerllama.evaluation import score

FOLDER = Path(__file__).parents[2] / "shared" / "replay"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the recorded responses are not in {FOLDER}")


@pytest.mark.parametrize(
    ("corpus", "label", "description", "f1", "not_exact"),
    [
        ("ncbi-disease", "DISEASE", "disease", 0.8989, 8),
        ("bc5cdr-chem", "CHEMICAL", "chemical", 0.9352, 45),
        ("bc2gm", "GENE", "gene", 0.8301, 97),
    ],
)
def test_strict_f1(corpus: str, label: str, description: str, f1: float, not_exact: int) -> None:
    path = FOLDER / f"{corpus}.test.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
    nlp = spacy.blank("en")
    model = {"@llm_models": "nerllama.Replay.v1", "path": str(path)}
    ner = nlp.add_pipe("nerllama_ner", config={"labels": {label: description}, "model": model})
    docs = nlp.pipe(Doc(nlp.vocab, words=record["text"].split(" ")) for record in records)
    found = [[(ent.start_char, ent.end_char) for ent in doc.ents] for doc in docs]
    gold = [[tuple(span) for span in record["gold"]] for record in records]
    assert score(zip(found, gold, strict=True)).f1 >= f1 - 5e-5
    assert ner.model.diagnoses["unusable"] == 0
    assert ner.model.diagnoses["exact"] == sum(record["response"] is not None for record in records) - not_exact

"""The real base with the bundled adapter, as a user meets them."""

from pathlib import Path

import pytest
import spacy
from spacy.language import Language

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nlp(base_path: Path) -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("nerllama_ner")
    return nlp


def test_the_first_example_of_the_readme(nlp: Language) -> None:
    doc = nlp("Severe torsade de pointes after low dose dobutamine in a carrier of a KCNH2 mutation.")
    found = {(ent.text, ent.label_) for ent in doc.ents}
    assert found >= {("torsade de pointes", "DISEASE"), ("dobutamine", "CHEMICAL")}
    group = doc.spans["nerllama"]
    assert ("KCNH2", "GENE") in {(span.text, span.label_) for span in group}, "in question, whoever wins"
    assert len(group) == len(group.attrs["scores"]) >= len(doc.ents)


def test_obvious_mentions(nlp: Language) -> None:
    texts = [
        "Two sisters with Gaucher disease and epilepsy were treated with lithium carbonate.",
        "We screened 40 families with breast cancer for mutations of BRCA1 and TP53.",
    ]
    first, second = nlp.pipe(texts)
    assert {("epilepsy", "DISEASE"), ("lithium carbonate", "CHEMICAL")} <= {(e.text, e.label_) for e in first.ents}
    assert {("breast cancer", "DISEASE"), ("BRCA1", "GENE"), ("TP53", "GENE")} <= {
        (e.text, e.label_) for e in second.ents
    }


def test_a_text_about_nothing_of_the_kind(nlp: Language) -> None:
    doc = nlp("The committee met on Tuesday and postponed its decision until the spring.")
    assert doc.ents == ()


def test_the_labels_are_the_adapters(nlp: Language) -> None:
    assert set(nlp.get_pipe("nerllama_ner").labels) == {"DISEASE", "CHEMICAL", "GENE"}


def test_written_and_read(nlp: Language, tmp_path: Path) -> None:
    text = "Low doses of haloperidol caused parkinsonism in a carrier of a CYP2D6 variant."
    doc = nlp(text)
    nlp.to_disk(tmp_path / "pipeline")
    loaded = spacy.load(tmp_path / "pipeline")(text)
    assert [(ent.text, ent.label_) for ent in loaded.ents] == [(ent.text, ent.label_) for ent in doc.ents]
    assert doc.ents

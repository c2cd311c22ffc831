"""The demo, `examples/demo.py`."""

import importlib.util
import re
from pathlib import Path

import pytest
import spacy
from command_lines import ROOT
from spacy.tokens import Doc

from spacy_nerllama.requests import TokenSpan
from spacy_nerllama.sentences import sentence_spans


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo", ROOT / "examples" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def doc() -> Doc:
    """A doc with votes as a model would give them; thresholds are 0.5."""
    nlp = spacy.blank("en")
    config = {"labels": {"GENE": "gene", "DISEASE": "disease"}, "model": {"name": "never loaded"}}
    component = nlp.add_pipe("nerllama_ner", config=config)
    doc = nlp.make_doc("TGF-β and\n<b>ataxia</b> in Brugada syndrome.")
    words = [token.text for token in doc]
    gene, disease = words.index("TGF"), words.index("Brugada")
    votes = {
        TokenSpan(gene, gene + 3, "GENE"): 0.97,
        TokenSpan(disease, disease + 2, "DISEASE"): 0.6,
        TokenSpan(disease, disease + 1, "DISEASE"): 0.3,
        TokenSpan(disease, disease + 2, "GENE"): 0.55,
    }
    component.set_annotations([doc], [votes])
    return doc


def test_the_terminal_shows_text_entities_and_runners_up(demo, doc, capsys) -> None:
    demo.show(doc)
    text, entities, runners_up = re.split(r"\n(?=entity +label|Runners-up)", capsys.readouterr().out, maxsplit=2)
    assert text.strip() == "1  [TGF-β GENE] and <b>ataxia</b> in [Brugada syndrome DISEASE]."
    assert [re.split(r"  +", line) for line in entities.splitlines()[2:4]] == [
        ["TGF-β", "GENE", "0.97", "1"],
        ["Brugada syndrome", "DISEASE", "0.60", "1"],
    ]
    assert "(2 of 2)" in runners_up
    assert re.search(r"Brugada syndrome +GENE +0\.55 +1\nBrugada +DISEASE +0\.30 +1\n", runners_up)


def test_the_page_stands_alone_and_shows_votes(demo, doc) -> None:
    page = demo.page(doc)
    assert '<meta charset="utf-8">' in page
    assert "GENE 0.97" in page
    assert "DISEASE 0.60" in page
    assert "&lt;b&gt;ataxia" in page  # the text stays text
    assert not re.search(r"(?:src|href)=", page)
    colors = re.findall(r"<mark[^>]*background: (#\w+)", page)
    assert len(set(colors)) == len(colors) == 2


def test_a_text_without_entities(demo, capsys) -> None:
    nlp = spacy.blank("en")
    config = {"labels": {"GENE": "gene"}, "model": {"name": "never loaded"}}
    component = nlp.add_pipe("nerllama_ner", config=config)
    doc = nlp.make_doc("Nothing here.")
    component.set_annotations([doc], [{}])
    demo.show(doc)
    assert "1  Nothing here." in capsys.readouterr().out
    assert "Nothing here." in demo.page(doc)


def test_a_missing_file_is_a_clear_error(demo, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        demo.main(tmp_path / "missing.txt", tmp_path / "demo.html")
    assert stopped.value.code == 1
    assert "missing.txt" in capsys.readouterr().out
    assert not (tmp_path / "demo.html").exists()


def test_the_sample_is_an_abstract(demo) -> None:
    doc = spacy.blank("en")(demo.ABSTRACT.read_text("utf8"))
    assert 7 <= len(sentence_spans(doc)) <= 10


def test_the_demo_with_the_real_model(demo, base_path: Path, tmp_path: Path, capsys) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Flecainide was given for ventricular fibrillation.\n", encoding="utf8")
    demo.main(text, tmp_path / "demo.html")
    printed = " ".join(capsys.readouterr().out.split())
    assert "Marking 1 sentences for" in printed
    assert re.search(r"Found \d+ entities in", printed)
    assert "demo.html" in printed
    assert "ventricular fibrillation" in (tmp_path / "demo.html").read_text("utf8")

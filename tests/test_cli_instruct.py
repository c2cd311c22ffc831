"""`instruct`: what fine-tuning would teach, as text for other trainers."""

import re
from pathlib import Path

import pytest
import typer
from pyarrow.parquet import read_table
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab
from typer.testing import CliRunner

from spacy_nerllama.cli.instruct import instruct_cli

app = typer.Typer()
app.command()(instruct_cli)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Sentences with one disease and one chemical each, two of them the same but for their spaces."""
    docs = DocBin()
    for who, spaces in (("Anna", True), ("Bert", True), ("Carla", True), ("Carla", False)):
        words = [who, "took", "lithium", "for", "gout", "."]
        doc = Doc(Vocab(), words=words, spaces=[True, True, True, True, spaces, False])
        doc.set_ents([Span(doc, 2, 3, "CHEMICAL"), Span(doc, 4, 5, "DISEASE")])
        docs.add(doc)
    docs.to_disk(tmp_path / "train.spacy")
    return tmp_path / "train.spacy"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def rows(path: Path) -> list[dict]:
    return read_table(path).to_pylist()


def test_a_row_for_each_sentence_and_label(corpus: Path, tmp_path: Path) -> None:
    code, printed = run(corpus, tmp_path / "out.parquet")
    assert code == 0
    assert "Wrote 8 instructions" in printed
    first, second, *_ = rows(tmp_path / "out.parquet")
    assert first == {
        "messages": [
            {"role": "user", "content": "Anna took lithium for gout .\nMark chemical:\n"},
            {"role": "assistant", "content": "Anna took @@lithium## for gout ."},
        ],
        "request": "Anna took lithium for gout .\nMark chemical:\n",
        "response": "Anna took @@lithium## for gout .",
        "label": "CHEMICAL",
    }
    assert (second["label"], second["response"]) == ("DISEASE", "Anna took lithium for @@gout## .")


def test_all_labels_in_one_row(corpus: Path, tmp_path: Path) -> None:
    labels = "DISEASE=disease,CHEMICAL=drug"
    assert run(corpus, tmp_path / "out.parquet", "-p", "multi-task", "--labels", labels)[0] == 0
    first, *others = rows(tmp_path / "out.parquet")
    assert len(others) == 3
    assert first["label"] == "DISEASE,CHEMICAL"
    assert first["request"].endswith("\nMark disease, drug:\n")
    assert first["response"] == "Anna took @drug@lithium#drug# for @disease@gout#disease# ."


def test_in_context_examples_are_never_the_sentence_itself(corpus: Path, tmp_path: Path) -> None:
    """Not even tokenised in another way."""
    code, _ = run(corpus, tmp_path / "out.parquet", "--prompt", "paper", "--examples", corpus, "--n-examples", 9)
    assert code == 0
    for row in rows(tmp_path / "out.parquet"):
        system, user, assistant = row["messages"]
        assert system["role"] == "system"
        assert (user["content"], assistant["content"]) == (row["request"], row["response"])
        inputs = re.findall(r"Input:\n(.*)", row["request"])
        asked = inputs.pop()
        assert len(inputs) == (2 if asked.startswith("Carla") else 3)
        assert asked.split()[0] not in " ".join(inputs)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--prompt", "papers"], "NL065"),
        (["--examples", "train.spacy"], "NL066"),
        (["--labels", "DISEASE"], "NL112"),
    ],
)
def test_what_is_wrong_is_said(corpus: Path, tmp_path: Path, arguments: list[str], code: str) -> None:
    status, printed = run(corpus, tmp_path / "out.parquet", *arguments)
    assert (status, code in printed) == (1, True)
    assert not (tmp_path / "out.parquet").exists()
    assert run(tmp_path / "none.spacy", tmp_path / "out.parquet")[0] == 1


def test_docs_without_entities_teach_nothing_unless_their_labels_are_given(tmp_path: Path) -> None:
    doc = Doc(Vocab(), words=["Nothing", "here", "."])
    doc.set_ents([])
    DocBin(docs=[doc]).to_disk(tmp_path / "in.spacy")
    for prompt in ("compact", "multi-task"):
        assert "Wrote 0" in run(tmp_path / "in.spacy", tmp_path / "out.parquet", "-p", prompt)[1]
        assert rows(tmp_path / "out.parquet") == []
    printed = run(tmp_path / "in.spacy", tmp_path / "out.parquet", "--labels", "GENE=gene")[1]
    assert "Wrote 1" in printed
    assert "has the label GENE" in printed

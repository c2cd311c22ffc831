"""docs/tutorial.md, every command and snippet in the order of the page, on its own data and a tiny Llama."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import spacy
import srsly
from command_lines import ROOT
from spacy.cli._util import app
from test_readme import blocks, joined
from typer.testing import CliRunner

PAGE = ROOT / "docs" / "tutorial.md"
LINES = ROOT / "examples" / "tutorial" / "dose.jsonl"


def commands() -> list[str]:
    return [line for block in blocks(PAGE, "sh") for line in joined(block).splitlines()]


def test_the_line_that_the_page_shows_is_one_of_the_file() -> None:
    (shown,) = (json.loads(block) for block in blocks(PAGE, "json"))
    (line,) = (line for line in srsly.read_jsonl(LINES) if line["text"] == shown["text"])
    assert {key: line[key] for key in shown} == shown


def test_no_document_is_cut_by_the_split() -> None:
    sources = [line["meta"]["source"] for line in srsly.read_jsonl(LINES)]
    parts = [sources[:21], sources[21:27], sources[27:]]
    assert [len(part) for part in parts] == [21, 6, 5]
    assert len(set(sources)) == sum(len(set(part)) for part in parts)
    splits = [line for line in commands() if " convert " in line]
    assert [line.split(".spacy")[1].split() for line in splits] == [
        ["--limit", "21"],
        ["--skip", "21", "--limit", "6"],
        ["--skip", "27"],
    ]


@pytest.mark.slow
# `spacy package` leaves the files that it writes to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*en_dose:pytest.PytestUnraisableExceptionWarning")
def test_the_page_from_top_to_bottom(
    base_path: Path, tiny_base: Path, tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    for folder in ("configs", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "examples" / "tutorial" / "recipe.cfg"
    text = recipe.read_text()
    assert (bundled := 'init = "bundled"') in text
    recipe.write_text(text.replace(bundled, f'init = "{tiny_adapter}"'))
    tiny = ["--base.name", str(tiny_base), "--base.dtype", "float32", "--base.device", "cpu"]
    in_small = {
        "finetune": [*tiny, "--training.max_steps", "1"],
        "assemble": ["--paths.base", str(tiny_base), "--components.nerllama_ner.model.device", "cpu"],
        "package": ["--build", "none"],
    }
    outputs = []
    for line in commands():
        words = shlex.split(line)[3:]
        verb = words[1] if words[0] == "nerllama" else words[0]
        result = CliRunner().invoke(app, [*words, *in_small.get(verb, [])], catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        outputs.append(result.output)
    assert "answer reject                 2" in outputs[0]
    assert "answer ignore                 1" in outputs[0]

    assert srsly.read_json(tmp_path / "training" / "dose" / "meta.json")["labels"] == {"DOSE": "dose"}
    scores = srsly.read_json(tmp_path / "metrics" / "dose.json")
    assert set(scores["strict"]["labels"]) == {"DOSE"}
    assert (tmp_path / "metrics" / "dose.html").is_file()

    first, second = blocks(PAGE, "python")
    names: dict = {}
    capsys.readouterr()
    exec(first, names)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(names["doc"].spans["nerllama"]) > 0
    assert {line.split()[-2] for line in printed} == {"DOSE"}
    # The tiny adapter needs its own base.
    exec(second.replace('"adapter":', f'"name": {str(tiny_base)!r}, "adapter":'), names)
    doc = names["doc"]
    assert {span.label_ for span in doc.spans["dose"]} == {"DOSE"}
    assert "CHEMICAL" in {span.label_ for span in doc.spans["nerllama"]}

    package = tmp_path / "training" / "en_dose-0.1.0" / "en_dose" / "en_dose-0.1.0"
    assert spacy.load(package).get_pipe("nerllama_ner").labels == ("DOSE",)

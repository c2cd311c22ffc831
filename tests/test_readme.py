"""README and docs: their snippets run, their commands exist, their links lead somewhere."""

import ast
import re
from pathlib import Path

import pytest
from command_lines import ROOT, check_benchmark_command, check_spacy_command
from confection import Config

from spacy_nerllama.factory import DEFAULT_CONFIG
from spacy_nerllama.finetune.recipe import read_recipe

README = ROOT / "README.md"
FINETUNING = ROOT / "docs" / "finetuning.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
ADAPTER = ROOT / "spacy_nerllama" / "assets" / "smollm2-135m"


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf8"), flags=re.DOTALL | re.MULTILINE)


def joined(block: str) -> str:
    """Lines that go on after a backslash as one."""
    return re.sub(r"\\\n\s*", "", block)


def benchmark_lines() -> list[str]:
    """Commands that run a benchmark, in blocks and within sentences."""
    found = []
    for page in PAGES:
        parts = re.split(r"^```\w*\n(.*?)^```", page.read_text("utf8"), flags=re.DOTALL | re.MULTILINE)
        found += [line for block in parts[1::2] for line in joined(block).splitlines()]
        found += [" ".join(code.split()) for prose in parts[::2] for code in re.findall(r"`([^`]+)`", prose)]
    return [line for line in found if line.startswith("python benchmarks/")]


def shell_lines() -> list[str]:
    found = [line for page in PAGES for block in blocks(page, "sh") for line in joined(block).splitlines()]
    return [line.partition("  #")[0].strip() for line in found]


@pytest.mark.usefixtures("base_path")
def test_the_snippets_of_the_readme_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    first, entities, *others = blocks(README, "python")
    exec(first, names)
    (shown,) = re.findall(r"^# (\[.*\])$", first, re.MULTILINE)
    ents = [[ent[:2] for ent in ast.literal_eval(ents)] for ents in (shown, capsys.readouterr().out)]
    assert ents[0] == ents[1], "votes may differ where the hardware has bfloat16"
    doc = names["doc"]
    assert doc.ents
    assert {ent.label_ for ent in doc.ents} <= {"DISEASE", "CHEMICAL", "GENE"}
    assert len(doc.spans["nerllama"].attrs["scores"]) == len(doc.spans["nerllama"]) >= len(doc.ents)
    assert (tmp_path / "pipeline" / "nerllama_ner" / "adapter").is_dir()
    exec(entities, names)
    assert len(capsys.readouterr().out.splitlines()) == len(doc.ents) + len(doc.spans["nerllama"])
    for snippet in others:
        exec(snippet, names)
    assert len(others) == 3


def test_the_config_in_the_readme_is_the_default() -> None:
    (block,) = blocks(README, "ini")
    component = Config().from_str(f"[components]\n{block}")["components"]["nerllama_ner"]
    assert component.pop("factory") == "nerllama_ner"
    assert component == DEFAULT_CONFIG


def test_the_recipe_in_the_docs_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "recipe.cfg"
    whole, prompt = blocks(FINETUNING, "ini")
    path.write_text(whole)
    assert read_recipe(path)[0].labels == {"DISEASE": "disease"}
    path.write_text(re.sub(r"\[prompt\].*?(?=\[training\])", prompt, whole, flags=re.DOTALL))
    assert read_recipe(path)[0].scheme.tells_labels


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_comment_becomes_part_of_a_value(page: Path) -> None:
    """As one would that follows a value on its line."""
    for block in blocks(page, "ini"):
        assert re.findall(r"^[^#\n]+#.*", block, flags=re.MULTILINE) == []


@pytest.mark.parametrize("line", shell_lines())
def test_a_command_of_the_docs_exists(line: str) -> None:
    if line.startswith("make "):
        target = line.split()[1]
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif command := re.match(r"(python|accelerate launch --multi_gpu --num_processes 2) -m spacy ", line):
        check_spacy_command(f"python -m spacy {line[command.end() :]}")
    else:
        assert line == "pip install ." or line in benchmark_lines()


@pytest.mark.parametrize("line", benchmark_lines())
def test_a_benchmark_of_the_docs_takes_its_options(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        check_benchmark_command(line)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


def test_a_benchmark_that_lacks_an_option_or_has_none_such_is_found() -> None:
    for line in ("python benchmarks/accuracy.py", "python benchmarks/abstract.py --no-such-option"):
        with pytest.raises(SystemExit):
            check_benchmark_command(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_exist(page: Path) -> None:
    text = page.read_text("utf8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    for link in links:
        assert link.startswith("https://") or (page.parent / link).exists(), link
    for script in re.findall(r"`python ([\w/]+\.py)", text):
        assert (ROOT / script).is_file(), script
    for module in re.findall(r"`([\w/]+\.py)`", text):
        assert any(path.is_file() for path in (ROOT / module, ROOT / "spacy_nerllama" / module)), module


def test_what_was_run_has_its_interval() -> None:
    """As the benchmark writes it: no figure of ours is put in by hand."""
    table = README.read_text("utf8").split("<!-- accuracy table -->")[1].split("<!-- end of")[0]
    ours = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ours")]
    cells = [cell.strip() for _, *cells in ours for cell in cells if cell.strip()]
    assert cells
    assert all(re.fullmatch(r"0\.\d{3} \(0\.\d{3} to 0\.\d{3}\)", cell) for cell in cells)
    assert (ROOT / "docs" / "results.png").is_file()


def test_the_places_for_measured_output_are_marked() -> None:
    text = README.read_text("utf8")
    for name in ("demo output", "accuracy table"):
        assert text.count(f"<!-- {name} -->") == text.count(f"<!-- end of {name} -->") == 1

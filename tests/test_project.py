"""`project.yml` and `configs/pipeline.cfg`: every command, run for real on invented corpora and a tiny Llama."""

import hashlib
import shutil
import sys
from pathlib import Path

import pytest
import spacy
import srsly
from command_lines import ROOT, check_spacy_command
from confection import Config
from spacy.cli._util import app
from typer.testing import CliRunner
from weasel.cli import run as weasel_run
from weasel.cli.document import project_document
from weasel.util import load_project_config

from spacy_nerllama.factory import DEFAULT_CONFIG
from spacy_nerllama.finetune.recipe import read_recipe

PUBTATOR = (
    "1|t|Flecainide in Brugada syndrome.\n1|a|Flecainide made ataxia worse.\n"
    "1\t0\t10\tFlecainide\t{chemical}\tX\n1\t14\t30\tBrugada syndrome\t{disease}\tX\n"
    "1\t32\t42\tFlecainide\t{chemical}\tX\n1\t48\t54\tataxia\t{disease}\tX\n\n"
)
IOB = "Some\tO\n{word}\tB{label}\nhere\tO\n.\tO\n\nNone\tO\nthere\tO\n.\tO\n\n"
LABEL_OF = {
    "NCBI-disease": "-Disease",
    "BC5CDR-chem": "-Chemical",
    "BC5CDR-disease": "-Disease",
    "BC2GM": "-GENE",
    "NLM-Gene": "",
    "NLM-Chem": "",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project; loading it makes folders."""
    shutil.copy(ROOT / "project.yml", tmp_path)
    for folder in ("configs", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


@pytest.fixture
def config(project: Path) -> dict:
    """The project with its variables put in, validated by weasel."""
    return load_project_config(project)


def scripts(config: dict) -> list[str]:
    return [line for command in config["commands"] for line in command["script"]]


def test_every_script_names_commands_and_options_that_exist(config: dict) -> None:
    for line in scripts(config):
        check_spacy_command(line)


@pytest.mark.parametrize(
    "line",
    [
        "python -m spacy nerllama transform a.txt b.spacy",
        "python -m spacy nerllama convert a.txt b.spacy --formt iob",
        "python -m spacy nerllama finetune configs/smollm2-135m.cfg -o a --training.epoch 3",
        "python -m spacy assemble configs/pipeline.cfg out --paths.adaptor a",
        "python -m spacy evaluate a b c",
    ],
)
def test_a_script_that_is_wrong_would_be_found(line: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no (such )?(command|option)|NL061|has no|too many|unexpected"):
        check_spacy_command(line)


def test_the_readme_lists_the_commands_as_they_are(project: Path) -> None:
    """Made by: python -m spacy project document --no-emoji --output README.md"""
    shutil.copy(ROOT / "README.md", project)
    project_document(project, project / "README.md", no_emoji=True)
    assert (project / "README.md").read_text("utf8") == (ROOT / "README.md").read_text("utf8")


def test_commands_are_wired_by_their_files(config: dict) -> None:
    corpora = config["vars"]["corpora"]
    assets = {asset["dest"] for asset in config["assets"]}
    made: set[str] = set()
    for command in config["commands"]:
        words = {word for line in command["script"] for word in line.split()}
        for dep in command["deps"]:
            is_asset = any(f"{dest}/".startswith(f"{dep}/") for dest in assets)
            assert is_asset or dep in made or (ROOT / dep).exists(), dep
        outputs = [*command.get("outputs", ()), *command.get("outputs_no_cache", ())]
        assert outputs, f"{command['name']} would never be skipped"
        for output in outputs:
            assert any(output == word or output.startswith(f"{word}/") for word in words), output
        for word in words:  # what a script reads is a dependency
            if word.startswith(f"{corpora}/"):
                assert word in assets
            if word.startswith("corpus/"):
                assert word in {*command["deps"], *outputs}
        made.update(outputs)
    sentences = {Path(dest) for dest in assets if dest.endswith(".in")}
    assert {str(path.with_suffix(".GENE.eval")) for path in sentences} <= assets


@pytest.mark.parametrize("name", ["finetune", "finetune-mt", "finetune-transfer"])
def test_recipes_are_trained_on_what_convert_makes(config: dict, name: str) -> None:
    commands = {command["name"]: command for command in config["commands"]}
    recipe, _ = read_recipe(ROOT / commands[name]["deps"][0])
    files = {path for corpus in recipe.corpora.values() for path in (corpus.train, corpus.devel)}
    assert files <= set(commands["convert"]["outputs"])
    assert files == {dep for dep in commands[name]["deps"] if dep.startswith("corpus/")}
    assert not any("test" in str(path) for path in files)


def test_nothing_of_the_transfer_corpora_is_trained_on() -> None:
    recipe, _ = read_recipe(ROOT / "configs" / "smollm2-135m-transfer.cfg")
    taught = {(name, label) for name, corpus in recipe.corpora.items() for label in corpus.labels}
    assert {name for name, label in taught if label == "DISEASE"} == {"ncbi", "ncbi_iob"}
    assert not any("nlm" in corpus.train for corpus in recipe.corpora.values())


def test_the_checksums_are_those_of_the_corpora(config: dict) -> None:
    folder = ROOT.parent / "shared" / "corpora"
    if not folder.is_dir():
        pytest.skip(f"the corpora are not in {folder}")
    for asset in config["assets"]:
        if asset.get("extra"):
            continue  # fetched from a fixed commit; we have no copy
        path = folder / Path(asset["dest"]).relative_to(config["vars"]["corpora"])
        assert hashlib.md5(path.read_bytes()).hexdigest() == asset["checksum"], path


def test_the_pipeline_config_has_every_setting_with_its_default() -> None:
    config = Config().from_disk(ROOT / "configs" / "pipeline.cfg")
    component = config["components"]["nerllama_ner"]
    assert component.pop("factory") == "nerllama_ner"
    assert component == DEFAULT_CONFIG


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """Invented corpora in the layout of the assets."""
    folder = tmp_path / "assets"
    for name, chemical, disease in (
        ("ncbi-disease", "CompositeMention", "SpecificDisease"),
        ("bc5cdr", "Chemical", "Disease"),
    ):
        (folder / name).mkdir(parents=True)
        for split in ("train", "devel", "test"):
            # A sentence of a devel split is left out of training: each split has its own.
            text = PUBTATOR.format(chemical=chemical, disease=disease).replace("worse", f"worse in {name} {split}")
            (folder / name / f"{split}.PubTator.txt").write_text(text)
    (folder / "bc2gm").mkdir()
    for split in ("train", "test"):
        lines = "".join(f"{split}{i} The KCNH{i} gene .\n" for i in range(5))
        mentions = "".join(f"{split}{i}|3 7|KCNH{i}\n" for i in range(5))
        (folder / "bc2gm" / f"{split}.in").write_text(lines)
        (folder / "bc2gm" / f"{split}.GENE.eval").write_text(mentions)
    for name, label in LABEL_OF.items():
        (folder / "iob" / name).mkdir(parents=True)
        for split in ("train", "devel", "test"):
            (folder / "iob" / name / f"{split}.tsv").write_text(IOB.format(word=f"{name}{split}", label=label))
    return folder


@pytest.fixture
def commands_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs the project's commands in this process, which has the libraries loaded; gives the list of them."""
    lines: list[str] = []

    def run_here(command: list[str], **_: object) -> None:
        assert command[:3] == [sys.executable, "-m", "spacy"]
        result = CliRunner().invoke(app, command[3:], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        lines.append(" ".join(command[3:]))

    monkeypatch.setattr(weasel_run, "run_command", run_here)
    return lines


@pytest.mark.slow
# `spacy package` leaves the files that it writes to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*packages:pytest.PytestUnraisableExceptionWarning")
def test_the_whole_project_runs_and_a_second_run_does_nothing(
    project: Path, corpora: Path, tiny_base: Path, commands_run: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (project / "configs").glob("smollm2-135m*.cfg"):
        recipe = Config().from_disk(path, interpolate=False)
        recipe["base"] |= {"name": str(tiny_base), "quantization": None, "dtype": "float32", "device": "cpu"}
        recipe["adapter"] |= {"r": 2}
        recipe["training"] |= {"max_steps": 1}
        recipe.to_disk(path)
    settings = {
        "samples": 1,
        "build": "none",
        "base": str(tiny_base),
        "corpora": str(corpora),
        "device": "cpu",
        "bc2gm_train": 3,
    }
    overrides = {f"vars.{key}": value for key, value in settings.items()}
    monkeypatch.chdir(project)
    weasel_run.project_run(project, "all", overrides=overrides)

    counts = {
        path.stem: len(list(spacy.tokens.DocBin().from_disk(path).get_docs(spacy.blank("en").vocab)))
        for path in (project / "corpus").glob("*.spacy")
    }
    assert counts["bc2gm-train"] == 3
    assert counts["bc2gm-devel"] == 2
    assert counts["ncbi-iob-test"] == 2
    for name in ("ncbi-iob", "bc5cdr-chem-iob", "bc5cdr-disease-iob", "bc2gm-iob"):
        metrics = srsly.read_json(project / "metrics" / f"{name}.json")
        label = {"ncbi": "DISEASE", "bc2gm": "GENE"}.get(name.split("-")[0])
        label = label or {"chem": "CHEMICAL", "disease": "DISEASE"}[name.split("-")[1]]
        assert set(metrics["strict"]["labels"]) == {label}

    done = list(commands_run)
    verbs = [" ".join(line.split()[: 1 + line.startswith("nerllama")]) for line in done]
    assert verbs == [
        *["nerllama convert"] * 21,
        *["nerllama instruct"] * 4,
        "nerllama finetune",
        "assemble",
        *["nerllama evaluate"] * 4,
        "package",
    ]
    weasel_run.project_run(project, "all", overrides=overrides)
    assert commands_run == done

    # The pipeline holds its adapter: the one that was trained can go.
    text = "Flecainide in ataxia."
    votes = [span_votes(spacy.load(project / "training" / "pipeline")(text))]
    shutil.rmtree(project / "training" / "adapter")
    votes.append(span_votes(spacy.load(project / "training" / "pipeline")(text)))
    assert votes[0] == votes[1] != {}

    # The other workflows go on from the same conversion.
    for workflow, metrics in (("mt", "bc2gm-iob-mt"), ("transfer", "nlm-chem-iob-transfer"), ("smoke", "sample")):
        commands_run.clear()
        weasel_run.project_run(project, workflow, overrides=overrides)
        assert not [line for line in commands_run if "assets" in line and "nlm-" not in line]
        assert (project / "metrics" / f"{metrics}.json").is_file()
    mt = spacy.load(project / "training" / "pipeline-mt")
    assert mt.get_pipe("nerllama_ner").prompt.names == mt.get_pipe("nerllama_ner").label_data


def span_votes(doc: spacy.tokens.Doc) -> dict[tuple[str, str], float]:
    group = doc.spans["nerllama"]
    return {(span.text, span.label_): float(vote) for span, vote in zip(group, group.attrs["scores"], strict=True)}

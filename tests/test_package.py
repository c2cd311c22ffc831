"""The package as such: what its import costs, what it ships, what it registers, how it speaks."""

import configparser
import importlib.metadata
import os
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest

import spacy_nerllama
from spacy_nerllama.errors import Errors, Warnings

PACKAGE = Path(spacy_nerllama.__file__).parent
HEAVY = ["transformers", "peft", "bitsandbytes", "datasets", "accelerate", "spacy_llm"]


def setup_cfg(section: str) -> dict[str, list[str]]:
    """The lines of each option of a section."""
    path = PACKAGE.parent / "setup.cfg"
    if not path.is_file():
        pytest.skip("not a source checkout")
    config = configparser.ConfigParser(delimiters="=", interpolation=None)
    config.read(path, encoding="utf8")
    return {option: value.split("\n")[1:] for option, value in config[section].items()}


def entry_points() -> list[str]:
    groups = setup_cfg("options.entry_points")
    return [f"{group}: {line}" for group, lines in groups.items() for line in lines]


@pytest.mark.parametrize("module", ["", ".cli", ".factory", ".task", ".models", ".tokenizer"])
def test_import_is_light(module):
    code = f"import sys, spacy_nerllama{module}; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[]\n"


@pytest.mark.parametrize("line", entry_points())
def test_entry_point_resolves(line):
    group, name, value = re.fullmatch(r"(\w+): (\S+) = (\S+)", line).groups()
    loaded = importlib.metadata.EntryPoint(name, value, group).load()
    assert callable(loaded)


def test_spacys_command_line_has_our_commands():
    try:
        importlib.metadata.distribution("spacy-nerllama")
    except importlib.metadata.PackageNotFoundError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("spacy-nerllama is not installed")
    command = [sys.executable, "-m", "spacy", "nerllama", "--help"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for name in ["download", "convert", "finetune", "evaluate", "annotate", "instruct", "merge"]:
        assert re.search(rf"^ +{name} ", result.stdout, flags=re.MULTILINE)


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_the_wheel_ships_every_data_file():
    patterns = setup_cfg("options.package_data")["spacy_nerllama"]
    shipped = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    data = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert data - shipped == set()


CODES = {"E": "NL", "W": "NLW"}
MESSAGES = {name: text for each in (Errors, Warnings) for name, text in vars(each).items() if name[0] in CODES}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_carries_its_code_and_named_fields(name):
    text = MESSAGES[name]
    assert text.startswith(f"[{CODES[name[0]]}{name[1:]}] ")
    fields = [field for _, field, _, _ in string.Formatter().parse(text) if field is not None]
    assert all(fields), "fields have names"

"""Command lines as documents and `project.yml` write them: are their commands and options real?"""

import argparse
import runpy
import shlex
from pathlib import Path

import click
import pytest
from confection import Config
from spacy.cli._util import app, parse_config_overrides
from typer.main import get_command

import spacy_nerllama.cli  # noqa: F401 (adds our commands)
from spacy_nerllama.finetune.recipe import read_recipe

ROOT = Path(__file__).parent.parent


class ParsedError(Exception):
    """The options of a command are right; it is not run."""


def check_benchmark_command(line: str) -> None:
    """Parse `python benchmarks/NAME.py ...` as the script would, without running it.

    RAISES: SystemExit if an option does not exist, lacks its value, or is required and not there.
    """
    _, script, *words = shlex.split(line, comments=True)
    parse_args = argparse.ArgumentParser.parse_args

    def parse(parser: argparse.ArgumentParser) -> None:
        parse_args(parser, words)
        raise ParsedError

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))  # they import one another
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        with pytest.raises(ParsedError):
            runpy.run_path(str(ROOT / script))["main"]()


def check_spacy_command(line: str) -> None:
    """Parse `python -m spacy ...` as spaCy's command line would, without running it.

    Overrides of recipes and pipeline configs that exist in the repository are checked against them.
    RAISES: click.UsageError, ValueError or AssertionError if a command, an option or an override does not exist.
    """
    words = shlex.split(line, comments=True)
    assert words[:3] == ["python", "-m", "spacy"], line
    command: click.Command = get_command(app)
    context = click.Context(command)
    rest = words[3:]
    while hasattr(command, "get_command"):
        name, *rest = rest
        found = command.get_command(context, name)
        assert found is not None, f"no command {name!r}: {line}"
        command = found
        context = click.Context(command, parent=context, info_name=name)
        context.ignore_unknown_options = bool(command.context_settings.get("ignore_unknown_options"))
        context.allow_extra_args = context.ignore_unknown_options
    values, extra, _ = command.make_parser(context).parse_args(list(rest))
    assert extra == [] or context.allow_extra_args, f"too many arguments: {line}"
    if command.name in ("finetune", "assemble"):
        path = ROOT / str(values.get("recipe_path") or values.get("config_path"))
        overrides = parse_config_overrides(extra)
        if path.is_file() and command.name == "finetune":
            read_recipe(path, overrides)
        elif path.is_file():
            known = Config().from_disk(path, interpolate=False)
            for key in overrides:
                section: object = known
                for part in key.split("."):
                    assert isinstance(section, dict), f"{path.name} has no {key}"
                    if part not in section and any(name.startswith("@") for name in section):
                        break  # an argument of a registered function: spaCy checks it
                    assert part in section, f"{path.name} has no {key}"
                    section = section[part]

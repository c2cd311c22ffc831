"""`python -m spacy nerllama ...`; spaCy's command line imports this module by its entry point `spacy_cli`.

Every spaCy command pays for this import, so commands import what they need when they run.
"""

import typer
from spacy.cli._util import app as spacy_app

from .convert import convert_cli
from .download import download_cli
from .evaluate import evaluate_cli
from .finetune import finetune_cli

HELP = "Named entity recognition with Llama models: fetch the base model, convert corpora, fine-tune, evaluate."

app_entry = typer.Typer(name="nerllama", help=HELP, no_args_is_help=True, rich_markup_mode=None)
app_entry.command("download")(download_cli)
app_entry.command("convert", no_args_is_help=True)(convert_cli)
app_entry.command(
    "finetune",
    no_args_is_help=True,
    # Overrides of the recipe (--section.key value) are parsed by the command itself, as in `spacy train`.
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(finetune_cli)
app_entry.command(
    "evaluate",
    no_args_is_help=True,
    # So are overrides of the pipeline's config.
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(evaluate_cli)

spacy_app.add_typer(app_entry)

"""`python -m spacy nerllama ...`; spaCy's command line imports this module by its entry point `spacy_cli`.

Every spaCy command pays for this import, so commands import what they need when they run.
"""

import typer
from spacy.cli._util import app as spacy_app

from .annotate import annotate_cli
from .convert import convert_cli
from .download import download_cli
from .evaluate import evaluate_cli
from .finetune import finetune_cli
from .instruct import instruct_cli
from .merge import merge_cli

HELP = "Named entity recognition with Llama models: from corpora to a scored pipeline, and from texts to entities."
# Overrides of a config (--section.key value) are parsed by the commands themselves, as in `spacy train`.
OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}

app_entry = typer.Typer(name="nerllama", help=HELP, no_args_is_help=True, rich_markup_mode=None)
app_entry.command("download")(download_cli)
app_entry.command("convert", no_args_is_help=True)(convert_cli)
app_entry.command("instruct", no_args_is_help=True)(instruct_cli)
app_entry.command("finetune", no_args_is_help=True, context_settings=OVERRIDES)(finetune_cli)
app_entry.command("merge", no_args_is_help=True)(merge_cli)
app_entry.command("evaluate", no_args_is_help=True, context_settings=OVERRIDES)(evaluate_cli)
app_entry.command("annotate", no_args_is_help=True, context_settings=OVERRIDES)(annotate_cli)

spacy_app.add_typer(app_entry)

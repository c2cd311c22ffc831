"""`python -m spacy nerllama finetune`: a recipe -> an adapter folder."""

from pathlib import Path
from typing import Annotated

from typer import Argument as Arg
from typer import Context
from typer import Option as Opt

from .overrides import config_overrides


def finetune_cli(
    ctx: Context,
    recipe_path: Annotated[Path, Arg(metavar="RECIPE.cfg", help="Recipe: base, adapter, corpora, training")],
    output: Annotated[Path, Opt("--output", "-o", help="Folder for the adapter and its checkpoints")],
    resume: Annotated[bool, Opt("--resume", help="Go on from the last checkpoint in the output folder")] = False,
    resume_from: Annotated[Path | None, Opt("--resume-from", help="Go on from this checkpoint (a folder)")] = None,
) -> None:
    """
    Fine-tune an adapter with QLoRA. Settings of the recipe can be overridden as in `spacy train`, for example
    --training.epochs 3 --corpora.ncbi.limit 1000. Ctrl-C stops a run; --resume goes on from its last checkpoint.
    The output folder is what the setting `adapter` of the component's model takes.
    """
    import logging

    from wasabi import msg

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    overrides = config_overrides(ctx)
    from ..finetune.recipe import read_recipe
    from ..finetune.train import finetune

    try:
        recipe, config = read_recipe(recipe_path, overrides)
        folder = finetune(recipe, config, output, resume_from or resume)
    except (ValueError, OSError, ImportError) as error:
        msg.fail("No adapter was trained", str(error), exits=1)
    except KeyboardInterrupt:
        msg.warn("Stopped", f"Go on from the last checkpoint with: --output {output} --resume")
        raise SystemExit(130) from None
    msg.good(f"Adapter written to {folder}")

"""`python -m spacy nerllama finetune`: a recipe -> an adapter folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument as Arg
from typer import Context, echo
from typer import Option as Opt

from .overrides import config_overrides

if TYPE_CHECKING:
    from ..finetune.recipe import Recipe


def finetune_cli(
    ctx: Context,
    recipe_path: Annotated[Path, Arg(metavar="RECIPE.cfg", help="Recipe: base, adapter, corpora, training")],
    output: Annotated[
        Path | None, Opt("--output", "-o", help="Folder for the adapter and its checkpoints")
    ] = None,
    resume: Annotated[bool, Opt("--resume", help="Go on from the last checkpoint in the output folder")] = False,
    resume_from: Annotated[Path | None, Opt("--resume-from", help="Go on from this checkpoint (a folder)")] = None,
    dry_run: Annotated[
        bool, Opt("--dry-run", help="Only tell what memory the recipe needs, without weights")
    ] = False,
    memory: Annotated[
        str | None,
        Opt("--memory", help="With --dry-run: what must be enough, such as 16GB [default: the device's]"),
    ] = None,
) -> None:
    """
    Fine-tune an adapter with QLoRA. Recipes that come with the project, in configs/: smollm2-135m.cfg (for a CPU),
    llama3.1-8b-16gb.cfg and -8gb.cfg (by the size of the GPU), -mt.cfg (all labels in one reading), -paper.cfg
    (the paper's settings) and -multi-gpu.cfg (through `accelerate launch --multi_gpu`). Settings can be overridden
    as in `spacy train`, for example --training.epochs 3 --corpora.ncbi.limit 1000 --base.name NAME (a folder, a
    hub name, or a .gguf file).

    --dry-run tells what memory a recipe needs, and fails if there is less. Ctrl-C stops a run; --resume goes on
    from its last checkpoint. The output folder is what the setting `adapter` of the component's model takes.
    """
    import logging

    from wasabi import msg

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    overrides = config_overrides(ctx)
    if output is None and not dry_run:
        ctx.fail("Missing option '--output' / '-o'.")
    if memory is not None and not dry_run:
        ctx.fail("--memory goes with --dry-run: a run takes what the device has.")
    from ..errors import NotTunedError
    from ..finetune.recipe import read_recipe, with_init

    try:
        recipe, config = read_recipe(recipe_path, overrides, examples=not dry_run)
        recipe = with_init(recipe)
        if dry_run:
            _print_plan(recipe, memory)
            return
        _warn(recipe)
        from ..finetune.train import finetune

        assert output is not None
        folder = finetune(recipe, config, output, resume_from or resume)
    except NotTunedError as error:
        msg.fail("The thresholds were not tuned", str(error), exits=1)
    except (MemoryError, ValueError, OSError, ImportError) as error:
        what = "There is no plan" if dry_run else "No adapter was trained"
        msg.fail("The recipe does not fit" if isinstance(error, MemoryError) else what)
        echo(error)  # line by line: `msg` would wrap a list of problems to one paragraph
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        msg.warn("Stopped", f"Go on from the last checkpoint with: --output {output} --resume")
        raise SystemExit(130) from None
    msg.good(f"Adapter written to {folder}")


def _print_plan(recipe: "Recipe", memory: str | None) -> None:
    """Print what a recipe needs and what would fit.

    RAISES: MemoryError if the recipe does not.
    """
    from wasabi import msg

    from ..finetune.memory import RESERVED, check, device_memory, largest, plan, read_memory, shape_of
    from ..models.loading import check_device, resolve_device, resolve_dtype

    device = resolve_device(recipe.base.device)
    check_device(device)
    shape = shape_of(recipe.base.name)
    size = resolve_dtype(recipe.base.dtype, device).itemsize
    msg.table(
        plan(shape, recipe, size).table(), header=("", "parameters", "GB"), divider=True, aligns=("l", "r", "r")
    )
    room = read_memory(memory) if memory else device_memory(device)
    if room is None:
        msg.info(
            f"How much memory {device} has is not known: --memory 16GB says whether the recipe fits into that."
        )
        return
    longest, batch = largest(shape, recipe, room - RESERVED, size)
    msg.text(
        f"Into {room / 1e9:.1f} GB ({RESERVED / 1e9:.1f} kept for the driver) fit: a sequence of {longest} "
        f"tokens, or a batch of {batch} of {recipe.training.max_tokens}."
    )
    check(shape, recipe, room, size)
    msg.good("The recipe fits")
    if memory is None and device == "cpu":
        msg.text(
            "On a CPU a process takes more than is counted: Python, its libraries, and copies while it loads."
        )


def _warn(recipe: "Recipe") -> None:
    """Warn if the device has less memory than the recipe will need, where both can be told.

    RAISES: ValueError if the device is not there.
    """
    from wasabi import msg

    from ..finetune.memory import check, device_memory, shape_of
    from ..models.loading import check_device, resolve_device, resolve_dtype

    device = resolve_device(recipe.base.device)
    check_device(device)
    room = device_memory(device)
    try:
        if room is not None:
            check(shape_of(recipe.base.name), recipe, room, resolve_dtype(recipe.base.dtype, device).itemsize)
    except MemoryError as error:
        msg.warn("The run is likely to fail", str(error))
    except OSError:  # what is not here yet will be fetched, or missed, when the base is loaded
        return

"""Checkpoints that are whole: each is sealed when its last file is written, and known by its seal."""

import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

from ..errors import Errors, Warnings
from ..files import replacing

logger = logging.getLogger(__name__)

SEAL = "complete.json"
SETTINGS = "settings.json"
REVISION = "base.revision"
_NAME = re.compile(r"checkpoint-(\d+)")


def seal(folder: Path) -> None:
    """Say that a checkpoint is whole: write the size of each of its files to its `complete.json`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        with path.open("rb+") as file:
            os.fsync(file.fileno())  # the seal must not reach the disk before what it vouches for
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    with replacing(folder / SEAL) as temporary:
        temporary.write_text(json.dumps(sizes, indent=2) + "\n", "utf8")


def unseal(folder: Path) -> None:
    """Take the seal off a checkpoint that is going to be written again."""
    (folder / SEAL).unlink(missing_ok=True)


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint was written to its end, and its files still have their sizes."""
    try:
        sizes = json.loads((folder / SEAL).read_text("utf8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def save_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a run into a checkpoint."""
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", "utf8")


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Check that a run has the settings of the one that wrote a checkpoint.

    Of a base in a folder the revision is not known; that it is another one, its config says.

    RAISES: ValueError, naming those that differ.
    """
    path = folder / SETTINGS
    then = json.loads(path.read_text("utf8"))
    if None in (then.get(REVISION), settings.get(REVISION)):
        then, settings = ({**each, REVISION: None} for each in (then, settings))
    differing = [key for key in sorted({*then, *settings}) if then.get(key) != settings.get(key)]
    if differing:
        problems = "\n".join(f"  {key}: {then.get(key)!r} then, {settings.get(key)!r} now" for key in differing)
        raise ValueError(Errors.E230.format(path=folder, problems=problems))


def checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a run, whole or not, the last one first."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: -int(path.name.split("-")[1]))


def last_whole(folder: Path) -> Path | None:
    """Give the last whole checkpoint of a run, None if there is none."""
    return next((path for path in checkpoints(folder) if is_whole(path)), None)


def resume_from(folder: Path, wanted: bool | Path) -> Path | None:
    """Find the checkpoint to go on from.

    Others that are not whole, as a run leaves one that was killed while it saved, are deleted, with a warning.

    folder: The folder of the run's checkpoints.
    wanted: True: the last whole one, if there is any. A path: this one, of this run or another. False: none.
    RAISES: FileExistsError if there are checkpoints, and none is wanted, or one of another run; ValueError if the
        one that is named is not whole.
    """
    foreign = isinstance(wanted, Path) and wanted.resolve().parent != folder.resolve()
    if (foreign or not wanted) and checkpoints(folder):
        raise FileExistsError(Errors.E062.format(path=folder))
    if not wanted:
        return None
    if isinstance(wanted, Path) and not is_whole(wanted):
        found = ", ".join(path.name for path in checkpoints(wanted.parent) if is_whole(path)) or "none"
        raise ValueError(Errors.E161.format(path=wanted, folder=wanted.parent, found=found))
    for path in checkpoints(folder):
        if not is_whole(path):
            logger.warning(Warnings.W160.format(path=path))
            shutil.rmtree(path, ignore_errors=True)  # of several processes each is about to delete it
    last = wanted if isinstance(wanted, Path) else last_whole(folder)
    if last is None:
        logger.warning(Warnings.W164.format(folder=folder))
    return last

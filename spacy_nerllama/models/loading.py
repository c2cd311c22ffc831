"""Load a base model and its tokenizer: a Hugging Face folder or hub name, or a GGUF file."""

import copy
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GgufConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from ..base import BUNDLED, bundled_base, data_folder
from ..errors import Errors
from ..files import replacing

logger = logging.getLogger(__name__)

Quantization = Literal["nf4"]
DType = Literal["auto", "float32", "bfloat16", "float16"]


def load_base(
    name: str | None = None,
    quantization: Quantization | None = None,
    dtype: DType = "auto",
    device: str = "auto",
) -> tuple[PreTrainedModel, Any]:
    """Load a base model.

    name: A folder, a `.gguf` file or a hub name. None: the bundled base.
    quantization: "nf4" quantises the linear layers to 4 bits as QLoRA does (Dettmers et al., arXiv:2305.14314),
        with double quantisation.
    dtype: What the model computes in. "auto": bfloat16 where the hardware has it, else float32.
    device: A torch device. "auto": the first CUDA GPU if there is one, else the CPU.
    RETURNS: The model in evaluation mode, its weights frozen, and its tokenizer.
    RAISES: FileNotFoundError if the bundled base was not downloaded, or a path does not exist; OSError or
        ValueError if it cannot be had from the hub, or is no causal language model.
    """
    where = resolve_device(device)
    check_device(where, quantization)
    kind = resolve_dtype(dtype, where)
    folder = _folder(name)
    config = {}  # an explicit None would hide the quantisation of a base that is stored quantised
    if quantization == "nf4":
        config["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=kind,
        )
    try:
        with _without_bar(name is None):
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=kind, device_map={"": where}, **config)
    except (OSError, ValueError) as error:  # the hub's errors are among these
        kind_of_error = OSError if isinstance(error, OSError) else ValueError
        reason = str(error).strip().split("\n")[0]
        raise kind_of_error(Errors.E177.format(name=folder, reason=reason)) from error
    keep_unpacked(model, fitting=False)
    model.requires_grad_(False)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


@contextmanager
def _without_bar(without: bool) -> Iterator[None]:
    """Keep transformers from showing how it loads, where that takes a second."""
    shown = transformers_logging.is_progress_bar_enabled()
    if without:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if without and shown:
            transformers_logging.enable_progress_bar()


def load_tokenizer(name: str | None) -> Any:
    """Load the tokenizer of a base alone; `name` as `load_base` takes it."""
    return AutoTokenizer.from_pretrained(_folder(name))


def load_config(name: str | None) -> Any:
    """Load the config of a base alone; `name` as `load_base` takes it."""
    return AutoConfig.from_pretrained(_folder(name))


def base_key(name: str | None, quantization: Quantization | None, dtype: DType, device: str) -> tuple[Any, ...]:
    """Give what tells bases apart, whatever way their settings are written. No file is read.

    RETURNS: The path (or hub name), the name, size and time of each file, the quantisation, dtype and device,
        which need not be there.
    """
    where = resolve_device(device)
    path = BUNDLED.path if name is None else Path(name).expanduser()
    files = sorted(path.glob("*")) if path.is_dir() else [path] if path.is_file() else []
    stats = tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return (
        str(path.resolve()) if stats else str(name),
        stats,
        quantization,
        str(resolve_dtype(dtype, where)),
        where,
    )


def share_weights(base: PreTrainedModel) -> PreTrainedModel:
    """Make another model of the weights of one: no weight is copied, and all else is the copy's own.

    So each adapter has layers, an output head and a mode (training or evaluation) to itself, on weights that are
    in memory once, as long as nobody changes those in place.
    """
    weights = [*base.parameters(), *base.buffers()]
    states = [state for weight in weights if (state := getattr(weight, "quant_state", None)) is not None]
    return copy.deepcopy(base, {id(part): part for part in (*weights, *states)})


def keep_unpacked(model: torch.nn.Module, fitting: bool) -> None:
    """Keep bitsandbytes from packing 4-bit layers for the CPU's bfloat16 instructions.

    It packs a layer at its first pass in evaluation mode, on CPUs that have them (0.50). Layers of some shapes
    cannot be packed: it fails. Packed layers pass no gradient: training would go on without it after the first
    evaluation, and say nothing.

    fitting: Also those that could be packed, for a model that will be trained.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and hasattr(module, "support_avx512bf16_for_cpu"):
            fits = module.in_features % 64 == 0 and module.out_features % 32 == 0
            if fitting or not fits:
                setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 (mypy does not know it)


def resolve_device(device: str) -> str:
    """Give the device that "auto" means here, or the device itself."""
    if device != "auto":
        return device
    # LOCAL_RANK: of several processes that train together, each has a GPU of its own.
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def check_device(device: str, quantization: Quantization | None = None) -> None:
    """Check that a device is there, and that what is asked of it is known to work.

    RAISES: ValueError if not.
    """
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ValueError(Errors.E168.format(device=device, torch=torch.__version__)) from error
    kind = where.type
    if kind in ("cuda", "mps", "xpu") and (where.index or 0) >= getattr(torch, kind).device_count():
        raise ValueError(Errors.E168.format(device=device, torch=torch.__version__))
    if quantization is not None:
        import bitsandbytes

        if kind not in bitsandbytes.supported_torch_devices:
            what = f'quantization = "{quantization}"'
            raise ValueError(Errors.E169.format(what=what, device=device, version=bitsandbytes.__version__))


def resolve_dtype(dtype: DType, device: str) -> torch.dtype:
    """Give the dtype that "auto" means on a device, or the dtype itself."""
    if dtype != "auto":
        return getattr(torch, dtype)
    if device.startswith("cuda"):
        there = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if there else torch.float32
    # Without the instructions bfloat16 is emulated, an order of magnitude slower than float32.
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def _folder(name: str | None) -> str:
    """Give the folder or hub name to load from. A GGUF file is converted once."""
    if name is None:
        return str(_converted(bundled_base()))
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise FileNotFoundError(Errors.E042.format(path=path))
        return str(_converted(path))
    if path.is_dir() and name:
        return str(path)
    if not name or path.is_absolute() or name.startswith((".", "~")):
        raise FileNotFoundError(Errors.E042.format(path=path))
    return name


def _converted(gguf: Path) -> Path:
    """Convert a GGUF file to a safetensors folder in the data folder, once.

    Reading GGUF takes half a minute for the smallest model, and cannot be combined with NF4 in one load.
    """
    stat = gguf.stat()
    key = hashlib.sha256(f"{gguf.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}".encode()).hexdigest()[:12]
    folder = data_folder() / "converted" / f"{gguf.stem}-{key}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():  # else another process has just done it
            _convert(gguf, folder)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    """Convert a GGUF file to a safetensors folder: all of it, or nothing."""
    logger.info("Converting %s to %s: this is done once.", gguf, folder)
    with replacing(folder) as temporary:
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        model.save_pretrained(temporary)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(temporary)
        mode = (temporary / "config.json").stat().st_mode
        for path in temporary.iterdir():
            path.chmod(mode)  # safetensors lets nobody else read what it writes

"""LoRA adapters: read and write them, and put one on a base."""

import hashlib
import json
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import Errors

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from .tokens import TextEncoder

WEIGHTS, CONFIG, META = "adapter_model.safetensors", "adapter_config.json", "meta.json"


@dataclass(frozen=True)
class Adapter:
    """An adapter as it travels: on disk a folder that PEFT reads too, in a pipeline's bytes a dict.

    config: PEFT's config of it.
    weights: The content of its safetensors file.
    meta: What was trained on what, by `finetune`; empty for an adapter from elsewhere. Among others `labels`
        (what the prompt calls each), `thresholds` (by label) and `base`.
    """

    config: dict[str, Any]
    weights: bytes = field(repr=False)
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_folder(cls, folder: Path) -> "Adapter":
        """Read an adapter folder.

        RAISES: FileNotFoundError if the folder or a file is missing.
        """
        if not folder.is_dir():
            raise FileNotFoundError(Errors.E049.format(path=folder))
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise FileNotFoundError(Errors.E043.format(path=folder, file=name))
        meta = folder / META
        return cls(
            json.loads((folder / CONFIG).read_text("utf8")),
            (folder / WEIGHTS).read_bytes(),
            json.loads(meta.read_text("utf8")) if meta.is_file() else {},
        )

    def to_folder(self, folder: Path) -> None:
        """Write the adapter to a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(json.dumps(self.config, indent=2) + "\n", "utf8")
        (folder / WEIGHTS).write_bytes(self.weights)
        text = json.dumps(self.meta, indent=2, ensure_ascii=False)
        (folder / META).write_text(text + "\n", "utf8")

    def to_dict(self) -> dict[str, Any]:
        """Give the adapter as a dict of what msgpack can write."""
        return {"config": self.config, "weights": self.weights, "meta": self.meta}

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the config and the weights."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode() + self.weights).hexdigest()

    @classmethod
    def of(cls, model: "PeftModel", meta: dict[str, Any]) -> "Adapter":
        """Take the adapter off a model as it is now, in the precision of its training; the model keeps it."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save

        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        base = meta.get("base", {}).get("name")  # not where it happens to lie on this machine
        own = {"inference_mode": True, "base_model_name_or_path": base}
        config = {**model.peft_config["default"].to_dict(), **own}
        plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
        return cls(json.loads(json.dumps(plain)), save(weights, {"format": "pt"}), meta)

    def put_on(
        self, base: "PreTrainedModel", encoder: "TextEncoder", trainable: bool = False
    ) -> "PreTrainedModel":
        """Put the adapter on its base.

        base: The base, which is changed. After an error it is of no more use.
        trainable: Whether the adapter's weights can be trained.
        RAISES: ValueError if it was trained on another base (its shapes or its tokenizer differ), is no LoRA
            adapter, or its weights cannot be read.
        """
        from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
        from safetensors import SafetensorError
        from safetensors.torch import load

        trained_on = self.meta.get("base", {})
        for fact, value in base_facts(base.config, encoder).items():
            if (theirs := trained_on.get(fact, value)) != value:
                name = trained_on.get("name")
                raise ValueError(Errors.E044.format(fact=fact, adapter=theirs, base=value, name=name))
        if (kind := self.config.get("peft_type", "LORA")) != "LORA":
            raise ValueError(Errors.E056.format(type=kind))
        try:
            weights = load(self.weights)
        except SafetensorError as error:
            raise ValueError(Errors.E055.format(reason=error)) from error
        name = self.config.get("base_model_name_or_path")
        try:
            # The base is here, whatever its name was where the adapter was trained.
            config = {**self.config, "inference_mode": not trainable, "base_model_name_or_path": None}
            with warnings.catch_warnings():  # peft 0.21 calls what transformers 5 has renamed
                warnings.simplefilter("ignore", FutureWarning)
                model = get_peft_model(base, LoraConfig.from_peft_type(**config))
            differing = get_peft_model_state_dict(model, save_embedding_layers=False).keys() ^ weights.keys()
            set_peft_model_state_dict(model, weights)
        except (RuntimeError, ValueError) as error:  # torch: sizes differ; peft: it has no such layers
            reason = str(error).splitlines()[-1].strip()
            raise ValueError(Errors.E045.format(name=name, reason=reason)) from error
        if differing:
            reason = f"{len(differing)} tensors are in one and not in the other, such as {min(differing)}"
            raise ValueError(Errors.E045.format(name=name, reason=reason))
        return cast("PreTrainedModel", model.eval())  # it passes on what it is asked for to the base


def base_facts(config: Any, encoder: "TextEncoder") -> dict[str, Any]:
    """Give what must agree between an adapter's base and another: shapes and tokenizer.

    config: The base's Hugging Face config.
    """
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "tokenizer": encoder.fingerprint(),
    }


def adapter_folder(name: str, local_files_only: bool = False) -> Path:
    """Find an adapter: a folder, or a hub name, of which the newest revision is fetched.

    local_files_only: Fetch nothing: give what is here.
    RAISES: FileNotFoundError if there is no such folder, or it is not to be had from the hub.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise FileNotFoundError(Errors.E049.format(path=path))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    wanted = [CONFIG, META, WEIGHTS]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=local_files_only))
    except (OSError, HFValidationError) as error:  # all errors of the hub are among these
        reason = str(error).strip().split("\n")[0]
        raise FileNotFoundError(Errors.E170.format(name=name, reason=reason)) from error

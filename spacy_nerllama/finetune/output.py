"""What a fine-tuning run leaves: the adapter folder."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from confection import Config
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save

from ..base import BUNDLED
from ..cards import CARD, adapter_card, base_licence, base_revision
from ..evaluation import Counts
from ..files import replacing
from ..models.adapter import META, WEIGHTS, Adapter, base_facts
from ..models.loading import load_config
from ..models.tokens import TextEncoder
from ..prompts import DEFAULT_PROMPT
from .curve import CURVE, save_curve
from .recipe import Recipe, init_folder

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "spacy", "spacy-nerllama")
# What says how a config was loaded, not which model it is of.
_LOADING = ("_name_or_path", "dtype", "quantization_config", "transformers_version", "use_cache")


def adapter_weights(model: PeftModel) -> dict[str, torch.Tensor]:
    """Give the weights of a model's adapter as they are published: bfloat16, in main memory."""
    return {
        name: tensor.detach().to("cpu", torch.bfloat16, copy=True).contiguous()
        for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }


def describe(recipe: Recipe, config: Config, encoder: TextEncoder) -> dict[str, Any]:
    """Give the `meta.json` of an adapter to be trained: on what, with what, and what it is good for.

    config: The recipe as written.
    """
    name, base = recipe.base.name or BUNDLED.name, load_config(recipe.base.name)
    init = init_folder(recipe.adapter)
    return {
        "base": {
            "name": name,
            "licence": base_licence(name),
            "revision": base_revision(name),
            "config_sha256": _config_hash(base),
            **base_facts(base, encoder),
        },
        "init": Adapter.from_folder(init).fingerprint if init else None,
        "labels": recipe.labels,
        "prompt": config.get("prompt", DEFAULT_PROMPT),
        "loss": recipe.training.loss,
        "generates_text": recipe.training.loss != "decision",
        "thresholds": {},
        "data": {
            corpus: {
                split: {"file": Path(path).name, "sha256": _file_hash(Path(path))}
                for split, path in (("train", section.train), ("devel", section.devel))
                if path is not None
            }
            for corpus, section in recipe.corpora.items()
        },
        "recipe": recipe.model_dump(mode="json", include={"base", "adapter", "training", "thresholds"}),
        "versions": {library: version(library) for library in LIBRARIES},
    }


def save_adapter(
    folder: Path,
    model: PeftModel,
    weights: dict[str, torch.Tensor],
    meta: dict[str, Any],
    config: Config,
    history: list[dict[str, Any]],
) -> None:
    """Write an adapter folder: weights, PEFT's config, and what was trained on what.

    folder: Gets `adapter_model.safetensors`, `adapter_config.json`, `meta.json`, `README.md`, `recipe.cfg`,
        `history.json` and, where matplotlib is installed, `curve.png`.
    model: The model that the adapter is of.
    meta: As `describe` gives it.
    config: The recipe as written.
    history: The Trainer's log.

    Until weights and config are written there is no `meta.json`: what is cut short cannot pass for what was there.
    """
    (folder / META).unlink(missing_ok=True)
    with replacing(folder / WEIGHTS) as temporary:
        # Not `save_file`, which lets nobody else read what it writes (mode 0600).
        temporary.write_bytes(save(weights, metadata={"format": "pt"}))
    peft_config = model.peft_config["default"]
    peft_config.base_model_name_or_path = meta["base"]["name"]
    peft_config.inference_mode = True
    peft_config.save_pretrained(str(folder))
    _write_meta(folder, meta)
    config.to_disk(folder / "recipe.cfg", interpolate=False)
    _write_json(folder / "history.json", history)
    save_curve(history, folder / CURVE)


def save_thresholds(folder: Path, tuned: dict[str, tuple[float, Counts]]) -> None:
    """Write tuned thresholds to an adapter's `meta.json` and card, with the devel scores that they reach."""
    meta = json.loads((folder / META).read_text("utf8"))
    meta["thresholds"] = {label: threshold for label, (threshold, _) in tuned.items()}
    meta["devel"] = {
        label: {"p": round(c.precision, 4), "r": round(c.recall, 4), "f": round(c.f1, 4), "mentions": c.gold}
        for label, (_, c) in tuned.items()
    }
    _write_meta(folder, meta)


def _write_meta(folder: Path, meta: dict[str, Any]) -> None:
    _write_json(folder / META, meta)
    with replacing(folder / CARD) as temporary:
        temporary.write_text(adapter_card(meta), "utf8")


def _write_json(path: Path, content: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf8")


def _config_hash(config: Any) -> str:
    facts = {key: value for key, value in config.to_diff_dict().items() if key not in _LOADING}
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()

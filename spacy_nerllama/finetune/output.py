"""What a fine-tuning run leaves: the adapter folder."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from confection import Config
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file

from ..base import BUNDLED
from ..evaluation import Counts
from ..models.adapter import META, WEIGHTS, base_facts
from ..models.tokens import TextEncoder
from .recipe import Recipe


def save_adapter(
    model: PeftModel,
    folder: Path,
    recipe: Recipe,
    config: Config,
    encoder: TextEncoder,
    history: list[dict[str, Any]],
) -> None:
    """Write an adapter folder: weights in bfloat16, PEFT's config, and what was trained on what.

    folder: Gets `adapter_model.safetensors`, `adapter_config.json`, `meta.json`, `recipe.cfg` and `history.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.to("cpu", torch.bfloat16).contiguous()
        for name, tensor in get_peft_model_state_dict(model).items()
    }
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    base = recipe.base.name or BUNDLED.name
    peft_config = model.peft_config["default"]
    peft_config.base_model_name_or_path = base
    peft_config.inference_mode = True
    peft_config.save_pretrained(str(folder))
    meta = {
        "base": {"name": base, **base_facts(model.get_base_model().config, encoder)},
        "labels": recipe.labels,
        "prompt": config.get("prompt", {"@misc": "nerllama.CompactPrompt.v1"}),
        "loss": recipe.training.loss,
        "generates_text": recipe.training.loss != "decision",
        "thresholds": {},
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes", "spacy")},
    }
    _write_json(folder / META, meta)
    _write_json(folder / "history.json", history)
    config.to_disk(folder / "recipe.cfg", interpolate=False)


def save_thresholds(folder: Path, tuned: dict[str, tuple[float, Counts]]) -> None:
    """Write tuned thresholds to an adapter's `meta.json`, with the devel scores that they reach."""
    path = folder / META
    meta = json.loads(path.read_text("utf8"))
    meta["thresholds"] = {label: threshold for label, (threshold, _) in tuned.items()}
    meta["devel"] = {
        label: {"p": round(c.precision, 4), "r": round(c.recall, 4), "f": round(c.f1, 4), "mentions": c.gold}
        for label, (_, c) in tuned.items()
    }
    _write_json(path, meta)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf8")

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
from ..models.adapter import base_facts
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
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
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
    (folder / "meta.json").write_text(json.dumps(meta, indent=2, ensure_ascii=False) + "\n", encoding="utf8")
    (folder / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf8")
    config.to_disk(folder / "recipe.cfg", interpolate=False)

"""LoRA adapters: read and write them, and put one on a base."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import Errors
from .tokens import TextEncoder


def base_facts(config: Any, encoder: TextEncoder) -> dict[str, Any]:
    """Give what must agree between an adapter's base and another: shapes and tokenizer.

    config: The base's Hugging Face config.
    """
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "tokenizer": encoder.fingerprint(),
    }

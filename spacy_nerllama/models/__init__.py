"""Models turn requests into votes."""

from typing import Literal

from .llama import Llama
from .replay import Replay
from .vllm import VLLM


def make_llama(
    name: str | None = None,
    adapter: str | None = None,
    quantization: Literal["nf4"] | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str = "auto",
) -> Llama:
    """Make a local model, loaded on first use. Registered as `nerllama.Llama.v1`; settings as `Llama` has them."""
    return Llama(name, adapter, quantization, dtype, device)


def make_replay(path: str) -> Replay:
    """Make a model of recorded responses, read on first use. Registered as `nerllama.Replay.v1`."""
    return Replay(path)


make_vllm = VLLM
"""Registered as `nerllama.VLLM.v1`."""

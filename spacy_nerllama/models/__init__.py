"""Models turn requests into votes."""

from .llama import Llama as Llama
from .replay import Replay as Replay
from .vllm import VLLM as VLLM

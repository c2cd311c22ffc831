"""Settings for training in spaCy's own loop. `finetune.updating` does the work; this imports nothing heavy."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from .errors import Errors

Loss = Literal["decision", "response", "both", "full"]


@dataclass(frozen=True)
class Updating:
    """How the component is updated. Registered as `nerllama.Updating.v1`.

    loss, response_weight: The loss, as recipes of `finetune` name it.
    max_tokens: Sentences longer than this, with their prompt, in tokens of the language model are left out.
    batch_tokens: The most tokens in a pass, padding included, which bounds memory whatever spaCy's batcher gives.
    gradient_checkpointing: Compute activations again in the backward pass, to save memory.
    """

    loss: Loss = "decision"
    response_weight: float = 0.5
    max_tokens: int = 512
    batch_tokens: int = 1536
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if (
            self.loss not in get_args(Loss)
            or min(self.max_tokens, self.batch_tokens) < 1
            or self.response_weight <= 0
        ):
            losses = ", ".join(get_args(Loss))
            raise ValueError(Errors.E173.format(settings=self, losses=losses))


def make_lora(r: int = 16, alpha: int = 32, target_modules: list[str] | None = None) -> dict[str, Any]:
    """Describe a new LoRA adapter (Hu et al., arXiv:2106.09685). Registered as `nerllama.Lora.v1`.

    Its dropout is the dropout of spaCy's [training].

    target_modules: The layers that it changes. None: all linear layers but the output head.
    RETURNS: Settings of PEFT's `LoraConfig`; a dict, since spaCy hands on nothing else to `initialize`.
    """
    return {"r": r, "lora_alpha": alpha, "target_modules": target_modules or "all-linear"}

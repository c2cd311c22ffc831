"""Settings for training in spaCy's own loop. `finetune.updating` does the work; this imports nothing heavy."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from .errors import Errors

UpdateLoss = Literal["decision", "response", "full"]


@dataclass(frozen=True)
class Updating:
    """How the component is updated. Registered as `nerllama.Updating.v1`.

    loss: The loss, as recipes of `finetune` name it.
    max_tokens: Sentences longer than this, with their prompt, in tokens of the language model are left out.
    batch_tokens: The most tokens in a pass, padding included, which bounds memory whatever spaCy's batcher gives.
    gradient_checkpointing: Compute activations again in the backward pass, to save memory.
    """

    loss: UpdateLoss = "decision"
    max_tokens: int = 512
    batch_tokens: int = 1536
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.loss not in get_args(UpdateLoss) or min(self.max_tokens, self.batch_tokens) < 1:
            losses = ", ".join(get_args(UpdateLoss))
            raise ValueError(Errors.E173.format(settings=self, losses=losses))


@dataclass(frozen=True)
class Lora:
    """A new LoRA adapter (Hu et al., arXiv:2106.09685). Registered as `nerllama.Lora.v1`.

    Its dropout is the dropout of spaCy's [training].
    """

    r: int = 16
    alpha: int = 32
    target_modules: list[str] = field(
        default_factory=lambda: "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
    )

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as PEFT's `LoraConfig` takes them."""
        return {"r": self.r, "lora_alpha": self.alpha, "target_modules": self.target_modules}

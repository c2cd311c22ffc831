"""The best adapter of a run is kept, and a run that gets no better is stopped."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl

from .output import adapter_weights

BEST = "best_adapter.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """An adapter's weights as they were after a step, and how good they were.

    f1: On the devel requests, greedy readings.
    loss: On the devel sequences.
    """

    step: int
    f1: float
    loss: float
    weights: dict[str, Tensor]

    @property
    def rank(self) -> tuple[float, float]:
        """The higher F1 is the better; of equal ones, the lower loss."""
        return self.f1, -self.loss

    def to_file(self, path: Path) -> None:
        """Write weights and scores to a safetensors file."""
        facts = {"step": str(self.step), "f1": repr(self.f1), "loss": repr(self.loss)}
        save_file(self.weights, path, metadata=facts)

    @classmethod
    def from_file(cls, path: Path) -> "Snapshot":
        """Read what `to_file` wrote."""
        with safe_open(path, "pt") as file:
            facts = file.metadata()
        return cls(int(facts["step"]), float(facts["f1"]), float(facts["loss"]), load_file(path))


class KeepBest(TrainerCallback):
    """Keeps the adapter with the best devel F1, and ends a run after `patience` evaluations without a better one.

    Each checkpoint holds the best one up to there, so that any of them can be gone on from, wherever it was moved.
    """

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.best: Snapshot | None = None

    def save(self, checkpoint: Path) -> None:
        """Write the best adapter so far into a checkpoint."""
        if self.best:
            self.best.to_file(checkpoint / BEST)

    def load(self, checkpoint: Path) -> None:
        """Read what `save` wrote, if it wrote anything."""
        path = checkpoint / BEST
        self.best = Snapshot.from_file(path) if path.is_file() else None

    def on_train_begin(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> TrainerControl:
        """Stop a run that had stopped before."""
        control.should_training_stop |= self._is_over(state)
        return control

    def on_evaluate(self, args: Any, state: Any, control: TrainerControl, **more: Any) -> TrainerControl:
        """Compare the adapter with the best one."""
        f1, loss = more["metrics"]["eval_f1"], more["metrics"]["eval_loss"]
        if self.best is None or (f1, -loss) > self.best.rank:
            self.best = Snapshot(state.global_step, f1, loss, adapter_weights(more["model"]))
        control.should_training_stop |= self._is_over(state)
        return control

    def _is_over(self, state: Any) -> bool:
        if self.patience is None or self.best is None:
            return False
        return bool(state.global_step - self.best.step >= self.patience * state.eval_steps)

"""The Trainer, made safe: no loss that is no number, no half checkpoint, devel F1 by the real decoder."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from ..errors import Errors
from ..evaluation import Counts
from .best import KeepBest
from .checkpoints import last_whole, save_settings, seal, unseal
from .devel import Devel


class StepsOfThisRun(TrainerCallback):
    """Lets a run that goes on save and evaluate as often as it is told, not as the run before was."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Put the steps into what was read of the checkpoint."""
        state.save_steps, state.eval_steps = args.save_steps, args.eval_steps


class AdapterTrainer(Trainer):
    """Trains an adapter.

    tokenizer: Reads back what was in a batch.
    devel: What to measure devel F1 on; None: it is not measured.
    keep: Keeps the best adapter. None without `devel`.
    settings: Go into each checkpoint: a run with others is not gone on with from it.
    more: As the Trainer takes it.
    """

    def __init__(
        self,
        *,
        tokenizer: Any,
        devel: Devel | None,
        keep: KeepBest | None,
        settings: dict[str, Any],
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self._settings = settings
        self._tokenizer = tokenizer
        self._devel = devel
        self._keep = keep
        self._accumulated: list[dict[str, Tensor]] = []
        self.add_callback(StepsOfThisRun())  # first: the others read them
        if keep:
            self.add_callback(keep)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Make the gradients of a batch.

        RAISES: ValueError, with what was in the batch, if the loss is no finite number, or if the gradient of a
            step is none, with what was in all its batches. The weights are not changed.
        """
        self._accumulated.append(inputs)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise self._not_finite("loss", loss, [inputs])
        if self.accelerator.sync_gradients:
            norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            if not torch.isfinite(norm):
                raise self._not_finite("gradient", norm, self._accumulated)
            self._accumulated.clear()
        return loss

    def _not_finite(self, what: str, value: Tensor, batches: list[dict[str, Tensor]]) -> ValueError:
        texts = [
            self._tokenizer.decode(ids[mask.bool()])
            for batch in batches
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        return ValueError(
            Errors.E160.format(
                what=what,
                step=self.state.global_step + 1,
                value=value.item(),
                kept=last_whole(Path(str(self.args.output_dir))) or "none yet",
                texts="\n".join(f"  {text!r}" for text in texts),
            )
        )

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Measure the devel loss, and then F1, with the model in evaluation mode."""
        output = super().evaluation_loop(*args, **kwargs)
        if self._devel and output.metrics is not None:
            mine = self._devel.measure(self.args.process_index, self.args.world_size)
            total = self.accelerator.reduce(torch.tensor(mine, device=self.args.device))
            output.metrics["eval_f1"] = Counts(*total.tolist()).f1
        return output

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # The Trainer asks after each step whether a run is over: one resumed at its end would make one more.
        if self.control.should_training_stop or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            unseal(folder)
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each process writes a file of its own
            if self.args.should_save:
                if self._keep:
                    self._keep.save(folder)
                save_settings(folder, self._settings)
                seal(folder)
        except (OSError, RuntimeError, SafetensorError) as error:  # each library has its own for a full disk
            kept = last_whole(folder.parent) or "none yet"
            raise OSError(Errors.E232.format(path=folder, reason=error, kept=kept)) from error

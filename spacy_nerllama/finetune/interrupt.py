"""Ctrl-C in a training run: the step is finished and a checkpoint saved before the run stops."""

import logging
import signal
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl

logger = logging.getLogger(__name__)


class SaveOnInterrupt(TrainerCallback):
    """Turns the first Ctrl-C into a checkpoint and a clean stop; a second one stops at once.

    It does so within a `with` statement, and gives SIGINT back however that ends.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._before: Any = None

    def __enter__(self) -> "SaveOnInterrupt":
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> TrainerControl:
        """Ask for a checkpoint and the end of the run, if it was interrupted."""
        if self.interrupted:
            control.should_save = control.should_training_stop = True
        return control

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, self._before)
        logger.warning("Stopping after this step, with a checkpoint. Press Ctrl-C again to stop at once.")

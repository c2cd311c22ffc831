"""A training run that is interrupted finishes its step and saves a checkpoint before it stops."""

import logging
import signal
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what a cluster sends to a job before it kills it."""


class SaveOnInterrupt(TrainerCallback):
    """Turns the first Ctrl-C (or SIGTERM) into a checkpoint and a clean stop; a second one stops at once.

    It does so within a `with` statement, and gives the signals back however that ends.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "SaveOnInterrupt":
        self._before = {number: signal.signal(number, self._interrupt) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> TrainerControl:
        """Ask for a checkpoint and the end of the run, if it was interrupted."""
        if self.interrupted:
            control.should_save = control.should_training_stop = True
        return control

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        self.__exit__()
        logger.warning("Stopping after this step, with a checkpoint. Press Ctrl-C again to stop at once.")

"""The training curve as a picture, where matplotlib is installed."""

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

CURVE = "curve.png"


def save_curve(history: Sequence[dict[str, Any]], path: Path) -> bool:
    """Draw losses and devel F1 over the steps.

    history: The Trainer's log: dicts with `step` and one or more of `loss`, `eval_loss` and `eval_f1`.
    path: The PNG file.
    RETURNS: Whether it was drawn; without matplotlib the log says how to get it.
    """
    if find_spec("matplotlib") is None:
        logger.info("No %s: it takes matplotlib (pip install spacy-nerllama[plot]).", path.name)
        return False
    from matplotlib.figure import Figure  # not pyplot, which keeps figures and looks for a screen

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="step", ylabel="loss")
    axes.plot(*_points(history, "loss"), color="C0", alpha=0.6, label="training loss")
    axes.plot(*_points(history, "eval_loss"), color="C1", marker="o", label="devel loss")
    steps, scores = _points(history, "eval_f1")
    if steps:
        right = axes.twinx()
        right.set(ylabel="devel F1", ylim=(0, 1))
        right.plot(steps, scores, color="C2", marker="o", label="devel F1 (greedy)")
    figure.legend(loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=120)
    return True


def _points(history: Sequence[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    entries = [entry for entry in history if key in entry]
    return [entry["step"] for entry in entries], [entry[key] for entry in entries]

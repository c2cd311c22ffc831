"""Labels, each with its description: what the prompt calls it."""

import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .errors import Errors, Warnings

_KEY = re.compile(r"[^\s#;\[:=][^\n\r:=]*(?<!\s)")  # what a config gives back as a key


def check_labels(labels: Mapping[str, str | None]) -> dict[str, str]:
    """Check that labels have names and descriptions.

    RETURNS: The labels, in their order.
    RAISES: ValueError if one has not.
    """
    for label, description in labels.items():
        if not label or not isinstance(description, str) or not description.strip():
            raise ValueError(Errors.E052.format(label=label))
    return {label: str(description) for label, description in labels.items()}


def check_configurable(labels: Mapping[str, object]) -> None:
    """Check that a config can hold labels as keys: what is written to one has to be what is read from it.

    labels: The labels, with their descriptions or thresholds.
    RAISES: ValueError if one would come back as another.
    """
    for label, value in labels.items():
        if (label and not _KEY.fullmatch(label)) or "$" in str(value):
            raise ValueError(Errors.E175.format(label=label, value=value))


def describe(labels: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """Give labels their descriptions: the known one, else the label in words ("CELL_LINE": "cell line")."""
    return {label: known.get(label, _in_words(label)) for label in labels}


def _in_words(label: str) -> str:
    return label.replace("_", " ").replace("-", " ").strip().lower() or label


def warn_of_other_labels(name: str, labels: Mapping[str, str], meta: Mapping[str, Any]) -> None:
    """Warn of labels that an adapter was not taught, neither by name nor by what the prompt calls them.

    name: The component's name, for the message.
    labels: The labels, with their descriptions.
    meta: What is known of the adapter.
    """
    taught = meta.get("labels", {})
    known = {each.casefold() for pair in taught.items() for each in pair}
    for label, words in labels.items():
        if known and known.isdisjoint((label.casefold(), words.casefold())):
            message = Warnings.W004.format(name=name, label=label, words=words, known=", ".join(taught.values()))
            warnings.warn(message, stacklevel=4)


def check_annotated(name: str, labels: Collection[str], annotated: Collection[str]) -> None:
    """Compare a component's labels with those that its training examples annotate; warn of one that they lack.

    name: The component's name, for messages.
    RAISES: ValueError if the examples annotate none of the labels, and others.
    """
    missing = ", ".join(label for label in labels if label not in annotated)
    if missing and annotated:
        has = ", ".join(sorted(annotated))
        if not set(labels) & set(annotated):
            raise ValueError(Errors.E174.format(name=name, labels=missing, has=has))
        warnings.warn(Warnings.W171.format(name=name, labels=missing, has=has), stacklevel=3)

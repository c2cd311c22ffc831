"""Models of spacy-llm as models of ours."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from ..errors import Errors
from ..prompts import PromptText
from ..voting import Voting
from .tasks import as_text
from .texts import TextModel

PromptExecutor = Callable[[Iterable[Iterable[Any]]], Iterable[Iterable[Any]]]

BATCH_SIZE = 16
"""How many requests a model of spacy-llm is given at a time: it answers when it has done them all."""


class SpacyLLM(TextModel):
    """A model of spacy-llm in the place of ours: what it writes is aligned and votes.

    `samples = k` gives it each prompt k times; `samples = null` is one reading, as `samples = 1` is. How it draws
    them is set where the model is: its temperature, for example.

    model: The function. It takes lists of prompts, and gives lists of responses.
    """

    def __init__(self, model: PromptExecutor) -> None:
        super().__init__()
        self._model = model

    def __str__(self) -> str:
        return getattr(self._model, "__name__", type(self._model).__name__)

    def fingerprint(self) -> str:
        """Give what the model's answers depend on: what it says itself, or the settings of a REST model.

        RAISES: ValueError if it is neither.
        """
        from spacy_llm.models.rest.base import REST

        if hasattr(self._model, "fingerprint"):
            return str(self._model.fingerprint())
        if isinstance(self._model, REST):
            model = self._model
            settings = (type(model).__name__, model._name, model._endpoint, model._config)
            return json.dumps(settings, sort_keys=True, default=str)
        raise ValueError(Errors.E202.format(model=self))

    def respond(self, prompts: Iterable[PromptText], voting: Voting) -> Iterator[Sequence[str]]:
        """Let the model answer, see `TextModel.respond`.

        RAISES: ValueError if it does not give a text for each prompt; what it raises itself.
        """
        copies, rest = voting.samples or 1, iter(prompts)
        while batch := [[as_text(prompt)] * copies for prompt in islice(rest, BATCH_SIZE)]:
            given = list(self._model(batch))
            if len(given) != len(batch):
                raise ValueError(Errors.E205.format(given=f"{len(given)} lists", expected=len(batch)))
            yield from (as_responses(responses, copies) for responses in given)


def as_responses(responses: Iterable[Any], expected: int) -> list[str]:
    """Check responses that were not given by ours.

    RAISES: ValueError if they are not so many texts.
    """
    given = list(responses)
    if len(given) != expected:
        raise ValueError(Errors.E205.format(given=f"{len(given)} responses", expected=expected))
    for response in given:
        if not isinstance(response, str):
            raise ValueError(Errors.E205.format(given=repr(response)[:200], expected="texts"))
    return given


def as_model(model: Any) -> Any:
    """Give a model of ours as it is, one of spacy-llm in the place of ours.

    RAISES: ValueError if it is neither.
    """
    if hasattr(model, "vote"):
        return model
    if callable(model):
        return SpacyLLM(model)
    raise ValueError(Errors.E204.format(model=repr(model)[:200]))

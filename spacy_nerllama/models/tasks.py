"""Models of ours as models of spacy-llm, under the task `nerllama.NER.v1`."""

import sys
from collections.abc import Callable, Iterator

# spacy-llm reads annotations, and knows no other iterables than typing's.
from typing import Any, Iterable  # noqa: UP035

from ..errors import Errors
from ..prompts import Prompt, PromptText, warn_of_other_prompt
from ..requests import Request
from ..voting import Voting


class TaskPrompt(str):
    """A prompt as a text, which any model can read, with what ours need to mark it instead.

    request: The request.
    settings: The prompt, the voting settings and the most tokens in a batch, as `vote` takes them.
    """

    request: Request
    settings: tuple[Prompt, Voting, int]

    def __new__(cls, request: Request, prompt: Prompt, voting: Voting, max_batch_tokens: int) -> "TaskPrompt":
        """Write the prompt of a request."""
        text = super().__new__(cls, as_text(prompt(request)))
        text.request = request
        text.settings = prompt, voting, max_batch_tokens
        return text


def as_text(prompt: PromptText) -> str:
    """Give a prompt as one text, as models of spacy-llm take it: a system message is its beginning."""
    return prompt.text if prompt.system is None else f"{prompt.system}\n\n{prompt.text}"


class MarksTasks:
    """What lets a model of ours be that of spacy-llm's component `llm`, under the task `nerllama.NER.v1`."""

    vote: Callable[..., Iterator[Any]]

    context_length: int = sys.maxsize
    """For spacy-llm: what is too long to be read at once is cut here, and not there."""

    def __call__(self, prompts: Iterable[Iterable[Any]]) -> Iterable[Iterable[Any]]:
        """Answer prompts of the task.

        prompts: The prompts of each doc. One that is there k times is a request for k samples.
        RETURNS: The `Votes` for each prompt of each doc, the same for all copies of one.
        RAISES: ValueError for other prompts; what went wrong with a request.
        """
        docs = [list(each) for each in prompts]
        asked = {id(prompt): prompt for each in docs for prompt in each}
        if not all(isinstance(prompt, TaskPrompt) for prompt in asked.values()):
            raise ValueError(Errors.E206)
        if not asked:
            return docs
        settings = next(iter(asked.values())).settings
        warn_of_other_prompt("llm", settings[0], getattr(self, "meta", {}))
        votes = {}
        answers = self.vote((prompt.request for prompt in asked.values()), *settings)
        for key, answer in zip(asked, answers, strict=True):
            if isinstance(answer, Exception):
                raise answer
            votes[key] = answer
        return [[votes[id(prompt)] for prompt in each] for each in docs]

"""Docs to instruction data for trainers other than ours: the same prompts and the same marking, as text."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypedDict

from spacy.tokens import Doc

from ..marking import join, mark
from ..prompts import Prompt, scheme_of
from .sequences import doc_examples


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


class Instruction(TypedDict):
    """What a model is asked, and what it should answer.

    messages: The chat: a system message where the prompt has one, the request, the response.
    request: The prompt as text, without the system message.
    response: The sentence with its gold mentions marked.
    label: The labels that were asked for, separated by commas.
    """

    messages: list[Message]
    request: str
    response: str
    label: str


def instructions(docs: Iterable[Doc], labels: Mapping[str, str], prompt: Prompt) -> Iterator[Instruction]:
    """Write what docs teach as instructions, one for each request that fine-tuning would make of them.

    docs: Docs with gold entities.
    labels: What the prompt calls each label that the docs annotate; no others are asked for.
    prompt: The prompt; its scheme says whether all labels are asked for together.
    """
    scheme = scheme_of(prompt)
    for request, gold in doc_examples(docs, labels, together=scheme.tells_labels):
        asked = prompt(request)
        response = join(mark(request.sentence, gold, scheme))
        messages: list[Message] = [{"role": "system", "content": asked.system}] if asked.system else []
        messages += [{"role": "user", "content": asked.text}, {"role": "assistant", "content": response}]
        label = ",".join(label for label, _ in request.labels)
        yield {"messages": messages, "request": asked.text, "response": response, "label": label}

"""Instruction templates: what a model reads before it marks a sentence."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from spacy.util import registry

from .errors import Errors, Warnings
from .examples import Example, Examples, Selection, read_examples
from .marking import SINGLE, MarkingScheme, join, mark, typed_scheme
from .requests import Request, Sentence


class PromptText(NamedTuple):
    """A prompt in parts, so that a model can read once what many prompts have in common.

    shared: What is the same for every label of the sentence.
    own: What differs by label.
    system: The system message of a chat. None: the prompt is plain text, not a chat.
    prefix: What comes before, and is the same for every sentence, and worth keeping when it has been read.
    """

    shared: str
    own: str
    system: str | None = None
    prefix: str = ""

    @property
    def text(self) -> str:
        """The whole prompt, without the system message."""
        return self.prefix + self.shared + self.own


Prompt = Callable[[Request], PromptText]


def scheme_of(prompt: Prompt) -> MarkingScheme:
    """Give the marking scheme that a prompt asks for: its `scheme`, the paper's single markers if it has none."""
    return getattr(prompt, "scheme", SINGLE)


def trained_prompt(meta: Mapping[str, Any]) -> Prompt | None:
    """Give the prompt that an adapter was trained with, without in-context examples: their file may be elsewhere.

    meta: What is known of the adapter (see `Adapter.meta`).
    RETURNS: The prompt; None if it is not known, or not here.
    """
    settings = {key: value for key, value in meta.get("prompt", {}).items() if key != "examples"}
    if settings.get("@misc", "") not in registry.misc:
        return None
    return _resolved(json.dumps(settings, sort_keys=True))


def warn_of_other_prompt(name: str, prompt: Prompt, meta: Mapping[str, Any]) -> None:
    """Warn if a prompt is not the one that an adapter was trained with.

    name: The component's name, for the message.
    meta: What is known of the adapter.
    """
    trained = trained_prompt(meta)
    if trained is not None and (type(trained), scheme_of(trained)) != (type(prompt), scheme_of(prompt)):
        warnings.warn(Warnings.W003.format(name=name, trained=trained, prompt=prompt), stacklevel=4)


@lru_cache(maxsize=16)  # a component asks for each stream, and resolving takes 20 ms
def _resolved(settings: str) -> Prompt:
    return cast(Prompt, registry.resolve({"prompt": json.loads(settings)})["prompt"])


@dataclass(frozen=True)
class CompactPrompt:
    """The sentence, then what to mark: a few tokens of instruction, for models that were fine-tuned on it.

    Registered as `nerllama.CompactPrompt.v1`.
    """

    def __call__(self, request: Request) -> PromptText:
        descriptions = ", ".join(description for _, description in request.labels)
        return PromptText(request.sentence.text, f"\nMark {descriptions}:\n")


DEFAULT_PROMPT = {"@misc": "nerllama.CompactPrompt.v1"}
"""The prompt of a component, a recipe and an adapter that name none, as a config has it."""


@dataclass(frozen=True)
class MultiTaskPrompt(CompactPrompt):
    """The compact prompt for all labels in one reading. Registered as `nerllama.MultiTaskPrompt.v1`.

    names: What the markers call each label, for example {"DISEASE": "disease"} for `@disease@ataxia#disease#`.
    """

    names: dict[str, str]

    @cached_property
    def scheme(self) -> MarkingScheme:
        """Markers of its own for each label."""
        return typed_scheme(self.names)


@dataclass(frozen=True)
class _FewShot:
    """A chat that asks for one label, with in-context examples.

    The examples of a request are always the same for the same seed, sentence and label, and none is from a
    document that holds the sentence, however it is tokenised.

    examples: Sentences with gold spans to choose from.
    n_examples: How many to show.
    scheme: The markers that the instruction names and the examples use.
    seed: Seed of the draws.
    selection: "random", or "similar": those with words like the sentence's (see `Examples.choose`).
    RAISES: When called, ValueError for a request with several labels, KeyError for a label without markers.
    """

    examples: tuple[Example, ...] = field(default=(), repr=False)
    n_examples: int = 3
    scheme: MarkingScheme = SINGLE
    seed: int = 0
    selection: Selection = "random"

    def _label(self, request: Request) -> tuple[str, str]:
        """The label of a request, and what the prompt calls it."""
        if len(request.labels) != 1:
            labels = ", ".join(label for label, _ in request.labels)
            raise ValueError(Errors.E036.format(n=len(request.labels), labels=labels))
        return request.labels[0]

    def _shown(self, sentence: Sentence, label: str) -> Iterator[tuple[str, str]]:
        """The examples for a request: the text of each, and the text with its mentions marked."""
        if self._annotated and label not in self._annotated:
            has = ", ".join(sorted(self._annotated))
            warnings.warn(Warnings.W005.format(label=label, has=has), stacklevel=4)
        for example in self._pool.choose(sentence, label, self.n_examples, self.selection, self.seed):
            spans = [span for span in example.spans if span.label == label]
            yield example.sentence.text, join(mark(example.sentence, spans, self.scheme))

    @cached_property
    def _annotated(self) -> set[str]:
        return {span.label for example in self.examples for span in example.spans}

    @cached_property
    def _pool(self) -> Examples:
        return Examples(self.examples)


INSTRUCT_SYSTEM = (
    "You annotate biomedical texts. Copy the text that you are given, letter for letter, and put {open} directly "
    "before and {close} directly after each mention of what you are asked to mark. If there is none, copy the "
    "text without marks. Write nothing but the copy."
)


@dataclass(frozen=True)
class InstructPrompt(_FewShot):
    """Instructions for chat models that were not fine-tuned for this, with in-context examples or without.

    A label needs no examples: its description says what to mark, for example {"SPECIES": "organisms named by
    species or strain"}.
    """

    def __call__(self, request: Request) -> PromptText:
        """Write the prompt of a request."""
        label, description = self._label(request)
        markers = self.scheme[label]
        parts = [f"Text: {text}\nCopy: {marked}\n\n" for text, marked in self._shown(request.sentence, label)]
        own = f"{''.join(parts)}Text: {request.sentence.text}\nCopy:"
        system = INSTRUCT_SYSTEM.format(open=markers.open, close=markers.close)
        return PromptText("", own, system, f"Mark: {description}\n\n")


PAPER_SYSTEM = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request"
)
# The backslashes are the paper's: its code writes this part in raw strings.
PAPER_INSTRUCTION = (
    r"You are an high intelligent biomedical named entity recognition tool, "
    r"extract \"{description}\" entities from the given text, only mark the entity on the original input by "
    r"highlighting them with {open} and {close}, do not make any other changes. "
    r"if there is no entity recognized, output the same sentence.\nBelow are some"
)
# Parted before a space, where tokenizers part too: so it is the same for every sentence in tokens as well.
PAPER_EXAMPLES = r" examples:\n"
PAPER_INPUT = "Be cautious here is the Input:\n"


@dataclass(frozen=True)
class PaperPrompt(_FewShot):
    """The prompt of Liu et al., J Biomed Inform 170 (2025) 104896, to the letter, with in-context examples.

    The paper shows 5 examples in training and 3 afterwards, drawn at random.
    """

    def __call__(self, request: Request) -> PromptText:
        """Write the prompt of a request."""
        label, description = self._label(request)
        markers = self.scheme[label]
        instruction = PAPER_INSTRUCTION.format(description=description, open=markers.open, close=markers.close)
        parts = [PAPER_EXAMPLES]
        for text, marked in self._shown(request.sentence, label):
            parts.append(f"Input:\n{text}\nOutput:\n{marked}\n")
        parts.append(f"{PAPER_INPUT}{request.sentence.text}")
        return PromptText("", "".join(parts), PAPER_SYSTEM, instruction)


def make_instruct_prompt(
    examples: str | None = None, n_examples: int = 3, seed: int = 0, selection: Selection = "random"
) -> InstructPrompt:
    """Make a prompt for chat models. Registered as `nerllama.InstructPrompt.v1`; see `make_paper_prompt`."""
    return InstructPrompt(_read(examples), n_examples, SINGLE, seed, selection)


def make_paper_prompt(
    examples: str | None = None, n_examples: int = 3, seed: int = 0, selection: Selection = "random"
) -> PaperPrompt:
    """Make the paper's prompt. Registered as `nerllama.PaperPrompt.v1`.

    examples: Path of a `.spacy` file whose sentences and entities are the in-context examples. None: none.
    n_examples: How many to show in a prompt.
    seed: Seed of the draws.
    selection: "random", as in the paper, or "similar": those with words like the sentence's.
    RAISES: FileNotFoundError if there is no such file; ValueError if it is no `.spacy` file.
    """
    return PaperPrompt(_read(examples), n_examples, SINGLE, seed, selection)


def _read(examples: str | None) -> tuple[Example, ...]:
    return tuple(read_examples(Path(examples))) if examples else ()

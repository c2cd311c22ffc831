"""Instruction templates: what a model reads before it marks a sentence."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from .errors import Errors
from .marking import SINGLE, MarkingScheme, join, mark, typed_scheme
from .requests import Request, Sentence, TokenSpan, doc_sentences


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


@dataclass(frozen=True)
class CompactPrompt:
    """The sentence, then what to mark: a few tokens of instruction, for models that were fine-tuned on it.

    Registered as `nerllama.CompactPrompt.v1`.
    """

    def __call__(self, request: Request) -> PromptText:
        descriptions = ", ".join(description for _, description in request.labels)
        return PromptText(request.sentence.text, f"\nMark {descriptions}:\n")


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
class Example:
    """An in-context example: a sentence and its gold spans, in order."""

    sentence: Sentence
    spans: tuple[TokenSpan, ...]


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
class PaperPrompt:
    """The prompt of Liu et al., J Biomed Inform 170 (2025) 104896, to the letter, with in-context examples.

    The examples of a request are drawn at random, but always the same for the same seed, sentence and label;
    the sentence itself is never among them, however it is tokenised.

    examples: Sentences with gold spans to draw from.
    n_examples: How many to show (the paper shows 5 in training and 3 afterwards).
    scheme: The markers that the instruction names and the examples use.
    seed: Seed of the draws.
    RAISES: When called, ValueError for a request with several labels, KeyError for a label without markers.
    """

    examples: tuple[Example, ...] = field(default=(), repr=False)
    n_examples: int = 3
    scheme: MarkingScheme = SINGLE
    seed: int = 0

    def __call__(self, request: Request) -> PromptText:
        if len(request.labels) != 1:
            labels = ", ".join(label for label, _ in request.labels)
            raise ValueError(Errors.E036.format(n=len(request.labels), labels=labels))
        ((label, description),) = request.labels
        markers = self.scheme[label]
        instruction = PAPER_INSTRUCTION.format(description=description, open=markers.open, close=markers.close)
        parts = [PAPER_EXAMPLES]
        for example in self._draw(request.sentence, label):
            spans = [span for span in example.spans if span.label == label]
            marked = join(mark(example.sentence, spans, self.scheme))
            parts.append(f"Input:\n{example.sentence.text}\nOutput:\n{marked}\n")
        parts.append(f"{PAPER_INPUT}{request.sentence.text}")
        return PromptText("", "".join(parts), PAPER_SYSTEM, instruction)

    def _draw(self, sentence: Sentence, label: str) -> Sequence[Example]:
        draw = random.Random(f"{self.seed}\0{sentence.text}\0{label}")
        n = self.n_examples + self._counts[sentence.squashed]  # enough, if all that are the sentence are drawn
        drawn = draw.sample(self.examples, min(n, len(self.examples)))
        return [each for each in drawn if each.sentence.squashed != sentence.squashed][: self.n_examples]

    @cached_property
    def _counts(self) -> Counter[str]:
        return Counter(example.sentence.squashed for example in self.examples)


def make_paper_prompt(examples: str | None = None, n_examples: int = 3, seed: int = 0) -> PaperPrompt:
    """Make the paper's prompt. Registered as `nerllama.PaperPrompt.v1`.

    examples: Path of a `.spacy` file whose sentences and entities are the in-context examples. None: none.
    n_examples: How many to show in a prompt.
    seed: Seed of the draws.
    RAISES: FileNotFoundError if there is no such file; spaCy's ValueError if it is no `.spacy` file.
    """
    return PaperPrompt(tuple(_read_examples(Path(examples))) if examples else (), n_examples, SINGLE, seed)


def _read_examples(path: Path) -> list[Example]:
    from spacy.tokens import DocBin
    from spacy.vocab import Vocab

    if not path.is_file():
        raise FileNotFoundError(Errors.E037.format(path=path))
    examples = []
    for doc in DocBin().from_disk(path).get_docs(Vocab()):
        for start, sentence in doc_sentences(doc):
            end = start + len(sentence.words)
            spans = [
                TokenSpan(ent.start - start, ent.end - start, ent.label_)
                for ent in doc.ents
                if start <= ent.start and ent.end <= end
            ]
            examples.append(Example(sentence, tuple(spans)))
    return examples

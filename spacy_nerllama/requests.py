"""What a model is asked: one sentence, and the labels to mark in it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from spacy.tokens import Doc

from .sentences import sentence_spans


def squash(text: str) -> str:
    """Take all white space out of a text."""
    return "".join(text.split())


_Labels = tuple[tuple[str, str], ...]


class TokenSpan(NamedTuple):
    """A labelled span of a sentence's tokens, [start, end)."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Sentence:
    """The spaCy tokens of a sentence.

    words: The tokens' texts, none empty.
    spaces: Whether a space follows each token; as long as `words`.
    """

    words: tuple[str, ...]
    spaces: tuple[bool, ...]

    @cached_property
    def text(self) -> str:
        """The sentence as written, without a space after the last token."""
        return "".join(self.piece(i) for i in range(len(self.words)))

    @cached_property
    def squashed(self) -> str:
        """The text without any white space, the same for natural and for tokenised text."""
        return squash(self.text)

    def has_space_before(self, i: int) -> bool:
        """Whether a space separates token `i` from the one before."""
        return i > 0 and self.spaces[i - 1]

    def piece(self, i: int) -> str:
        """Token `i` with the space before it: the pieces of a sentence join to its text."""
        return " " + self.words[i] if self.has_space_before(i) else self.words[i]


@dataclass(frozen=True)
class Request:
    """A sentence and what to mark in it.

    sentence: The sentence.
    labels: The labels to mark together, usually one, each with what the prompt calls it.
    """

    sentence: Sentence
    labels: _Labels


def doc_sentences(doc: Doc) -> Iterator[tuple[int, Sentence]]:
    """Give the sentences of a doc, each with the doc's token at which it begins.

    White-space tokens at the edges of a sentence are left out, and so are sentences of nothing else.
    """
    for start, end in sentence_spans(doc):
        if found := _sentence(doc, start, end):
            yield found


def _sentence(doc: Doc, start: int, end: int) -> tuple[int, Sentence] | None:
    # Not `token.is_space`, which a bare `Vocab`, as docs are read from a DocBin with, does not know.
    while start < end and doc[start].text.isspace():
        start += 1
    while start < end and doc[end - 1].text.isspace():
        end -= 1
    if start == end:
        return None
    tokens = doc[start:end]
    return start, Sentence(tuple(t.text for t in tokens), tuple(bool(t.whitespace_) for t in tokens))


def doc_requests(
    doc: Doc,
    labels: Mapping[str, str],
    together: bool = False,
    answers: Callable[[Request], bool] | None = None,
) -> Iterator[tuple[int, Request]]:
    """Make the requests for each sentence of a doc.

    doc: The doc, which is not changed.
    labels: What the prompt calls each label.
    together: Ask for all labels in one request, instead of one for each.
    answers: Whether the model has an answer to a request at hand. Where it has one to the whole doc, that is asked
        for in one request, not sentence by sentence.
    RETURNS: The requests, each with the doc's token at which its sentence begins; those of one sentence
        follow each other.
    """
    asked: list[_Labels] = [tuple(labels.items())] if together and labels else [(each,) for each in labels.items()]
    if answers and (found := _sentence(doc, 0, len(doc))):
        start, text = found
        whole = _at_hand(text, asked, answers)
        yield from ((start, Request(text, each)) for each in whole)
        done = {label for each in whole for label in each}
        rest = (tuple(label for label in each if label not in done) for each in asked)
        asked = [each for each in rest if each]
    for start, sentence in doc_sentences(doc):
        for each in asked:
            yield start, Request(sentence, each)


def _at_hand(text: Sentence, asked: list[_Labels], answers: Callable[[Request], bool]) -> list[_Labels]:
    """Give what is asked for that has an answer to the whole text: groups of labels, else single ones of them."""
    whole = [each for each in asked if answers(Request(text, each))]
    return whole or [(label,) for each in asked for label in each if answers(Request(text, (label,)))]

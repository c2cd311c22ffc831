"""Mentions of a response to spans of the sentence's tokens."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from ..requests import Sentence, TokenSpan
from ..voting import elect
from .markers import MarkedMention
from .matching import Folded, Ints, fold_form, fold_space

Diagnosis = Literal["exact", "aligned", "truncated", "unusable"]

# A mention that is not closed may go on to the end of the copy. Of the last mentions of sentences in the train
# splits of NCBI-disease, BC5CDR-chem and BC2GM half reach the end if they begin two or three tokens before it, a
# third if they begin four before it, a quarter at five.
MAX_UNCLOSED_TOKENS = 3


class Alignment(NamedTuple):
    """What a response says.

    spans: The mentions, in order; none overlaps another.
    diagnosis: "exact": the response holds the sentence letter for letter, white space aside. "aligned": it holds
        it with changes, or names mentions beside it or without it, or says that there are none. "truncated": it
        breaks off before the sentence ends. "unusable": none of these, and no spans.
    """

    spans: tuple[TokenSpan, ...]
    diagnosis: Diagnosis


FOLDS: tuple[tuple[Callable[[str], Folded], Diagnosis], ...] = ((fold_space, "exact"), (fold_form, "aligned"))
"""The forms in which a sentence is looked for in a response, one after the other, and what finding it so is."""


class Text:
    """A sentence, folded."""

    def __init__(self, sentence: Sentence, fold: Callable[[str], Folded]) -> None:
        self.folded = fold(sentence.text)
        self.chars = self.folded.chars
        tokens = [i for i in range(len(sentence.words)) for _ in sentence.piece(i)]
        self._tokens = [tokens[at] for at in self.folded.origin]  # of each character of `chars`

    def span(self, i: int, j: int, label: str) -> TokenSpan:
        """Give the tokens on which the characters [i, j) lie."""
        return TokenSpan(self._tokens[i], self._tokens[j - 1] + 1, label)

    def characters(self, span: TokenSpan) -> slice:
        """Give the characters of the tokens of a span."""
        return slice(bisect_left(self._tokens, span.start), bisect_left(self._tokens, span.end))

    def find(self, chars: str) -> list[tuple[int, int]]:
        """Find where characters stand as whole words."""
        places = []
        at = self.chars.find(chars) if chars else -1
        while at >= 0:
            if {at, at + len(chars)} <= self._edges:
                places.append((at, at + len(chars)))
            at = self.chars.find(chars, at + 1)
        return places

    @cached_property
    def _edges(self) -> set[int]:
        return {0, *(end for _, end in self.folded.words())}


def project(
    text: Text,
    copy: Folded,
    to: Ints,
    mentions: Iterable[MarkedMention],
    max_unclosed: int = MAX_UNCLOSED_TOKENS,
) -> tuple[TokenSpan, ...]:
    """Project mentions to the tokens on which their characters lie.

    A mention that matches less than half of the stretch on which it would lie was moved or made up: it is looked
    for in what the copy lacks. One for which its tokens lack twice as much as it matches was made up.

    to: For each character of the copy that of the text, or -1. *Shape:* (characters of the copy,)
    max_unclosed: The most tokens of a mention that is not closed.
    """
    lacking = np.ones(len(text.chars), bool)
    lacking[to[to >= 0]] = False
    spans: set[TokenSpan] = set()
    moved: set[tuple[str, str]] = set()
    for mention in mentions:
        first, last = copy.characters(mention.start, mention.end)
        matched = to[first:last][to[first:last] >= 0]
        if not mention.label:
            continue
        if len(matched) and 2 * len(matched) > matched[-1] - matched[0]:
            span = text.span(matched[0], matched[-1] + 1, mention.label)
            made_up = 2 * len(matched) < lacking[text.characters(span)].sum()
            if not made_up if mention.closed else span.end - span.start <= max_unclosed:
                spans.add(span)
        elif mention.closed:
            moved.add((copy.chars[first:last], mention.label))
    spans.update(
        text.span(i, j, label) for chars, label in moved for i, j in text.find(chars) if lacking[i:j].all()
    )
    return flat(spans)


def flat(spans: Iterable[TokenSpan]) -> tuple[TokenSpan, ...]:
    """Resolve overlaps by the vote rule: the longer span is kept, then the earlier."""
    return tuple(elect(dict.fromkeys(spans, 1.0), {}))

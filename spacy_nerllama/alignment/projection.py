"""Mentions of a response to spans of the sentence's tokens."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

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

    A mention whose characters are torn apart is looked for in one piece where the copy lacks something. One that
    matches less than half of the stretch on which it would lie was moved or made up: it is looked for in what the
    copy lacks. Others are made up if they match too little of themselves and of their tokens.

    to: For each character of the copy that of the text, or -1. *Shape:* (characters of the copy,)
    max_unclosed: The most tokens of a mention that is not closed.
    """
    lacking = np.ones(len(text.chars), bool)
    lacking[to[to >= 0]] = False
    spans: set[TokenSpan] = set()
    moved: set[tuple[str, str]] = set()
    for mention in mentions:
        if not mention.label:
            continue
        first, last = copy.characters(mention.start, mention.end)
        matched = _matched(copy.chars[first:last], to[first:last])
        if mention.closed and (place := _in_one_piece(text, copy.chars[first:last], matched, lacking)):
            spans.add(text.span(*place, mention.label))
        elif len(matched) and 2 * len(matched) > matched[-1] - matched[0]:
            span = text.span(matched[0], matched[-1] + 1, mention.label)
            if not mention.closed:
                believed = span.end - span.start <= max_unclosed
            else:
                tokens = text.characters(span)
                believed = 2 * len(matched) >= lacking[tokens].sum() and (
                    2 * len(matched) >= last - first or _says_enough(copy, to, first, last, tokens)
                )
            if believed:
                spans.add(span)
        elif mention.closed:
            moved.add((copy.chars[first:last], mention.label))
    spans.update(
        text.span(i, j, label) for chars, label in moved for i, j in text.find(chars) if lacking[i:j].all()
    )
    return flat(spans)


def _in_one_piece(text: Text, mention: str, matched: Ints, lacking: NDArray[np.bool_]) -> tuple[int, int] | None:
    """Find where a mention of which only parts were matched stands as a whole.

    Of "IL-2 and @@IL-3## act" a copy that left out "IL-2 and" has the first of two "IL-". A place is not one if
    all of it is matched by other characters.

    lacking: Which characters of the text are not matched. *Shape:* (characters of the text,)
    """
    if not len(matched) or len(matched) == len(mention) == matched[-1] - matched[0] + 1:
        return None
    free = lacking.copy()
    free[matched] = True
    places = [(i, j) for i, j in text.find(mention) if free[i:j].any()]
    return max(places, key=lambda place: free[slice(*place)].sum(), default=None)


def _matched(mention: str, to: Ints) -> Ints:
    """Give the characters of the text that a mention matches.

    A bracket that opens at their end, or closes at their beginning, is none: "@@sclerosis (human)##" took it from
    what follows in the text, "sclerosis (DMS)".
    """
    kept = [*np.flatnonzero(to >= 0)]
    while kept and kept[-1] < len(mention) - 1 and mention[kept[-1]] in "([{":
        kept.pop()
    while kept and kept[0] > 0 and mention[kept[0]] in ")]}":
        kept.pop(0)
    return to[kept]


def _says_enough(copy: Folded, to: Ints, first: int, last: int, tokens: slice) -> bool:
    """Whether a mention, the characters [first, last) of the copy, tells its tokens, little of it as there is.

    That is half of them, if more than a letter or two, which say nothing; or a word of it, as a whole.
    """
    matched = (to[first:last] >= 0).sum()
    return (matched > 2 and 2 * matched >= tokens.stop - tokens.start) or any(
        first <= i and j <= last and copy.chars[i].isalnum() and to[i] >= 0 and (np.diff(to[i:j]) == 1).all()
        for i, j in copy.words()
    )


def flat(spans: Iterable[TokenSpan]) -> tuple[TokenSpan, ...]:
    """Resolve overlaps by the vote rule: the longer span is kept, then the earlier."""
    return tuple(elect(dict.fromkeys(spans, 1.0), {}))

"""Alignment of free text: the response of a model that writes freely -> spans of the sentence's tokens.

A response should be the sentence with markers in it. What comes may lack words or repeat them, spell out Greek
letters, break off, or be no copy at all. The markers are taken out, what is left is aligned with the sentence, and
each mention goes where its characters went. No response raises; the diagnosis says what it was.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from ..marking import SINGLE, MarkingScheme
from ..requests import Request, Sentence, TokenSpan
from ..voting import elect
from .markers import Marked, MarkedMention, take_markers_out
from .matching import Folded, Ints, fold_form, fold_space, match_characters

Diagnosis = Literal["exact", "aligned", "truncated", "unusable"]

# A mention that is not closed has at most so many tokens, as 99 % of those in the train splits of NCBI-disease,
# BC5CDR-chem and BC2GM.
MAX_UNCLOSED_TOKENS = 10


class Alignment(NamedTuple):
    """What a response says.

    spans: The mentions, in order; none overlaps another.
    diagnosis: "exact": the response holds the sentence letter for letter, white space aside. "aligned": it holds
        it with changes, or names mentions without it. "truncated": it breaks off before the sentence ends.
        "unusable": none of these, and no spans.
    """

    spans: tuple[TokenSpan, ...]
    diagnosis: Diagnosis


def align(request: Request, response: str, scheme: MarkingScheme = SINGLE) -> Alignment:
    """Find the mentions that a response marks; docs/alignment.md has the rules.

    Understood are the markers of the scheme and those of the paper's two schemes, whichever was asked for, and a
    JSON list of strings in their place.

    request: The sentence, and the labels that were asked for.
    response: What the model wrote, any text at all.
    scheme: The markers that were asked for.
    RETURNS: The mentions that could be recovered, and a diagnosis.
    RAISES: KeyError if the scheme has no markers for one of the labels.
    """
    marked = take_markers_out(request, response, scheme)
    return (
        _align_copy(request.sentence, marked)
        or _align_json(request, response, marked)
        or _align_changed_copy(request.sentence, marked)
        or _align_strings(request.sentence, [(marked.text[m.start : m.end], m.label) for m in marked.mentions()])
        or Alignment((), "unusable")
    )


def _align_copy(sentence: Sentence, marked: Marked) -> Alignment | None:
    """Align a response that holds the whole sentence, if only with characters in another form."""
    for fold, diagnosis in _FOLDS:
        text, copy = _Text(sentence, fold), fold(marked.text)
        start = _find_copy(text.chars, copy, marked)
        if start is not None:
            end = start + len(text.chars)
            to = np.full(len(copy.chars), -1)
            to[start:end] = np.arange(len(text.chars))
            mentions = marked.mentions(*copy.window(start, end))
            return Alignment(_project(text, copy, to, mentions), diagnosis)
    return None


_FOLDS: tuple[tuple[Callable[[str], Folded], Diagnosis], ...] = ((fold_space, "exact"), (fold_form, "aligned"))


def _find_copy(text: str, copy: Folded, marked: Marked) -> int | None:
    """Find where a response holds the text: the first place with markers, as it may be repeated without any."""
    first = None
    at = copy.chars.find(text) if text else -1
    while at >= 0:
        end = at + len(text)
        if marked.has_marks(*copy.window(at, end)):
            return at
        first = at if first is None else first
        at = copy.chars.find(text, end)
    return first


def _align_changed_copy(sentence: Sentence, marked: Marked) -> Alignment | None:
    """Align a response that holds the sentence with changes, or its beginning."""
    start, end = _find_line(sentence.text, marked)
    mentions = [MarkedMention(m.start - start, m.end - start, *m[2:]) for m in marked.mentions(start, end)]
    text, copy = _Text(sentence, fold_form), fold_form(marked.text[start:end])
    in_mention = np.zeros(len(copy.chars), bool)
    for mention in mentions:
        in_mention[slice(*copy.characters(mention.start, mention.end))] = True
    to = match_characters(text.folded, copy, in_mention)
    matched = np.flatnonzero(to >= 0)
    if not len(matched) or 2 * len(matched) < min(len(text.chars), len(copy.chars)):
        return None
    rest = text.chars[to[matched[-1]] + 1 :]
    breaks_off = len(rest) >= len(copy.chars) - matched[-1] and any(char.isalnum() for char in rest)
    return Alignment(_project(text, copy, to, mentions), "truncated" if breaks_off else "aligned")


def _find_line(text: str, marked: Marked) -> tuple[int, int]:
    """Find the line that is the copy, among a preamble, a code fence, further examples; or else take all lines."""
    wanted = Counter(_WORD.findall(text.casefold()))

    def shared(start: int, end: int) -> tuple[int, int]:
        words = Counter(_WORD.findall(marked.text[start:end].casefold()))
        return (words & wanted).total(), words.total()

    whole = (0, len(marked.text))
    most = shared(*whole)[0]
    if not most:
        return whole
    lines = [
        (2 * same / (size + wanted.total()), match.span())
        for match in _LINE.finditer(marked.text)
        for same, size in [shared(*match.span())]
        if same >= 0.8 * most
    ]
    if not lines:
        return whole
    best = max(lines, key=lambda line: line[0])[0]
    alike = [(likeness, line) for likeness, line in lines if likeness >= 0.8 * best]
    with_marks = [line for _, line in alike if marked.has_marks(*line)]
    return (with_marks or [line for likeness, line in alike if likeness == best])[0]


_WORD, _LINE = re.compile(r"\w+"), re.compile(r"[^\r\n]+")


def _align_json(request: Request, response: str, marked: Marked) -> Alignment | None:
    """Align a JSON list of strings. An empty one says that there are no mentions, if it is the whole response."""
    if marked.marks or len(request.labels) != 1:
        return None
    try:
        strings = json.loads(response[response.index("[") : response.rindex("]") + 1])
    except (ValueError, RecursionError):
        return None
    if not isinstance(strings, list) or not all(isinstance(string, str) for string in strings):
        return None
    if not strings and not _WORD.search(response.replace("json", "")):
        return Alignment((), "aligned")
    return _align_strings(request.sentence, [(string, request.labels[0][0]) for string in strings])


def _align_strings(sentence: Sentence, strings: Iterable[tuple[str, str | None]]) -> Alignment | None:
    """Find strings in the sentence, each wherever it stands as whole words: as written, else in another form."""
    missing = sorted({(string, label) for string, label in strings if label})
    spans: set[TokenSpan] = set()
    for fold, _ in _FOLDS:
        text = _Text(sentence, fold)
        wanted, missing = missing, []
        for string, label in wanted:
            places = text.find(fold(string).chars)
            spans.update(text.span(i, j, label) for i, j in places)
            if not places:
                missing.append((string, label))
    return Alignment(_flat(spans), "aligned") if spans else None


class _Text:
    """A sentence, folded."""

    def __init__(self, sentence: Sentence, fold: Callable[[str], Folded]) -> None:
        self.folded = fold(sentence.text)
        self.chars = self.folded.chars
        self._tokens = [i for i in range(len(sentence.words)) for _ in sentence.piece(i)]

    def span(self, i: int, j: int, label: str) -> TokenSpan:
        """Give the tokens on which the characters [i, j) lie."""
        first, last = (self._tokens[self.folded.origin[at]] for at in (i, j - 1))
        return TokenSpan(first, last + 1, label)

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


def _project(text: _Text, copy: Folded, to: Ints, mentions: Iterable[MarkedMention]) -> tuple[TokenSpan, ...]:
    """Project mentions to the tokens on which their characters lie.

    A mention that matches less than half of the stretch on which it would lie was moved or made up: it is looked
    for in what the copy lacks.

    to: For each character of the copy that of the text, or -1. *Shape:* (characters of the copy,)
    """
    spans: set[TokenSpan] = set()
    moved: set[tuple[str, str]] = set()
    for mention in mentions:
        first, last = copy.characters(mention.start, mention.end)
        matched = to[first:last][to[first:last] >= 0]
        if not mention.label:
            continue
        if len(matched) and 2 * len(matched) > matched[-1] - matched[0]:
            span = text.span(matched[0], matched[-1] + 1, mention.label)
            if mention.closed or span.end - span.start <= MAX_UNCLOSED_TOKENS:
                spans.add(span)
        elif mention.closed:
            moved.add((copy.chars[first:last], mention.label))
    lacking = np.ones(len(text.chars), bool)
    lacking[to[to >= 0]] = False
    spans.update(
        text.span(i, j, label) for chars, label in moved for i, j in text.find(chars) if lacking[i:j].all()
    )
    return _flat(spans)


def _flat(spans: Iterable[TokenSpan]) -> tuple[TokenSpan, ...]:
    """Resolve overlaps by the vote rule: the longer span is kept, then the earlier."""
    return tuple(elect(dict.fromkeys(spans, 1.0), {}))

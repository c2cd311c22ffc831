"""Alignment of free text: the response of a model that writes freely -> spans of the sentence's tokens.

A response should be the sentence with markers in it. What comes may lack words or repeat them, spell out Greek
letters, break off, or be no copy at all. The markers are taken out, what is left is aligned with the sentence, and
each mention goes where its characters went. No response raises; the diagnosis says what it was.
"""

import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from html import unescape
from typing import Literal, NamedTuple

import numpy as np

from ..marking import SINGLE, MarkingScheme
from ..requests import Request, Sentence, TokenSpan
from ..voting import elect
from .markers import Marked, MarkedMention, take_markers_out
from .matching import Folded, Ints, fold_form, fold_space, match_characters

Diagnosis = Literal["exact", "aligned", "truncated", "unusable"]

# A mention that is not closed may go on to the end of the copy. Of the last mentions of sentences in the train
# splits of NCBI-disease, BC5CDR-chem and BC2GM half reach the end if they begin two or three tokens before it, a
# third if they begin four before it, a quarter at five.
MAX_UNCLOSED_TOKENS = 3
# One in which the copy breaks off has at most so many tokens, as 99 % of all in these splits.
MAX_CUT_TOKENS = 10
# A model that thinks aloud may draft copies before the one that counts, and may not come to that.
_THOUGHTS, _THOUGHTS_END = "<think>", "</think>"
_ENTITY = re.compile(r"&#?\w+;")  # of HTML
# Beside a copy without mentions, only a line of which that share of words is the sentence's is another copy of it.
OF_THE_SENTENCE = 0.8
# A response of more words says more than that there are no mentions.
MAX_WORDS_FOR_NONE = 12


class Alignment(NamedTuple):
    """What a response says.

    spans: The mentions, in order; none overlaps another.
    diagnosis: "exact": the response holds the sentence letter for letter, white space aside. "aligned": it holds
        it with changes, or names mentions beside it or without it, or says that there are none. "truncated": it
        breaks off before the sentence ends. "unusable": none of these, and no spans.
    """

    spans: tuple[TokenSpan, ...]
    diagnosis: Diagnosis


def align(request: Request, response: str, scheme: MarkingScheme = SINGLE) -> Alignment:
    """Find the mentions that a response marks; docs/alignment.md has the rules.

    Understood are the markers of the scheme and those of the paper's two schemes, whichever was asked for, and
    lists of strings in their place.

    request: The sentence, and the labels that were asked for.
    response: What the model wrote, any text at all.
    scheme: The markers that were asked for.
    RETURNS: The mentions that could be recovered, and a diagnosis.
    RAISES: KeyError if the scheme has no markers for one of the labels.
    """
    response = _said(request.sentence.text, response)
    marked = take_markers_out(request, response, scheme)
    return (
        _align_copy(request.sentence, marked)
        or _align_list(request.sentence, marked)
        or _align_json(request, response, marked)
        or _align_changed_copy(request.sentence, marked)
        or _align_strings(request.sentence, marked.strings(marked.mentions()))
        or _align_none(request, response, marked)
        or Alignment((), "unusable")
    )


def _said(text: str, response: str) -> str:
    """Take out of a response to a text what was only thought, and put characters for entities of HTML."""
    if _THOUGHTS_END not in text:
        response = response.rpartition(_THOUGHTS_END)[2]
    if _THOUGHTS not in text:
        response = response.partition(_THOUGHTS)[0]
    return response if _ENTITY.search(text) else _ENTITY.sub(lambda entity: unescape(entity[0]), response)


def _align_copy(sentence: Sentence, marked: Marked) -> Alignment | None:
    """Align a response that holds the whole sentence, if only with characters in another form.

    Where that has no markers, it may be the question again, and the answer stands beside it.
    """
    bare: tuple[Alignment, tuple[int, int]] | None = None
    for fold, diagnosis in _FOLDS:
        text, copy = _Text(sentence, fold), fold(marked.text)
        start = _find_copy(text.chars, copy, marked)
        if start is not None:
            end = start + len(text.chars)
            to = np.full(len(copy.chars), -1)
            to[start:end] = np.arange(len(text.chars))
            window = copy.window(start, end)
            if mentions := marked.mentions_across(*window):
                return Alignment(_project(text, copy, to, mentions), diagnosis)
            bare = bare or (Alignment((), diagnosis), window)
    if bare is None or not marked.marks:
        return bare and bare[0]
    alignment, (first, last) = bare
    return (
        _align_list(sentence, marked, last)
        or _align_changed_copy(sentence, marked.part(last, len(marked.text)), beside=True)
        or _align_changed_copy(sentence, marked.part(0, first), beside=True)
        or alignment
    )


_FOLDS: tuple[tuple[Callable[[str], Folded], Diagnosis], ...] = ((fold_space, "exact"), (fold_form, "aligned"))


def _find_copy(text: str, copy: Folded, marked: Marked) -> int | None:
    """Find where a response holds the text: the first place with mentions, as it may be repeated without any."""
    first = None
    at = copy.chars.find(text) if text else -1
    while at >= 0:
        end = at + len(text)
        if marked.mentions_across(*copy.window(at, end)):
            return at
        first = at if first is None else first
        at = copy.chars.find(text, end)
    return first


def _align_changed_copy(sentence: Sentence, marked: Marked, beside: bool = False) -> Alignment | None:
    """Align a response that holds the sentence with changes, or its beginning.

    beside: Whether it stands beside a copy without mentions. It is another one only if it has some, and if its
        words are the sentence's.
    """
    start, end = _find_line(sentence.text, marked)
    mentions = [MarkedMention(m.start - start, m.end - start, *m[2:]) for m in marked.mentions(start, end)]
    if beside:
        words = _words(marked.text[start:end])
        if not mentions or (words & _words(sentence.text)).total() < OF_THE_SENTENCE * words.total():
            return None
    text, copy = _Text(sentence, fold_form), fold_form(marked.text[start:end])
    in_mention = np.zeros(len(copy.chars), bool)
    for mention in mentions:
        in_mention[slice(*copy.characters(mention.start, mention.end))] = True
    to = match_characters(text.folded, copy, in_mention)
    matched = np.flatnonzero(to >= 0)
    reached = to[matched[-1]] + 1 if len(matched) else 0
    # At least half of the shorter of the two, and of what the copy went through.
    if not len(matched) or 2 * len(matched) < max(reached, min(len(text.chars), len(copy.chars))):
        return None
    rest = text.chars[reached:]
    if len(rest) < len(copy.chars) - matched[-1] or not any(char.isalnum() for char in rest):
        return Alignment(_project(text, copy, to, mentions), "aligned")
    first_word = next(((i, j) for i, j in text.folded.words() if text.chars[i].isalnum()), (0, 0))
    if not np.isin(np.arange(*first_word), to).all():
        return None  # what breaks off begins as the sentence does
    if marked.text[start:end].endswith(_GOES_ON):
        mentions = [mention for mention in mentions if mention.closed]
    return Alignment(_project(text, copy, to, mentions, MAX_CUT_TOKENS), "truncated")


_GOES_ON = (" ", "\t", "-", "/", "(")  # no mention ends so


def _find_line(text: str, marked: Marked) -> tuple[int, int]:
    """Find the line that is the copy, among a preamble, a code fence, further examples; or else take all lines.

    RETURNS: Where it begins and ends, with the lines beside it that make it more like the text.
    """
    wanted = _words(text)

    def shared(start: int, end: int) -> tuple[int, int]:
        words = _words(marked.text[start:end])
        return (words & wanted).total(), words.total()

    def likeness(start: int, end: int) -> float:
        same, size = shared(start, end)
        return 2 * same / (size + wanted.total())

    whole = (0, len(marked.text))
    most = shared(*whole)[0]
    lines = [match.span() for match in _LINE.finditer(marked.text)]
    likely = {i: likeness(*line) for i, line in enumerate(lines) if most and shared(*line)[0] >= 0.8 * most}
    if not likely:
        return whole
    best = max(likely.values())
    alike = [i for i in likely if likely[i] >= 0.8 * best]
    with_mentions = [i for i in alike if marked.mentions(*lines[i])]
    at = (with_mentions or [i for i in alike if likely[i] == best])[0]
    start, end = lines[at]
    for _, further in lines[at + 1 :]:
        if likeness(start, further) <= likeness(start, end):
            break
        end = further
    for earlier, _ in lines[:at][::-1]:
        if likeness(earlier, end) <= likeness(start, end):
            break
        start = earlier
    return start, end


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.casefold()))


_WORD, _LINE = re.compile(r"\w+"), re.compile(r"[^\r\n]+")


def _align_list(sentence: Sentence, marked: Marked, start: int = 0) -> Alignment | None:
    """Align marked strings that all stand in the sentence, with nothing but numbers and signs around them.

    start: Where they begin. After a copy of the sentence they may have a heading; where there are other words,
        another sentence may be answered.
    """
    mentions = marked.mentions(start)
    edges = [start, *(edge for mention in mentions for edge in mention[:2]), len(marked.text)]
    around = [marked.text[i:j] for i, j in zip(edges[::2], edges[1::2], strict=True)]
    if start:
        around[0] = _HEADING.sub("", around[0].lstrip())
    if any(char.isalpha() for text in around for char in text):
        return None
    return _align_strings(sentence, marked.strings(mentions), all_of_them=True)


_HEADING = re.compile(r"\A[^\n:]*:")


def _align_json(request: Request, response: str, marked: Marked) -> Alignment | None:
    """Align a list of strings, or of objects with one each, in JSON or with single quotes as Python writes it."""
    if marked.marks or len(request.labels) != 1:
        return None
    listed = response[max(0, response.find("[")) : response.rfind("]") + 1]
    for quoted in (listed, listed.replace("'", '"')):
        with suppress(ValueError, RecursionError):
            items = json.loads(quoted)
            strings = [_strings_of(item) for item in items] if isinstance(items, list) else []
            if not all(len(each) == 1 for each in strings):
                return None
            return _align_strings(request.sentence, [(each[0], request.labels[0][0]) for each in strings])
    return None


def _strings_of(item: object) -> list[str]:
    values = item.values() if isinstance(item, dict) else [item]
    return [value for value in values if isinstance(value, str)]


def _align_none(request: Request, response: str, marked: Marked) -> Alignment | None:
    """Read an empty list, or a few words that say that there are no mentions: so there are none."""
    if marked.marks or len(_WORD.findall(response)) > MAX_WORDS_FOR_NONE:
        return None
    asked = {word for label in request.labels for text in label for word in _WORD.findall(text) if len(word) > 2}
    names = "|".join(map(re.escape, sorted({*asked, "entit", "mention"})))
    none = rf"\W*(?:none|n/a|(?:there (?:are|is|were|was) )?no (?:\w+ )*?(?:{names})\w*)\b|.*\[\s*\]"
    says_none = re.match(rf"(?:{_HEADING.pattern})?(?:{none})", response.strip(), re.IGNORECASE | re.DOTALL)
    return Alignment((), "aligned") if says_none else None


def _align_strings(
    sentence: Sentence, strings: Iterable[tuple[str, str | None]], all_of_them: bool = False
) -> Alignment | None:
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
    return Alignment(_flat(spans), "aligned") if spans and not (all_of_them and missing) else None


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

    def characters(self, span: TokenSpan) -> slice:
        """Give the characters of the tokens of a span."""
        tokens = [self._tokens[at] for at in self.folded.origin]
        return slice(bisect_left(tokens, span.start), bisect_left(tokens, span.end))

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


def _project(
    text: _Text,
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
    return _flat(spans)


def _flat(spans: Iterable[TokenSpan]) -> tuple[TokenSpan, ...]:
    """Resolve overlaps by the vote rule: the longer span is kept, then the earlier."""
    return tuple(elect(dict.fromkeys(spans, 1.0), {}))

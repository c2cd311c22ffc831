"""Responses that copy the sentence, whole, with changes, or up to where they break off."""

import re
from collections import Counter

import numpy as np

from ..requests import Request, Sentence
from .lists import align_list
from .markers import Marked, MarkedMention
from .matching import Folded, fold_form, match_characters
from .projection import FOLDS, Alignment, Text, project
from .structured import align_json

# A mention in which the copy breaks off has at most so many tokens, as 99 % of all in the train splits of
# NCBI-disease, BC5CDR-chem and BC2GM.
MAX_CUT_TOKENS = 10
# Beside a copy without mentions, only a line of which that share of words is the sentence's is another copy of it.
OF_THE_SENTENCE = 0.8


def align_copy(request: Request, marked: Marked) -> Alignment | None:
    """Align a response that holds the whole sentence, if only with characters in another form.

    Where that has no markers, it may be the question again, and the answer stands beside it.
    """
    sentence = request.sentence
    bare: tuple[Alignment, tuple[int, int]] | None = None
    for fold, diagnosis in FOLDS:
        text, copy = Text(sentence, fold), fold(marked.text)
        start = _find_copy(text.chars, copy, marked)
        if start is not None:
            end = start + len(text.chars)
            to = np.full(len(copy.chars), -1)
            to[start:end] = np.arange(len(text.chars))
            window = copy.window(start, end)
            if mentions := marked.mentions_across(*window):
                return Alignment(project(text, copy, to, mentions), diagnosis)
            bare = bare or (Alignment((), diagnosis), window)
    if bare is None:
        return None
    alignment, (first, last) = bare
    if not marked.marks:
        return align_json(request, marked.part(last, len(marked.text))) or alignment
    return (
        align_list(sentence, marked, last)
        or align_changed_copy(sentence, marked.part(last, len(marked.text)), beside=True)
        or align_changed_copy(sentence, marked.part(0, first), beside=True)
        or alignment
    )


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


def align_changed_copy(sentence: Sentence, marked: Marked, beside: bool = False) -> Alignment | None:
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
    text, copy = Text(sentence, fold_form), fold_form(marked.text[start:end])
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
        return Alignment(project(text, copy, to, mentions), "aligned")
    first_word = next(((i, j) for i, j in text.folded.words() if text.chars[i].isalnum()), (0, 0))
    if not np.isin(np.arange(*first_word), to).all():
        return None  # what breaks off begins as the sentence does
    if marked.text[start:end].endswith(_GOES_ON):
        mentions = [mention for mention in mentions if mention.closed]
    return Alignment(project(text, copy, to, mentions, MAX_CUT_TOKENS), "truncated")


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


_WORD = re.compile(r"\w+")
# "Output:" begins a line of its own.
_LINE = re.compile(r"[^\r\n]+?(?=[\r\n]|\Z|\b(?:output|response|answer)\b)", re.IGNORECASE)

"""Sentence boundaries by rule, for docs that carry none: better a long sentence than a cut mention."""

import re
from collections.abc import Sequence

from spacy.tokens import Doc

MAX_TOKENS = 96

_FINAL = ".!?…"
_CLOSERS = frozenset([*")]}’”»", "''"])
_OPENERS = frozenset([*"([{‘“«¿¡", "``"])
_QUOTES = frozenset("\"'")  # open or close
# Those that a capital may follow within a sentence: "et al. (Ref. A)", "Sigma Chemical Co. St. Louis", "Vit. D".
_ABBREVIATION = re.compile(
    "acad|al|approx|ca|cf|chaps?|chr|co|conc|corp|cv|dept|drs?|eqs?|exp|figs?|gr|hosp|inc|incl|int|ltd|mrs?|ms|natl|"
    "nos|pp|proc|prof|refs?|resp|sci|sect?|spp?|st|staph|strep|subsp|suppl|tabs?|univ|var|vit|viz|vol|vs|wt",
    re.IGNORECASE,
)
_NUMBERED = re.compile("no", re.IGNORECASE)  # an abbreviation before what has a digit, "No. A12"
_INITIALS = re.compile(r"(?:[^\W\d_]{1,2}\.)*[^\W\d_]")  # without the last dot: "E", "e.g", "U.S", "Ph.D"


def sentence_starts(tokens: Doc | Sequence[str]) -> list[int]:
    """Find where sentences begin.

    A sentence ends after `.`, `!`, `?` or `…` with its closing quotes and brackets, or at a blank line. There
    is no cut before a lower-case letter or a digit, nor after an initial ("E. coli") or an abbreviation
    ("et al."). White-space tokens belong to the sentence before them; a single line break is a space like any
    other, since texts are often wrapped at a fixed width.

    tokens: A `Doc`, or words that single spaces separate.
    RETURNS: The indices of the first tokens of the sentences, ascending from 0; empty if there are no tokens.
    """
    if isinstance(tokens, Doc):
        words = [token.text for token in tokens]
        spaced = [bool(token.whitespace_) for token in tokens]
    else:
        words, spaced = list(tokens), [True] * len(tokens)
    starts = [0] if words else []
    for i, word in enumerate(words):
        end = i + 1
        if _is_final(words, i):
            while end < len(words) and _closes(words, spaced, starts[-1], end):
                end += 1
            if not spaced[end - 1] and not (end < len(words) and words[end].isspace()):
                continue  # "p.Arg117His", "www.example.org"
        elif not (word.isspace() and word.count("\n") > 1):
            continue
        while end < len(words) and words[end].isspace():
            end += 1
        if end > starts[-1] and _may_begin(words, end):
            starts.append(end)
    return starts


def sentence_spans(doc: Doc, max_tokens: int = MAX_TOKENS) -> list[tuple[int, int]]:
    """Give the sentences of a doc: its own where it has them, by rule where it has none and is long.

    doc: The doc, which is not changed.
    max_tokens: A doc without sentences of at most this many tokens is one sentence.
    RETURNS: The token spans [start, end) of the sentences; together they are the whole doc.
    """
    if doc.has_annotation("SENT_START"):
        return [(sentence.start, sentence.end) for sentence in doc.sents]
    if not len(doc):
        return []
    starts = [0] if len(doc) <= max_tokens else sentence_starts(doc)
    return list(zip(starts, [*starts[1:], len(doc)], strict=True))


def _is_final(words: Sequence[str], i: int) -> bool:
    """Whether token `i` ends with final punctuation that is not the dot of an abbreviation."""
    stem = words[i].rstrip(_FINAL)
    mark = words[i][len(stem) :]
    if mark == ".":
        stem = stem or (words[i - 1] if i else "")
        if _NUMBERED.fullmatch(stem) and any(map(str.isdigit, "".join(words[i + 1 : i + 2]))):
            return False
        return not (_ABBREVIATION.fullmatch(stem) or _INITIALS.fullmatch(stem))
    return bool(mark)


def _closes(words: Sequence[str], spaced: Sequence[bool], start: int, i: int) -> bool:
    """Whether token `i`, after the sentence from `start` is over, is a closing bracket or quote of it."""
    if words[i] in _QUOTES:
        return not spaced[i - 1] or words[start:i].count(words[i]) % 2 == 1
    return words[i] in _CLOSERS


def _may_begin(words: Sequence[str], i: int) -> bool:
    """Whether token `i` begins, perhaps after brackets or quotes, with a letter that is not lower-case."""
    while i < len(words) and (words[i] in _OPENERS or words[i] in _QUOTES):
        i += 1
    first = words[i].lstrip("([{‘“«\"'")[:1] if i < len(words) else ""
    return first.isalpha() and not first.islower()

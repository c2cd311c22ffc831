"""Which characters of a changed copy are which of the text: folding, and an alignment with few gaps."""

import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..requests import squash

# Of a response that is not a faithful copy, so many words are aligned, and stretches of words that differ are
# compared further if they are of so many characters times characters. This bounds time and memory.
MAX_WORDS = 2000
MAX_STRETCH = 1_000_000

Ints = NDArray[np.int64]


class Folded(NamedTuple):
    """The characters of a text as they are compared, without white space.

    chars: The characters.
    origin: Which character of the text each comes from.
    length: How long the text is.
    """

    chars: str
    origin: Sequence[int]
    length: int

    def window(self, start: int, end: int) -> tuple[int, int]:
        """Give the stretch of the text between the characters around [start, end)."""
        first = self.origin[start - 1] + 1 if start else 0
        return first, self.origin[end] if end < len(self.origin) else self.length

    def characters(self, start: int, end: int) -> tuple[int, int]:
        """Give which characters come from the stretch [start, end) of the text."""
        return bisect_left(self.origin, start), bisect_left(self.origin, end)

    def words(self) -> list[tuple[int, int]]:
        """Give the words, as [start, end): letters and digits that touch in the text, and all else one by one."""
        starts = [
            i
            for i, (char, at) in enumerate(zip(self.chars, self.origin, strict=True))
            if not (i and char.isalnum() and self.chars[i - 1].isalnum() and at - self.origin[i - 1] <= 1)
        ]
        return [*zip(starts, [*starts[1:], len(self.chars)], strict=False)]


def fold_space(text: str) -> Folded:
    return Folded(squash(text), [i for i, char in enumerate(text) if not char.isspace()], len(text))


def fold_form(text: str) -> Folded:
    folded = [_normal(char) for char in text]
    return Folded("".join(folded), [i for i, chars in enumerate(folded) for _ in chars], len(text))


_GREEK = dict(
    zip(
        "αβγδεζηθικλμνξοπρστυφχψω",
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau "
        "upsilon phi chi psi omega".split(),
        strict=True,
    )
)
_SIGNS = {**dict.fromkeys("‐‑‒–—―−", "-"), **dict.fromkeys("‘’‚‛′`´", "'"), **dict.fromkeys("“”„‟″", '"')}
_ALIKE = {**_GREEK, **_SIGNS}


@lru_cache(maxsize=4096)
def _normal(char: str) -> str:
    """Fold a character: its form (NFKD without accents), case, Greek letters spelled out, dashes, quotes."""
    if char in _SIGNS:
        return _SIGNS[char]
    parts = unicodedata.normalize("NFKD", char).casefold()
    return "".join(_ALIKE.get(part, part) for part in parts if not _is_silent(part))


def _is_silent(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) in ("Mn", "Cf")


# Scores: a character that matches, one that is replaced, and a gap, however long. So a match is not worth two gaps
# more (to leave what differs, and come back to it) unless it has at least four characters.
_SAME, _REPLACED, _GAP, _NEVER = 16, -16, -24, -(2**29)


def match_characters(text: Folded, copy: Folded, in_mention: NDArray[np.bool_]) -> Ints:
    """Match the characters of a changed copy with those of the text, in order: whole words, then what differs.

    in_mention: Which characters of the copy are marked; of two places that fit as well a marked one is taken.
    RETURNS: For each character of the copy that of the text, or -1. *Shape:* (characters of the copy,)
    """
    text_words, copy_words = text.words()[:MAX_WORDS], copy.words()[:MAX_WORDS]
    ids: dict[str, int] = {}
    text_ids, copy_ids = (
        np.array([ids.setdefault(folded.chars[i:j], len(ids)) for i, j in words], np.int64)
        for folded, words in ((text, text_words), (copy, copy_words))
    )
    gains = np.array([_SAME * (j - i) + in_mention[i:j].any() for i, j in copy_words], np.int64)
    same_words = _best_path(text_ids, copy_ids, gains, _NEVER)
    to = np.full(len(copy.chars), -1)
    i = j = 0
    for (start, end), (first, last) in [
        *((text_words[a], copy_words[b]) for a, b in same_words),
        ((len(text.chars),) * 2, (len(copy.chars),) * 2),
    ]:
        if 0 < (start - i) * (first - j) <= MAX_STRETCH:
            gains = _SAME + in_mention[j:first]
            for a, b in _best_path(_codes(text.chars[i:start]), _codes(copy.chars[j:first]), gains, _REPLACED):
                to[j + b] = i + a
        to[first:last] = np.arange(start, end)
        i, j = end, last
    return to


def _codes(chars: str) -> Ints:
    return np.array([ord(char) for char in chars], np.int64)


def _best_path(text: Ints, copy: Ints, gains: Ints, replaced: int) -> list[tuple[int, int]]:
    """Align two sequences with the least number of gaps for what they match (Gotoh, J Mol Biol 162, 1982).

    Of equally good places the earliest is matched.

    text: The one sequence. *Shape:* (n,)
    copy: The other. *Shape:* (m,)
    gains: What each element of the copy scores if it is matched. *Shape:* (m,)
    replaced: What it scores in the place of another element.
    RETURNS: The pairs of indices that match, in order.
    """
    n, m = len(text), len(copy)
    steps = np.empty((n, m + 1), np.uint8)
    best = np.full(m + 1, _GAP)
    best[0] = 0
    diagonal, inserted, lacking = (np.full(m + 1, _NEVER) for _ in range(3))
    for i in range(n):
        diagonal[1:] = best[:-1] + np.where(copy == text[i], gains, replaced)
        lacks_more = lacking >= best + _GAP
        lacking = np.maximum(lacking, best + _GAP)
        reached = np.maximum(diagonal, lacking)
        furthest = np.maximum.accumulate(reached)
        inserted[1:] = furthest[:-1] + _GAP
        best = np.maximum(reached, inserted)
        steps[i] = _LACKS * (lacking >= diagonal) + _LACKS_MORE * lacks_more + _INSERTS * (inserted >= reached)
        steps[i, 1:] += _INSERTS_MORE * (furthest > reached)[:-1].astype(np.uint8)
    pairs: list[tuple[int, int]] = []
    i, j, gap = n, m, 0
    while i and j:
        step = steps[i - 1, j]
        if not gap:
            gap = step & _INSERTS or step & _LACKS
        if gap == _INSERTS:
            j -= 1
            gap = gap if step & _INSERTS_MORE else 0
        elif gap == _LACKS:
            i -= 1
            gap = gap if step & _LACKS_MORE else 0
        else:
            i, j = i - 1, j - 1
            if text[i] == copy[j]:
                pairs.append((i, j))
    return pairs[::-1]


_LACKS, _LACKS_MORE, _INSERTS, _INSERTS_MORE = 1, 2, 4, 8

"""Alignment of free text: the response of a model that writes freely -> spans of the sentence's tokens.

A response should be the sentence with markers in it. What comes may lack words or repeat them, spell out Greek
letters, break off, or be no copy at all. The markers are taken out, what is left is aligned with the sentence, and
each mention goes where its characters went. No response raises; the diagnosis says what it was.
"""

import json
import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .marking import SINGLE, Markers, MarkingScheme
from .requests import Request, Sentence, TokenSpan, squash
from .voting import elect

Diagnosis = Literal["exact", "aligned", "truncated", "unusable"]

# A mention that is not closed has at most so many tokens, as 99 % of those in the train splits of NCBI-disease,
# BC5CDR-chem and BC2GM.
MAX_UNCLOSED_TOKENS = 10
# Of a response that is not a faithful copy, so many words are aligned, and stretches of words that differ are
# compared further if they are of so many characters times characters. This bounds time and memory.
MAX_WORDS = 2000
MAX_STRETCH = 1_000_000
MAX_NAMES = 16  # of typed markers in a response

Ints = NDArray[np.int64]


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
    marked = _take_markers_out(request, response, scheme)
    return (
        _align_copy(request.sentence, marked)
        or _align_json(request, response, marked)
        or _align_changed_copy(request.sentence, marked)
        or _align_strings(request.sentence, [(marked.text[m.start : m.end], m.label) for m in marked.mentions()])
        or Alignment((), "unusable")
    )


# Markers

_Kind = Literal["open", "close"]
_FOREIGN = ""  # the label of markers that name something else than was asked for


class _Mark(NamedTuple):
    """A marker, which stood before character `at` of the text without markers. label: None: it does not tell."""

    at: int
    kind: _Kind
    label: str | None


class _Mention(NamedTuple):
    """A mention, in characters [start, end) of the text without markers."""

    start: int
    end: int
    label: str | None
    closed: bool = True


class _Marked(NamedTuple):
    """A response without its markers, and these in order."""

    text: str
    marks: Sequence[_Mark]

    def mentions(self, start: int = 0, end: int | None = None) -> list[_Mention]:
        """Pair the markers that stand in [start, end] of the text.

        A closing marker closes the mention that was opened last. One that is not closed ends with the text, if no
        marker follows it; else there is no telling where it ends, and it is left out.
        """
        end = len(self.text) if end is None else end
        found: list[_Mention] = []
        opened: list[_Mark] = []
        last: _Mark | None = None
        for last in self._marks_in(start, end):
            if last.kind == "open":
                opened.append(last)
            elif opened and (opened[-1].label == last.label or None in (opened[-1].label, last.label)):
                first = opened.pop()
                found.append(_Mention(first.at, last.at, last.label if first.label is None else first.label))
        if last and last.kind == "open":
            end = last.at + len(self.text[last.at : end].rstrip(" \t\r\n.,;:!?"))
            found.append(_Mention(last.at, end, last.label, closed=False))
        return found

    def has_marks(self, start: int, end: int) -> bool:
        """Whether any marker stands in [start, end] of the text."""
        return bool(self._marks_in(start, end))

    def _marks_in(self, start: int, end: int) -> Sequence[_Mark]:
        return self.marks[bisect_left(self.marks, (start,)) : bisect_left(self.marks, (end + 1,))]


def _take_markers_out(request: Request, response: str, scheme: MarkingScheme) -> _Marked:
    pattern, meanings = _marker_pattern(request, response, scheme)
    if pattern.search(request.sentence.text):
        found = _markers_left_over(request.sentence, response, pattern)
    else:
        found = ((match.start(), match.end(), str(match.lastgroup)) for match in pattern.finditer(response))
    parts: list[str] = []
    marks: list[_Mark] = []
    length = last = depth = 0
    for start, end, group in found:
        kind, label = meanings[group]
        # `@@ataxia@@` and `##ataxia##` are meant as mentions: where the marker stands says what it is.
        before, after = response[max(0, start - 1) : start], response[end : end + 1]
        if kind == "open" and depth and not (before.isspace() or before in _OPENING or after.isalnum()):
            kind = "close"
        elif kind == "close" and not depth and after.isalnum() and not before.isalnum():
            kind = "open"
        depth = depth + 1 if kind == "open" else max(0, depth - 1)
        parts.append(response[last:start])
        length += start - last
        marks.append(_Mark(length, kind, label))
        last = end
    return _Marked("".join([*parts, response[last:]]), marks)


_OPENING = frozenset(["", *"([{<'\"“‘"])


def _marker_pattern(
    request: Request, response: str, scheme: MarkingScheme
) -> tuple[re.Pattern[str], dict[str, tuple[_Kind, str | None]]]:
    """Make the pattern of all markers; each of its named groups is one, of which the dict tells the meaning."""
    only = request.labels[0][0] if len(request.labels) == 1 else None
    pairs: dict[Markers, str | None] = {SINGLE[""]: only}
    for label, _ in request.labels:
        pairs[scheme[label]] = label if label in (scheme.typed or {}) else only
    kinds: tuple[_Kind, _Kind] = ("open", "close")
    plain = [(pair[i], (kinds[i], label)) for pair, label in pairs.items() for i in (0, 1)]
    plain.sort(key=lambda marker: -len(marker[0]))  # a shorter one may begin a longer one, which is tried first
    markers: list[tuple[str, tuple[_Kind, str | None]]] = [
        (_loose_typed("@#"[i], name), (kinds[i], label))
        for name, label in _typed_names(request, response)
        for i in (0, 1)
    ]
    markers += [(_loose(marker), meaning) for marker, meaning in plain]
    pattern = "|".join(f"(?P<m{i}>{marker})" for i, (marker, _) in enumerate(markers))
    return re.compile(pattern, re.IGNORECASE), {f"m{i}": meaning for i, (_, meaning) in enumerate(markers)}


def _typed_names(request: Request, response: str) -> list[tuple[str, str]]:
    """Give what the typed markers of a response name, each with its label.

    One that was not asked for must occur twice: `@p53@` may be the mention of a model that forgot how to close it.
    """
    response = response.casefold()
    labels = {name: _label_called(name, request) for _, name in _TYPED.findall(response)}
    return [
        (name, label)
        for name, label in [*labels.items()][:MAX_NAMES]
        if label != _FOREIGN or response.count(f"@{name}") + response.count(f"#{name}") > 1
    ]


_TYPED = re.compile(r"(?=([@#]) ?([^\W\d_][\w -]{0,30}?) ?\1)")


def _label_called(name: str, request: Request) -> str:
    """Give the label that a typed marker names: `chem` is that of `chemical`."""
    for label, description in request.labels:
        for known in (label.casefold(), description.casefold()):
            shorter, longer = sorted((name, known), key=len)
            if name == known or (len(shorter) > 2 and longer.startswith(shorter)):
                return label
    return _FOREIGN


def _loose(marker: str) -> str:
    """Make the pattern of a marker whose signs may be repeated or lacking: `@` and `@@@` for `@@`."""
    runs = [(char, len([*run])) for char, run in groupby(marker)]
    loose = "".join(re.escape(char) + (f"{{{n}}}" if char.isalnum() else "+") for char, n in runs)
    # From the beginning of a run only: a long run of signs that is no marker is not tried from each of them.
    return loose if marker[0].isalnum() else f"(?<!{re.escape(marker[0])}){loose}"


def _loose_typed(sign: str, name: str) -> str:
    """Make the pattern of a typed marker: `@gene@`, `@@gene@`, `@ gene @`, and `@gene`."""
    return rf"(?<!{sign}){sign}+ ?{re.escape(name)}(?: ?{sign}+|\b)"


def _markers_left_over(
    sentence: Sentence, response: str, pattern: re.Pattern[str]
) -> Iterator[tuple[int, int, str]]:
    """Find the markers in a response to a sentence that itself holds what looks like one.

    They are looked for in what an alignment of the response as it is, white space too, leaves over.
    """
    text, copy = (_Folded(chars, range(len(chars)), len(chars)) for chars in (sentence.text, response))
    to = _match(text, copy, np.zeros(len(response), bool))
    at = 0
    for is_left_over, group in groupby(to < 0):
        length = len([*group])
        if is_left_over:
            for match in pattern.finditer(response[at : at + length]):
                yield at + match.start(), at + match.end(), str(match.lastgroup)
        at += length


# Characters that can be compared


class _Folded(NamedTuple):
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


def _squash(text: str) -> _Folded:
    return _Folded(squash(text), [i for i, char in enumerate(text) if not char.isspace()], len(text))


def _normalise(text: str) -> _Folded:
    folded = [_normal(char) for char in text]
    return _Folded("".join(folded), [i for i, chars in enumerate(folded) for _ in chars], len(text))


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


# From what the response holds to spans


def _align_copy(sentence: Sentence, marked: _Marked) -> Alignment | None:
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


_FOLDS: tuple[tuple[Callable[[str], _Folded], Diagnosis], ...] = ((_squash, "exact"), (_normalise, "aligned"))


def _find_copy(text: str, copy: _Folded, marked: _Marked) -> int | None:
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


def _align_changed_copy(sentence: Sentence, marked: _Marked) -> Alignment | None:
    """Align a response that holds the sentence with changes, or its beginning."""
    start, end = _find_line(sentence.text, marked)
    mentions = [_Mention(m.start - start, m.end - start, *m[2:]) for m in marked.mentions(start, end)]
    text, copy = _Text(sentence, _normalise), _normalise(marked.text[start:end])
    in_mention = np.zeros(len(copy.chars), bool)
    for mention in mentions:
        in_mention[slice(*copy.characters(mention.start, mention.end))] = True
    to = _match(text.folded, copy, in_mention)
    matched = np.flatnonzero(to >= 0)
    if not len(matched) or 2 * len(matched) < min(len(text.chars), len(copy.chars)):
        return None
    rest = text.chars[to[matched[-1]] + 1 :]
    breaks_off = len(rest) >= len(copy.chars) - matched[-1] and any(char.isalnum() for char in rest)
    return Alignment(_project(text, copy, to, mentions), "truncated" if breaks_off else "aligned")


def _find_line(text: str, marked: _Marked) -> tuple[int, int]:
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


def _align_json(request: Request, response: str, marked: _Marked) -> Alignment | None:
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

    def __init__(self, sentence: Sentence, fold: Callable[[str], _Folded]) -> None:
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


def _project(text: _Text, copy: _Folded, to: Ints, mentions: Iterable[_Mention]) -> tuple[TokenSpan, ...]:
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


# Alignment of sequences

# Scores: a character that matches, one that is replaced, and a gap, however long. So a match is not worth two gaps
# more (to leave what differs, and come back to it) unless it has at least four characters.
_SAME, _REPLACED, _GAP, _NEVER = 16, -16, -24, -(2**29)


def _match(text: _Folded, copy: _Folded, in_mention: NDArray[np.bool_]) -> Ints:
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

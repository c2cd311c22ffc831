"""Markers in free text: what a response says without them, and where they stood."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, cycle, groupby, islice
from typing import Literal, NamedTuple

import numpy as np

from ..marking import SINGLE, Markers, MarkingScheme
from ..requests import Request, Sentence
from .matching import Folded, fold_form, match_characters

MAX_NAMES = 16  # of typed markers in a response
MAX_MARKERS = 10_000  # that are taken out of a response

_Kind = Literal["open", "close"]
_KINDS: tuple[_Kind, _Kind] = ("open", "close")
_FOREIGN = ""  # the label of markers that name something else than was asked for


class _Mark(NamedTuple):
    """A marker, which stood before character `at` of the text without markers. label: None: it does not tell."""

    at: int
    kind: _Kind
    label: str | None


class MarkedMention(NamedTuple):
    """A mention, in characters [start, end) of the text without markers."""

    start: int
    end: int
    label: str | None
    closed: bool = True


class Marked(NamedTuple):
    """A response without its markers, and these in order."""

    text: str
    marks: Sequence[_Mark]

    def mentions(self, start: int = 0, end: int | None = None) -> list[MarkedMention]:
        """Pair the markers that stand in [start, end] of the text.

        A closing marker closes the mention that was opened last. One that is not closed ends with the text, if no
        marker follows it; else there is no telling where it ends, and it is left out.
        """
        end = len(self.text) if end is None else end
        found: list[MarkedMention] = []
        opened: list[_Mark] = []
        last: _Mark | None = None
        for last in self.marks[bisect_left(self.marks, (start,)) : bisect_left(self.marks, (end + 1,))]:
            if last.kind == "open":
                opened.append(last)
            elif opened and (opened[-1].label == last.label or None in (opened[-1].label, last.label)):
                first = opened.pop()
                found.append(MarkedMention(first.at, last.at, last.label if first.label is None else first.label))
        if last and last.kind == "open":
            end = last.at + len(self.text[last.at : end].rstrip(" \t\r\n.,;:!?"))
            found.append(MarkedMention(last.at, end, last.label, closed=False))
        return [mention for mention in found if mention.start < mention.end]

    def mentions_across(self, start: int, end: int) -> list[MarkedMention]:
        """Give the mentions in [start, end], and of those that begin before, in the same line, what lies in it."""
        first = start + len(self.text[start:end]) - len(self.text[start:end].lstrip())
        before = self.text.rfind("\n", 0, first) + 1
        across = [m for m in self.mentions(before, end) if m.closed and m.start < start < m.end]
        return [MarkedMention(start, m.end, m.label) for m in across] + self.mentions(start, end)

    def part(self, start: int, end: int) -> "Marked":
        """Give the stretch [start, end] of the text with the markers in it."""
        marks = self.marks[bisect_left(self.marks, (start,)) : bisect_left(self.marks, (end + 1,))]
        return Marked(self.text[start:end], [mark._replace(at=mark.at - start) for mark in marks])

    def strings(self, mentions: Iterable[MarkedMention]) -> list[tuple[str, str | None]]:
        """Give what mentions say, each with its label."""
        return [(self.text[mention.start : mention.end], mention.label) for mention in mentions]


def take_markers_out(request: Request, response: str, scheme: MarkingScheme) -> Marked:
    pattern, meanings = _marker_pattern(request, response, scheme)
    if pattern.search(request.sentence.text):
        matches = _markers_left_over(request.sentence, response, pattern)
    else:
        headings = _headings(response)
        matches = (
            (match.start(), match.end(), str(match.lastgroup))
            for match in pattern.finditer(response)
            if match.start() not in headings
        )
    found = [*islice(matches, MAX_MARKERS)]
    parts: list[str] = []
    marks: list[_Mark] = []
    length = last = 0
    kinds = [*_kinds(response, [(start, end, meanings[group][0]) for start, end, group in found])]
    places = [(start, end) for start, end, _ in found]
    for (start, end, group), kind, times in zip(found, kinds, _times(response, places, kinds), strict=True):
        parts.append(response[last:start])
        length += start - last
        marks += [_Mark(length, kind, meanings[group][1])] * times
        last = end
    return Marked("".join([*parts, response[last:]]), marks)


def _headings(response: str) -> set[int]:
    """Find where a heading of Markdown begins, such as `### Output:`; not where `##` closes what is open."""
    found = (match.start(1) for match in _HEADING.finditer(response))
    return {at for at in found if response.rfind("#", 0, at) >= response.rfind("@", 0, at)}


_HEADING = re.compile(r"^[ >]*(#{1,6}) (?=[^#\n]*(?:@|$))", re.MULTILINE)


def _kinds(response: str, found: Sequence[tuple[int, int, _Kind]]) -> Iterator[_Kind]:
    """Tell which markers open and which close, of markers [start, end) and what they are by their signs.

    `@@ataxia@@`, `##ataxia##` and `@@ ataxia @@` are meant as mentions. If all markers are alike each second one
    closes, unless a letter stands where none may; else where a marker stands says what it is.
    """
    around = [(response[max(0, start - 1) : start], response[end : end + 1]) for start, end, _ in found]
    outside = [*(before for before, _ in around[::2]), *(after for _, after in around[1::2])]
    if len({kind for *_, kind in found}) == 1 and not len(found) % 2 and not any(map(str.isalnum, outside)):
        yield from islice(cycle(_KINDS), len(found))
        return
    depth = 0
    for (before, after), (*_, kind) in zip(around, found, strict=True):
        if kind == "open" and depth and not (before.isspace() or before in _OPENING or after.isalnum()):
            kind = "close"
        elif kind == "close" and not depth and after.isalnum() and not before.isalnum():
            kind = "open"
        depth = depth + 1 if kind == "open" else max(0, depth - 1)
        yield kind


def _times(response: str, found: Sequence[tuple[int, int]], kinds: Sequence[_Kind]) -> list[int]:
    """Tell how many markers each one is: `####` may close two mentions, and `@@@@` open two if two are closed."""
    times = [max(1, (end - start) // 2) if len({*response[start:end]}) == 1 else 1 for start, end in found]
    closing = 0  # of the markers that follow up to one that opens
    for i in reversed(range(len(times))):
        if kinds[i] == "close":
            closing += times[i]
        else:
            times[i] = max(1, min(times[i], closing))
            closing = 0
    return times


_OPENING = frozenset(["", *"([{<'\"“‘"])


def _marker_pattern(
    request: Request, response: str, scheme: MarkingScheme
) -> tuple[re.Pattern[str], dict[str, tuple[_Kind, str | None]]]:
    """Make the pattern of all markers; each of its named groups is one, of which the dict tells the meaning."""
    only = request.labels[0][0] if len(request.labels) == 1 else None
    pairs: dict[Markers, str | None] = {SINGLE[""]: only}
    for label, _ in request.labels:
        pairs[scheme[label]] = label if label in (scheme.typed or {}) else only
    plain = [(pair[i], (_KINDS[i], label)) for pair, label in pairs.items() for i in (0, 1)]
    plain.sort(key=lambda marker: -len(marker[0]))  # a shorter one may begin a longer one, which is tried first
    markers: list[tuple[str, tuple[_Kind, str | None]]] = [
        (_loose_typed("@#"[i], name), (_KINDS[i], label))
        for name, label in _typed_names(request, response)
        for i in (0, 1)
    ]
    markers += [(_loose(marker), meaning) for marker, meaning in plain]
    pattern = "|".join(f"(?P<m{i}>{marker})" for i, (marker, _) in enumerate(markers))
    return re.compile(pattern, re.IGNORECASE), {f"m{i}": meaning for i, (_, meaning) in enumerate(markers)}


def _typed_names(request: Request, response: str) -> list[tuple[str, str]]:
    """Give what the typed markers of a response name, each with its label.

    `@p53@` may be the mention of a model that forgot how to close it. So a name that was not asked for must stand
    on both sides of a mention, or twice and not in the sentence.
    """
    response, text = response.casefold(), fold_form(request.sentence.text).chars
    labels = {name: label_called(name, request) or _FOREIGN for _, name in _TYPED.findall(response)}
    return [
        (name, label)
        for name, label in [*labels.items()][:MAX_NAMES]
        if (label != _FOREIGN and _is_typed(name, response))
        or re.search(r"@ ?{0} ?@[^@#]+# ?{0}\b".format(re.escape(name)), response)
        or (response.count(f"@{name}") + response.count(f"#{name}") > 1 and fold_form(name).chars not in text)
    ]


def _is_typed(name: str, response: str) -> bool:
    """Whether a name stands in a marker, not after or before one as a word of the text: `@@p53@@ gene @@`."""
    opens, closes = (re.search(rf"{sign} ?{re.escape(name)}\b", response) for sign in "@#")
    return bool((opens and closes) or re.search(rf"@{re.escape(name)}@+[^@\s]", response))


_TYPED = re.compile(r"(?=([@#]) ?([^\W\d_][\w -]{0,30}?) ?\1)")


def label_called(name: str, request: Request) -> str | None:
    """Give the label that was asked for and that a name means, if one is.

    `chem`, `chemicals` and `chemical_names` mean `chemical`; of "gene or protein" each will do.
    """
    name = _in_words(name)
    known = [
        (each.strip(), label)
        for label, description in request.labels
        for each in (_in_words(label), _in_words(description), *_OR.split(_in_words(description)))
    ]
    exact = (label for each, label in known if each == name)
    begun = (label for each, label in known if min(len(each), len(name)) > 2 and _begin_alike(each, name))
    return next(chain(exact, begun), None)


_OR = re.compile(r"\b(?:or|and)\b|[,/]")


def _in_words(name: str) -> str:
    return name.casefold().replace("_", " ")


def _begin_alike(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


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
    text, copy = (Folded(chars, range(len(chars)), len(chars)) for chars in (sentence.text, response))
    to = match_characters(text, copy, np.zeros(len(response), bool))
    at = 0
    for is_left_over, group in groupby(to < 0):
        length = len([*group])
        if is_left_over:
            for match in pattern.finditer(response[at : at + length]):
                yield at + match.start(), at + match.end(), str(match.lastgroup)
        at += length

"""Marking schemes, and marked text: a sentence with markers around its mentions and nothing else changed.

A marked sentence is a sequence of segments. All comparisons and round trips are made on segments, never on
the joined string, since a text may itself hold what looks like a marker.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .errors import Errors
from .requests import Sentence, TokenSpan


class Markers(NamedTuple):
    """The strings before and after a mention."""

    open: str
    close: str


@dataclass(frozen=True)
class MarkingScheme:
    """Maps each label to its pair of markers.

    default: The markers of every label without its own: such a label is named by the instruction alone, so a
        request can ask for one of them only. None: there are no other labels.
    typed: The markers of labels that have their own.
    RAISES: ValueError if a marker is empty or begins or ends with white space, or an opening marker begins
        with that of another label, so that a reading could be ambiguous.
    """

    default: Markers | None = Markers("@@", "##")
    typed: Mapping[str, Markers] | None = None

    def __post_init__(self) -> None:
        pairs = [*(self.typed or {}).values(), *([self.default] if self.default else [])]
        for marker in (marker for pair in pairs for marker in pair):
            if not marker or marker != marker.strip():
                raise ValueError(Errors.E030.format(marker=marker))
        opening = sorted(pair.open for pair in pairs)
        for one, other in zip(opening, opening[1:], strict=False):
            if other.startswith(one):
                raise ValueError(Errors.E031.format(one=one, other=other))

    @property
    def tells_labels(self) -> bool:
        """Whether markers alone say which label a mention has, so that one reading can mark several labels."""
        return self.default is None

    def __getitem__(self, label: str) -> Markers:
        markers = (self.typed or {}).get(label, self.default)
        if markers is None:
            raise KeyError(Errors.E032.format(label=label, labels=", ".join(self.typed or {})))
        return markers


SINGLE = MarkingScheme()
"""One pair of markers for any label, as in the paper: the @@ataxia## gene."""


def typed_scheme(descriptions: Mapping[str, str]) -> MarkingScheme:
    """Make the paper's multi-task scheme: the @disease@ataxia#disease# gene.

    descriptions: What the markers call each label, for example {"DISEASE": "disease"}.
    """
    return MarkingScheme(None, {x: Markers(f"@{name}@", f"#{name}#") for x, name in descriptions.items()})


class Segment(NamedTuple):
    """A part of a marked sentence. An opening marker's text has the space before the mention, if any."""

    kind: Literal["text", "open", "close"]
    text: str
    label: str | None = None


def mark(sentence: Sentence, spans: Iterable[TokenSpan], scheme: MarkingScheme = SINGLE) -> list[Segment]:
    """Mark spans in a sentence.

    sentence: The sentence.
    spans: Spans of its tokens, not empty and not overlapping, in any order.
    scheme: Which markers to use.
    RETURNS: The segments, a text segment for each token.
    RAISES: ValueError for spans that are empty, overlap or leave the sentence; KeyError for a label without
        markers.
    """
    starts, ends = _edges(sentence, spans)
    segments: list[Segment] = []
    for i, word in enumerate(sentence.words):
        if (label := ends.get(i)) is not None:
            segments.append(Segment("close", scheme[label].close, label))
        if (label := starts.get(i)) is not None:
            space = " " if sentence.has_space_before(i) else ""
            segments.append(Segment("open", space + scheme[label].open, label))
            segments.append(Segment("text", word))
        else:
            segments.append(Segment("text", sentence.piece(i)))
    if (label := ends.get(len(sentence.words))) is not None:
        segments.append(Segment("close", scheme[label].close, label))
    return segments


def _edges(sentence: Sentence, spans: Iterable[TokenSpan]) -> tuple[dict[int, str], dict[int, str]]:
    starts: dict[int, str] = {}
    ends: dict[int, str] = {}
    last = 0
    for span in sorted(spans):
        if not last <= span.start < span.end <= len(sentence.words):
            raise ValueError(Errors.E033.format(span=tuple(span), n=len(sentence.words)))
        starts[span.start] = ends[span.end] = span.label
        last = span.end
    return starts, ends


def join(segments: Sequence[Segment]) -> str:
    """Write a marked sentence as a string, as a reader or a model sees it."""
    return "".join(segment.text for segment in segments)

"""Gold and predicted entities of a doc as character spans, which do not depend on anyone's tokens."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from spacy.tokens import Doc
from spacy.training import Example

from ..errors import Errors
from ..requests import TokenSpan


class CharSpan(NamedTuple):
    """A labelled span of a text's characters, [start, end)."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class DocSpans:
    """What is judged of one doc.

    text: The doc's text.
    gold, predicted: The entities, in order; neither overlap among themselves.
    misaligned: How many predictions do not fall on boundaries of gold tokens. They are judged like all others.
    unannotated: How many predictions were left out because they touch tokens without gold annotation.
    votes: The vote of each candidate span, in tokens of the predicted doc. None: the pipeline does not vote, or
        not so that it can be read.
    unread: Whether there are scores, and they cannot be read as votes.
    chars: The character span of each candidate that is judged.
    """

    text: str
    gold: tuple[CharSpan, ...]
    predicted: tuple[CharSpan, ...]
    misaligned: int = 0
    unannotated: int = 0
    votes: Mapping[TokenSpan, float] | None = None
    unread: bool = False
    chars: Mapping[TokenSpan, CharSpan] = field(default_factory=dict)


def gold_spans(doc: Doc, labels: Collection[str] | None = None) -> tuple[CharSpan, ...]:
    """Give the entities of a doc as character spans.

    labels: Take only these labels. None: all.
    """
    return tuple(
        CharSpan(ent.start_char, ent.end_char, ent.label_)
        for ent in doc.ents
        if labels is None or ent.label_ in labels
    )


def doc_spans(example: Example, labels: Collection[str] | None = None, spans_key: str = "nerllama") -> DocSpans:
    """Take the spans of a predicted doc and its gold doc.

    As in spaCy's scorer, a prediction that touches a token whose entity annotation is missing is neither right
    nor wrong.

    example: The two docs.
    labels: Judge only these labels. None: all.
    spans_key: The group in `doc.spans` that holds the candidates, their votes in attrs["scores"]. Scores that are
        no votes of these candidates cost no more than the votes.
    RAISES: ValueError if the docs have different texts.
    """
    gold, predicted = example.reference, example.predicted
    if gold.text != predicted.text:
        raise ValueError(Errors.E094.format(text=gold.text[:60]))
    unknown = [(token.idx, token.idx + len(token)) for token in gold if not token.ent_iob]

    def is_annotated(span: CharSpan) -> bool:
        return not any(span.start < end and start < span.end for start, end in unknown)

    found = gold_spans(predicted, labels)
    judged = tuple(filter(is_annotated, found))
    votes: dict[TokenSpan, float] | None = None
    chars: dict[TokenSpan, CharSpan] = {}
    unread = False
    group = predicted.spans.get(spans_key)
    if group is not None and "scores" in group.attrs:
        candidates = [TokenSpan(span.start, span.end, span.label_) for span in group]
        scores = read_scores(group.attrs["scores"], len(candidates))
        unread = scores is None
        votes = None if scores is None else dict(zip(candidates, scores, strict=True))
        places = [CharSpan(span.start_char, span.end_char, span.label_) for span in group]
        chars = {
            candidate: place
            for candidate, place in zip(candidates, places, strict=True)
            if (labels is None or place.label in labels) and is_annotated(place)
        }
    return DocSpans(
        gold.text,
        gold_spans(gold, labels),
        judged,
        misaligned=sum(gold.char_span(span.start, span.end) is None for span in judged),
        unannotated=len(found) - len(judged),
        votes=votes,
        unread=unread,
        chars=chars,
    )


def read_scores(scores: Any, n: int) -> list[float] | None:
    """Read the scores of a span group, which may be of any component.

    n: How many spans the group has.
    RETURNS: The scores; None if they are not a finite number for each span.
    """
    try:
        read = np.asarray(scores)
    except Exception:  # ragged lists, an array on a GPU: of whatever library it is, the other figures matter more
        return None
    is_vector = read.shape == (n,) and read.dtype.kind in "fiu"
    return read.astype(float).tolist() if is_vector and np.isfinite(read).all() else None

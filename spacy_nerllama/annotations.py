"""Votes as annotations of a doc: entities, and a span group of every span with its vote."""

from bisect import bisect_left
from collections.abc import Collection, Mapping

import numpy as np
from spacy.tokens import Doc, Span, SpanGroup

from .requests import TokenSpan
from .voting import elect

_OURS = "nerllama"  # an attribute of a group: its "scores" are votes


def write_votes(
    doc: Doc,
    votes: Mapping[TokenSpan, float],
    thresholds: Mapping[str, float],
    spans_key: str,
    overwrite_ents: bool,
) -> None:
    """Write votes to a doc, in place: entities by the vote rule, and every span with its vote to the span group.

    doc: The doc. Entities that an earlier vote on it has made are not kept; others are, where none is in the way.
    votes: The vote of each span, in tokens of the doc.
    thresholds: The least vote of an entity, for each label that was asked for.
    spans_key: The group in `doc.spans`; votes are in its attrs["scores"].
    overwrite_ents: Where entities overlap with those that the doc has, the new are kept, instead of the old.
    """
    spans = sorted(votes)
    group = SpanGroup(doc, name=spans_key, spans=[Span(doc, *span) for span in spans])
    group.attrs["scores"] = np.array([votes[span] for span in spans], dtype="float64")
    group.attrs[_OURS] = True
    new = [Span(doc, *span) for span in elect(votes, thresholds)]
    before = _voted_on(doc, spans_key, thresholds.keys())
    old = [ent for ent in doc.ents if _place(ent) not in before]
    first, then = (new, old) if overwrite_ents else (old, new)
    taken = {i for span in first for i in range(span.start, span.end)}
    doc.set_ents([*first, *(span for span in then if taken.isdisjoint(range(span.start, span.end)))])
    doc.spans[spans_key] = group


def _voted_on(doc: Doc, spans_key: str, labels: Collection[str]) -> set[TokenSpan]:
    """Give what an earlier vote on a doc was about: it is voted on anew now."""
    group = doc.spans.get(spans_key)
    if group is None or not group.attrs.get(_OURS):
        return set()
    return {_place(span) for span in group if span.label_ in labels}


def span_vote(span: Span) -> float | None:
    """Give the vote of a span in its doc's group; None for one without, and if spans were taken out of it."""
    wanted = _place(span)
    for group in span.doc.spans.values():
        if group.attrs.get(_OURS) and len(group) == len(group.attrs["scores"]):
            i = bisect_left(group, wanted, key=_place)  # spans are written in order
            if i < len(group) and _place(group[i]) == wanted:
                return float(group.attrs["scores"][i])
    return None


def _place(span: Span) -> TokenSpan:
    return TokenSpan(span.start, span.end, span.label_)

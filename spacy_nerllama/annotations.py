"""Votes as annotations of a doc: entities, and a span group of every span with its vote."""

from bisect import bisect_left
from collections.abc import Mapping
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from spacy.tokens import Doc, Span, SpanGroup

from .requests import TokenSpan
from .voting import elect

_OURS = "nerllama"  # an attribute of a group: its "scores" are votes
_KEPT = "kept"  # another: for each of its spans, whether a vote has made it an entity
# And another: the characters and the label of each. Where tokens were merged since, as by `merge_entities`, spaCy
# leaves the groups as they were: then characters are still right, tokens are not.
_PLACES = "places"


class _Candidate(NamedTuple):
    """A span with a vote: whether that vote made it an entity."""

    vote: float
    kept: bool


def write_votes(
    doc: Doc,
    votes: Mapping[TokenSpan, float],
    thresholds: Mapping[str, float],
    spans_key: str,
    overwrite_ents: bool,
) -> None:
    """Write votes to a doc, in place: entities by the vote rule, and every span with its vote to the span group.

    What an earlier vote said of the same labels is replaced: entities that it made, and the votes of its spans.
    Those of other labels stay in the group, and other entities in the doc where none is in the way.

    doc: The doc.
    votes: The vote of each span, in tokens of the doc.
    thresholds: The least vote of an entity, for each label that was asked for.
    spans_key: The group in `doc.spans`; votes are in its attrs["scores"].
    overwrite_ents: Where entities overlap with those that the doc has, the new are kept, instead of the old.
    """
    before = _candidates(doc, spans_key)
    anew = {place for place, candidate in before.items() if candidate.kept and place.label in thresholds}
    old = [ent for ent in doc.ents if _place(ent) not in anew]
    there = set(map(_place, old))  # left as they are: they may have an id, or a link to a knowledge base
    new = [Span(doc, *span) for span in elect(votes, thresholds) if span not in there]
    first, then = (new, old) if overwrite_ents else (old, new)
    taken = {i for span in first for i in range(span.start, span.end)}
    ents = [*first, *(span for span in then if taken.isdisjoint(range(span.start, span.end)))]
    stay = set(map(_place, ents))
    for token in (token for span in old if _place(span) not in stay for token in span):
        token.ent_id = 0  # which spaCy would leave to the entity that is there now
    doc.set_ents(ents)

    made = set(map(_place, new)) | {place for place, candidate in before.items() if candidate.kept}
    made &= set(map(_place, doc.ents))
    others = {place: each.vote for place, each in before.items() if place.label not in thresholds}
    candidates = {place: _Candidate(vote, place in made) for place, vote in (others | dict(votes)).items()}
    _write_group(doc, spans_key, candidates)


def settle_votes(doc: Doc) -> Doc:
    """Put the votes of a doc whose tokens were merged since, as by `merge_entities`, on those that it has now.

    Votes of spans that are no whole tokens any more are left out. Registered as the component
    `nerllama_settle_votes`, to be put behind one that merges tokens: spaCy cannot save the doc otherwise.

    RETURNS: The doc, which is changed in place.
    """
    for key, group in [*doc.spans.items()]:
        if _is_whole(group):
            _write_group(doc, key, _candidates(doc, key))
    return doc


def remove_votes(doc: Doc) -> None:
    """Take the groups with votes out of a doc, in place."""
    for key in [key for key, group in doc.spans.items() if group.attrs.get(_OURS)]:
        del doc.spans[key]


def _write_group(doc: Doc, spans_key: str, candidates: Mapping[TokenSpan, _Candidate]) -> None:
    ordered = sorted(candidates.items())
    group = SpanGroup(doc, name=spans_key, spans=[Span(doc, *span) for span, _ in ordered])
    group.attrs["scores"] = np.array([each.vote for _, each in ordered], dtype="float64")
    group.attrs[_KEPT] = [each.kept for _, each in ordered]
    group.attrs[_PLACES] = [[span.start_char, span.end_char, span.label_] for span in group]
    group.attrs[_OURS] = True
    doc.spans[spans_key] = group


def _candidates(doc: Doc, spans_key: str) -> dict[TokenSpan, _Candidate]:
    """Give what earlier votes have written to a group; nothing of one that was changed, or whose tokens were."""
    group = doc.spans.get(spans_key)
    if group is None or not _is_whole(group):
        return {}
    spans = [doc.char_span(start, end, label) for start, end, label in group.attrs[_PLACES]]
    return {
        _place(span): _Candidate(float(vote), bool(made))
        for span, vote, made in zip(spans, group.attrs["scores"], group.attrs[_KEPT], strict=True)
        if span is not None
    }


def span_vote(span: Span) -> float | None:
    """Give the vote of a span in its doc's groups: that which made it an entity, else the first.

    RETURNS: None for a span without a vote, and in a group that spans were taken out of.
    """
    wanted, votes = [span.start_char, span.end_char, span.label_], []
    for group in filter(_is_whole, span.doc.spans.values()):
        places = group.attrs[_PLACES]
        i = bisect_left(places, wanted)  # spans are written in order
        if i < len(places) and places[i] == wanted:
            votes.append((not group.attrs[_KEPT][i], float(group.attrs["scores"][i])))
    return min(votes, key=itemgetter(0))[1] if votes else None


def _is_whole(group: SpanGroup) -> bool:
    """Whether a group is of votes, one for each of its spans."""
    of_each = (group.attrs.get(key, ()) for key in ("scores", _KEPT, _PLACES))
    return bool(group.attrs.get(_OURS)) and all(len(values) == len(group) for values in of_each)


def _place(span: Span) -> TokenSpan:
    return TokenSpan(span.start, span.end, span.label_)


if not Span.has_extension("nerllama_vote"):
    Span.set_extension("nerllama_vote", getter=span_vote)

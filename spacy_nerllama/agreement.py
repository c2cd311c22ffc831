"""What the sentences of a doc say together: "ATM" is likely a gene in the fourth, if it is one in the others.

A model reads one sentence at a time. Words that come again in a doc mean the same ("one sense per discourse",
Gale, Church & Yarowsky 1992), and not every sentence shows what.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from .requests import Request, Sentence, TokenSpan
from .voting import Votes, shift

MAJORITY = 0.5
"""With this vote or more, whatever the threshold, the words within a span are part of it."""


class Answered(NamedTuple):
    """A request with its votes. Its sentence begins at the doc's token `start`."""

    start: int
    request: Request
    votes: Votes


def doc_votes(answered: Iterable[Answered], agreement: float) -> dict[TokenSpan, float]:
    """Put the answers to the requests of a doc together.

    answered: The requests with their answers.
    agreement: As `agree` takes it. Sentences agree that were asked for the same labels, and had a reading.
    RETURNS: The vote of each span, in tokens of the doc.
    """
    by_labels: dict[tuple[tuple[str, str], ...], list[Answered]] = defaultdict(list)
    for each in answered:
        if each.votes.answered:
            by_labels[each.request.labels].append(each)
    found: dict[TokenSpan, float] = {}
    for alike in by_labels.values():
        votes = {span: vote for start, _, each in alike for span, vote in shift(each.spans, start)}
        found |= agree(votes, [(start, request.sentence) for start, request, _ in alike], agreement)
    return found


def agree(
    votes: Mapping[TokenSpan, float], sentences: Sequence[tuple[int, Sentence]], agreement: float
) -> dict[TokenSpan, float]:
    """Move the vote of each span towards the mean over all occurrences of its words in the doc.

    An occurrence without a vote counts as 0, and stays without. Words within another span of the label that has a
    majority and a higher vote are no occurrence: "diabetes" in "diabetes insipidus" is none. Nothing moves where
    all occurrences are in one sentence, which the model has read as a whole.

    votes: The vote of each span, in tokens of the doc.
    sentences: The sentences, each with the doc's token at which it begins.
    agreement: How far, from 0, not at all, to below 1. Up to 0.5, a span that all readings hold keeps a majority.
    RETURNS: The new votes of the same spans.
    """
    if len(sentences) < 2 or not agreement:
        return dict(votes)
    majority = _by_token(span for span, vote in votes.items() if vote >= MAJORITY)

    def covered(span: TokenSpan) -> bool:
        vote, others = votes.get(span, 0.0), majority.get((span.start, span.label), ())
        return any(other.end >= span.end and votes[other] > vote for other in others)

    agreed = dict(votes)
    for occurrences in _occurrences(votes, sentences):
        counted = {span: sentence for span, sentence in occurrences.items() if not covered(span)}
        if len(set(counted.values())) > 1:
            mean = fmean(votes.get(span, 0.0) for span in counted)
            for span in votes.keys() & counted.keys():
                agreed[span] = round(votes[span] + agreement * (mean - votes[span]), 12)  # 0.9 is not to miss 0.9
    return agreed


def _by_token(spans: Iterable[TokenSpan]) -> Mapping[tuple[int, str], list[TokenSpan]]:
    """Sort spans by each of their tokens, and their label."""
    by_token: dict[tuple[int, str], list[TokenSpan]] = defaultdict(list)
    for span in spans:
        for i in range(span.start, span.end):
            by_token[i, span.label].append(span)
    return by_token


def _occurrences(
    spans: Iterable[TokenSpan], sentences: Sequence[tuple[int, Sentence]]
) -> Iterable[Mapping[TokenSpan, int]]:
    """Find all places of the words of each span, with the number of the sentence; of the same words once."""
    words = {start + i: word for start, sentence in sentences for i, word in enumerate(sentence.words)}
    same: dict[tuple[tuple[str, ...], str], dict[TokenSpan, int]] = {
        (tuple(words[i] for i in range(span.start, span.end)), span.label): {} for span in spans
    }
    labels = {label for _, label in same}
    for n in {len(text) for text, _ in same}:
        for number, (start, sentence) in enumerate(sentences):
            for i in range(len(sentence.words) - n + 1):
                text = sentence.words[i : i + n]
                for label in labels:
                    if (text, label) in same:
                        same[text, label][TokenSpan(start + i, start + i + n, label)] = number
    return same.values()

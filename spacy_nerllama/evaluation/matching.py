"""One-to-one pairs of predicted and gold spans that overlap."""

from collections.abc import Iterable

from .spans import CharSpan


def pair_overlapping(predicted: Iterable[CharSpan], gold: Iterable[CharSpan]) -> list[tuple[CharSpan, CharSpan]]:
    """Pair spans that share a character, whatever their labels, each span once and as many as possible.

    predicted, gold: Spans; neither overlap among themselves, so that pairing from left to right is optimal.
    RETURNS: The pairs, as (predicted, gold).
    """
    pairs = []
    ours, theirs = sorted(predicted), sorted(gold)
    i = j = 0
    while i < len(ours) and j < len(theirs):
        if ours[i].end <= theirs[j].start:
            i += 1
        elif theirs[j].end <= ours[i].start:
            j += 1
        else:
            pairs.append((ours[i], theirs[j]))
            i, j = i + 1, j + 1
    return pairs

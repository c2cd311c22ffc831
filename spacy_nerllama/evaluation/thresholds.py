"""The vote above which a span is kept, tuned per label.

On calibrated votes the threshold that is best for F1 is half the F1 that it reaches (Lipton et al. 2014), so a
label that the model knows less well wants a lower one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from ..requests import TokenSpan
from ..voting import elect
from .scores import Counts, score
from .spans import CharSpan, DocSpans

Answer = tuple[Mapping[TokenSpan, float], Collection[TokenSpan]]

GRID = tuple(round(0.05 * step, 2) for step in range(1, 20))


def best_thresholds(answers: Iterable[Answer], grid: Collection[float] = GRID) -> dict[str, tuple[float, Counts]]:
    """Find the threshold of each label with the best F1.

    answers: The votes for a request, with its gold spans. Labels are tuned each for itself, as if no span of
        another overlapped theirs.
    grid: The thresholds to try; of equally good ones the one nearest to 0.5 is taken.
    RETURNS: For each label that has a gold span, its threshold and the counts with it.
    """
    by_label: dict[str, list[Answer]] = {}
    for votes, gold in answers:
        for label in {span.label for span in (*votes, *gold)}:
            mine = {span: vote for span, vote in votes.items() if span.label == label}
            by_label.setdefault(label, []).append((mine, [span for span in gold if span.label == label]))
    best = {}
    for label, theirs in by_label.items():
        tried = {
            threshold: score((elect(votes, {label: threshold}), gold) for votes, gold in theirs)
            for threshold in grid
        }
        if next(iter(tried.values())).gold:
            threshold = max(tried, key=lambda each: (tried[each].f1, -abs(each - 0.5)))
            best[label] = (threshold, tried[threshold])
    return best


def curve(docs: Sequence[DocSpans], grid: Iterable[float] = GRID) -> dict[float, Counts]:
    """Count what the vote rule would keep of whole docs with one threshold for all labels.

    docs: The votes of each doc, with its gold spans.
    grid: The thresholds to try.
    RETURNS: For each threshold, the strict counts over all labels.
    """
    return {threshold: score((_kept(doc, threshold), doc.gold) for doc in docs) for threshold in grid}


def _kept(doc: DocSpans, threshold: float) -> list[CharSpan]:
    votes = doc.votes or {}
    kept = elect(votes, {candidate.label: threshold for candidate in votes})
    return [doc.chars[candidate] for candidate in kept if candidate in doc.chars]

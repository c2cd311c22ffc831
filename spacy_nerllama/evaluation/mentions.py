"""Mentions seen in training: is a mention found because it is known, or because it is understood?"""

from collections.abc import Iterable
from typing import NamedTuple

from spacy.tokens import Doc

from .scores import Counts, count
from .spans import CharSpan, DocSpans


class Mention(NamedTuple):
    """What a mention is called, wherever it stands."""

    text: str
    label: str


def normalise(text: str) -> str:
    """Put a text into lower case, with single spaces between its words."""
    return " ".join(text.lower().split())


def mentions(docs: Iterable[Doc]) -> set[Mention]:
    """Collect the mentions of docs."""
    return {Mention(normalise(ent.text), ent.label_) for doc in docs for ent in doc.ents}


def count_seen(doc: DocSpans, label: str, known: set[Mention], seen: bool) -> Counts:
    """Count the mentions of a label that occur (or do not occur) in training with the same label.

    known: The mentions of the training data.
    seen: Whether to count those that occur in it, or the others.
    RETURNS: How many are found strictly (these are the predictions, too: only recall is asked), and how many there
        are.
    """

    def concerned(span: CharSpan) -> bool:
        return span.label == label and seen == (
            Mention(normalise(doc.text[span.start : span.end]), label) in known
        )

    gold = set(filter(concerned, doc.gold))
    found = gold & set(doc.predicted)
    return count(found, gold)

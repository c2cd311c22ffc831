"""The entities of a doc as the gold spans of its sentences."""

from collections.abc import Container, Iterable

from spacy.tokens import Doc

from .requests import Sentence, TokenSpan


def inner_entities(doc: Doc, entities: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Take white-space tokens off the edges of entities, as `doc_sentences` takes them off those of sentences.

    entities: (start, end, label) in tokens of the doc.
    """
    found = []
    for start, end, label in entities:
        inner = [i for i in range(start, end) if not doc[i].text.isspace()]
        if inner:
            found.append((inner[0], inner[-1] + 1, label))
    return found


def gold_spans(
    sentence: Sentence,
    start: int,
    entities: Iterable[tuple[int, int, str]],
    labels: Container[str] | None = None,
) -> list[TokenSpan] | None:
    """Give the entities of a sentence.

    start: The doc's token at which the sentence begins.
    entities: (start, end, label) in tokens of the doc.
    labels: Take only these labels. None: all.
    RETURNS: Those in the sentence, in its tokens and in order; None if its edge cuts one.
    """
    n = len(sentence.words)
    spans = [TokenSpan(first - start, end - start, label) for first, end, label in entities]
    spans = sorted(
        span for span in spans if span.start < n and span.end > 0 and (labels is None or span.label in labels)
    )
    return spans if all(span.start >= 0 and span.end <= n for span in spans) else None

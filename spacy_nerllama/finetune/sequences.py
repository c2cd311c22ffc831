"""Docs to training sequences, built by the functions that inference uses."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from spacy.tokens import Doc

from ..grammar import Decision, Grammar
from ..marking import MarkingScheme
from ..models.tokens import TextEncoder
from ..prompts import Prompt, scheme_of
from ..requests import Request, TokenSpan, doc_requests

Example = tuple[Request, list[TokenSpan]]
"""A request with its gold spans."""


class TrainingSequence(NamedTuple):
    """A prompt and the gold marked copy after it.

    ids: The ids of prompt and copy.
    start: Where the copy begins.
    positions: For each decision, the position whose hidden state predicts it: that of the id before.
    choices: For each decision, the legal ids, the right one first.
    """

    ids: tuple[int, ...]
    start: int
    positions: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]


def training_sequence(
    request: Request, spans: Sequence[TokenSpan], prompt: Prompt, scheme: MarkingScheme, encoder: TextEncoder
) -> TrainingSequence:
    """Build the sequence that teaches one request.

    request: The request.
    spans: Its gold spans, in order.
    RAISES: ValueError if the gold spans cannot be marked (see `Grammar.follow`).
    """
    asked = encoder.prompt(prompt(request)).ids
    copy = Grammar(request, scheme, encoder.piece).follow(spans)
    start = len(asked)
    return TrainingSequence(
        (*asked, *copy.ids),
        start,
        tuple(start + decision.position - 1 for decision in copy.decisions),
        tuple(_right_first(decision) for decision in copy.decisions),
    )


Batch = list[TrainingSequence]


def training_sequences(
    examples: Iterable[Example], prompt: Prompt, encoder: TextEncoder, max_tokens: int
) -> list[tuple[Example, TrainingSequence]]:
    """Build the sequences that teach examples, each with its example.

    RETURNS: Those of at most `max_tokens` whose gold spans can be marked.
    """
    scheme, found = scheme_of(prompt), []
    for request, spans in examples:
        try:
            sequence = training_sequence(request, spans, prompt, scheme, encoder)
        except ValueError:  # a gold span that no reading can mark
            continue
        if len(sequence.ids) <= max_tokens:
            found.append(((request, spans), sequence))
    return found


def in_batches(sequences: Iterable[TrainingSequence], batch_tokens: int) -> list[Batch]:
    """Put sequences of about the same length together, up to the budget of tokens with padding.

    A sequence that is longer than the budget has a batch to itself.
    """
    batches: list[Batch] = []
    for sequence in sorted(sequences, key=lambda each: len(each.ids)):
        if not batches or (len(batches[-1]) + 1) * len(sequence.ids) > batch_tokens:
            batches.append([])
        batches[-1].append(sequence)
    return batches


def _right_first(decision: Decision) -> tuple[int, ...]:
    right = decision.choices[decision.taken]
    return (right, *(choice for choice in decision.choices if choice != right))


def doc_examples(
    docs: Iterable[Doc], labels: Mapping[str, str], held_out: Container[str] = (), together: bool = False
) -> Iterator[Example]:
    """Give what a corpus teaches: the requests for each sentence and the labels it annotates, with the gold spans.

    labels: What the prompt calls each label that the corpus annotates. Others are not asked for, so what a
        corpus does not annotate is never taught as absent.
    held_out: Sentences to leave out, squashed.
    together: As `doc_requests` takes it.
    """
    for doc in docs:
        entities = [(ent.start, ent.end, ent.label_) for ent in doc.ents]
        for start, request in doc_requests(doc, labels, together):
            if request.sentence.squashed not in held_out:
                yield request, gold_spans(request, start, entities)


def gold_spans(request: Request, start: int, entities: Iterable[tuple[int, int, str]]) -> list[TokenSpan]:
    """Give the entities that a request asks for.

    request: The request.
    start: The doc's token at which its sentence begins.
    entities: (start, end, label) in tokens of the doc.
    RETURNS: Those with one of the request's labels that lie in its sentence, in tokens of the sentence, in
        order.
    """
    n, labels = len(request.sentence.words), dict(request.labels)
    spans = (TokenSpan(first - start, end - start, label) for first, end, label in entities)
    return sorted(span for span in spans if span.start >= 0 and span.end <= n and span.label in labels)

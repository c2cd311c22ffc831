"""Docs to training sequences, built by the functions that inference uses."""

import logging
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from spacy.tokens import Doc

from ..errors import Warnings
from ..gold import gold_spans, inner_entities
from ..grammar import Decision, Grammar
from ..marking import MarkingScheme
from ..models.tokens import TextEncoder
from ..prompts import Prompt, scheme_of
from ..requests import Request, TokenSpan, doc_requests

logger = logging.getLogger(__name__)

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

    Left out, with a warning at the end, are sentences with a token whose annotation is missing (as spaCy's `ner`
    does), and those whose edge cuts a mention: what is left of it would be taught as none.

    labels: What the prompt calls each label that the corpus annotates. Others are not asked for, so what a
        corpus does not annotate is never taught as absent.
    held_out: Sentences to leave out, squashed.
    together: As `doc_requests` takes it.
    """
    missing = cut = 0
    for doc in docs:
        entities = inner_entities(doc, ((ent.start, ent.end, ent.label_) for ent in doc.ents))
        for start, request in doc_requests(doc, labels, together):
            if request.sentence.squashed in held_out:
                continue
            tokens = doc[start : start + len(request.sentence.words)]
            spans = gold_spans(request.sentence, start, entities, dict(request.labels))
            if not all(token.ent_iob for token in tokens):
                missing += 1
            elif spans is None:
                cut += 1
            else:
                yield request, spans
    if missing or cut:
        logger.warning(Warnings.W162.format(missing=missing, cut=cut))

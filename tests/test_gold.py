"""The entities of a doc as the gold spans of its sentences."""

from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_nerllama.gold import gold_spans, inner_entities
from spacy_nerllama.requests import Sentence, TokenSpan

SENTENCE = Sentence(("a", "b", "c"), (True, True, True))  # at token 10 of its doc
LABELS = ["DISEASE", "GENE"]
ENTITIES = [
    (12, 13, "GENE"),
    (10, 11, "DISEASE"),
    (11, 12, "GENE"),
    (9, 10, "GENE"),  # before the sentence, and behind it
    (13, 14, "GENE"),
    (10, 11, "CHEMICAL"),  # not asked for, be it cut
    (9, 11, "CHEMICAL"),
]


def test_the_entities_of_a_sentence_in_order_and_in_its_tokens() -> None:
    spans = [TokenSpan(0, 1, "DISEASE"), TokenSpan(1, 2, "GENE"), TokenSpan(2, 3, "GENE")]
    assert gold_spans(SENTENCE, 10, ENTITIES, LABELS) == spans
    assert gold_spans(SENTENCE, 10, ENTITIES[:6]) == [TokenSpan(0, 1, "CHEMICAL"), *spans]


def test_a_sentence_that_cuts_an_entity_is_told() -> None:
    for cut in ((9, 11, "GENE"), (12, 14, "DISEASE"), (9, 14, "GENE")):
        assert gold_spans(SENTENCE, 10, [*ENTITIES, cut], LABELS) is None
    assert gold_spans(SENTENCE, 10, ENTITIES) is None


def test_white_space_at_the_edges_of_an_entity_is_no_part_of_it() -> None:
    doc = Doc(Vocab(), words=["the", "\n", "ataxia", "\t", "gene", "\n"])
    entities = [(1, 4, "DISEASE"), (2, 5, "GENE"), (5, 6, "CHEMICAL")]
    assert inner_entities(doc, entities) == [(2, 3, "DISEASE"), (2, 5, "GENE")]

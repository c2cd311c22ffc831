"""Training sequences: a prompt, the gold marked copy, and the decisions in it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab
from strategies import has_clean_edges, plain_words, sentences, spans_of

from spacy_nerllama.finetune.sequences import doc_examples, training_sequence
from spacy_nerllama.grammar import Grammar, State
from spacy_nerllama.marking import SINGLE, typed_scheme
from spacy_nerllama.models.tokens import TextEncoder
from spacy_nerllama.prompts import CompactPrompt, PaperPrompt
from spacy_nerllama.requests import Request, Sentence, TokenSpan

TYPED = typed_scheme({"DISEASE": "disease", "GENE": "gene"})
LABELS = {"DISEASE": "disease", "GENE": "gene"}


def decode(encoder: TextEncoder, ids: tuple[int, ...]) -> str:
    return encoder.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


def make_doc() -> Doc:
    """Two sentences with white space around them: a disease and a gene in the first, a gene in the second."""
    words = ["The", "ataxia", "gene", "ATM", ".", "\n", "BRCA1", "too"]
    doc = Doc(Vocab(), words=words, sent_starts=[True, *[False] * 5, True, False])
    doc.set_ents([Span(doc, 1, 2, "DISEASE"), Span(doc, 3, 4, "GENE"), Span(doc, 6, 7, "GENE")])
    return doc


def test_a_sequence_is_the_prompt_and_the_marked_copy(encoder: TextEncoder) -> None:
    request = Request(Sentence(("An", "ataxia", "."), (True, False, False)), (("DISEASE", "disease"),))
    sequence = training_sequence(request, [TokenSpan(1, 2, "DISEASE")], CompactPrompt(), SINGLE, encoder)
    assert decode(encoder, sequence.ids[1 : sequence.start]) == "An ataxia.\nMark disease:\n"
    assert decode(encoder, sequence.ids[sequence.start :]) == "An @@ataxia##."
    # Decided: whether to open before "An" and before "ataxia", to close after it, and to open before ".".
    an, opens, ataxia, closes, dot = (encoder.piece(x) for x in ("An", " @@", "ataxia", "##", "."))
    assert sequence.ids[sequence.start :] == an + opens + ataxia + closes + dot
    assert sequence.choices == (
        (an[0], encoder.piece("@@")[0]),
        (opens[0], encoder.piece(" ataxia")[0]),
        (closes[0], dot[0]),
        (dot[0], encoder.piece("@@")[0]),
    )


@pytest.mark.parametrize("scheme", [SINGLE, TYPED], ids=["single", "typed"])
@given(st.data())
def test_positions_stand_before_what_is_decided(encoder: TextEncoder, scheme, data: st.DataObject) -> None:
    """The ids are those that inference writes, and each decision is predicted by the id before it."""
    source = data.draw(sentences(plain_words | st.sampled_from(["\n", "@@", "@-adrenergic", "##"])))
    labels = tuple(LABELS.items())[: 2 if scheme is TYPED else 1]
    spans = [s for s in data.draw(spans_of(source, dict(labels))) if has_clean_edges(source, s)]
    request = Request(source, labels)
    grammar = Grammar(request, scheme, encoder.piece)
    try:
        copy = grammar.follow(spans)
    except ValueError:
        with pytest.raises(ValueError, match=r"^\[NL035\]"):
            training_sequence(request, spans, CompactPrompt(), scheme, encoder)
        return
    prompt = encoder.prompt(CompactPrompt()(request))
    sequence = training_sequence(request, spans, CompactPrompt(), scheme, encoder)
    assert sequence.ids == (*prompt.shared, *prompt.own, *copy.ids)
    assert sequence.start == len(sequence.ids) - len(copy.ids)
    assert len(sequence.positions) == len(sequence.choices)
    assert all(one < other for one, other in pairwise(sequence.positions))
    assert all(sequence.start - 1 <= p < len(sequence.ids) - 1 for p in sequence.positions)
    for position, choices in zip(sequence.positions, sequence.choices, strict=True):
        state = State()
        for token_id in sequence.ids[sequence.start : position + 1]:
            state, _ = grammar.advance(state, token_id)
        assert choices[0] == sequence.ids[position + 1]
        assert set(choices) == set(grammar.choices(state))
        assert len(choices) >= 2


def test_the_papers_prompt_is_learnt_in_its_chat(encoder: TextEncoder) -> None:
    request = Request(Sentence(("An", "ataxia"), (True, False)), (("DISEASE", "disease"),))
    sequence = training_sequence(request, [TokenSpan(1, 2, "DISEASE")], PaperPrompt(), SINGLE, encoder)
    text = decode(encoder, sequence.ids)
    assert text.endswith("the Input:\nAn ataxia<|im_end|>\n<|im_start|>assistant\nAn @@ataxia")


def test_a_request_for_each_sentence_and_label_with_its_gold_spans() -> None:
    examples = list(doc_examples([make_doc(), make_doc()], LABELS))
    first = [
        (request.sentence.text, request.labels[0][0], [(span.start, span.end) for span in spans])
        for request, spans in examples[:4]
    ]
    assert first == [
        ("The ataxia gene ATM .", "DISEASE", [(1, 2)]),
        ("The ataxia gene ATM .", "GENE", [(3, 4)]),
        ("BRCA1 too", "DISEASE", []),  # what is not there is taught too
        ("BRCA1 too", "GENE", [(0, 1)]),
    ]
    assert examples[4:] == examples[:4]
    assert all(span.label == request.labels[0][0] for request, spans in examples for span in spans)


def test_labels_that_a_corpus_does_not_annotate_are_not_asked() -> None:
    asked = {request.labels for request, _ in doc_examples([make_doc()], {"GENE": "gene"})}
    assert asked == {(("GENE", "gene"),)}
    assert list(doc_examples([make_doc()], {})) == []


def test_held_out_sentences_are_not_asked_however_they_are_tokenised() -> None:
    held_out = {Sentence(("The", "ataxia\n", "gene", "AT", "M."), (True, False, True, False, False)).squashed}
    sentences = [request.sentence.text for request, _ in doc_examples([make_doc()], LABELS, held_out)]
    assert sentences == ["BRCA1 too"] * 2


def test_a_mention_that_a_sentence_cuts_is_not_taught_as_none(caplog: pytest.LogCaptureFixture) -> None:
    words = "Mutants of E. coli K12 grew . It fell \n".split(" ")
    starts = [i in (0, 4, 7) for i in range(len(words))]  # one in the midst of "E. coli K12"
    doc = Doc(Vocab(), words=words, sent_starts=starts)
    doc.set_ents([Span(doc, 2, 5, "GENE"), Span(doc, 8, 10, "DISEASE")])
    found = [(r.sentence.text, spans) for r, spans in doc_examples([doc], LABELS)]
    assert found == [
        ("Mutants of E. coli", []),  # of diseases there is none
        ("K12 grew .", []),
        ("It fell", [TokenSpan(1, 2, "DISEASE")]),  # the line break is no part of it
        ("It fell", []),
    ]
    assert "[NLW162]" in caplog.text
    assert "and 2 for sentences whose edge cuts a mention" in caplog.text


def test_tokens_whose_annotation_is_missing_are_not_taught_as_none(caplog: pytest.LogCaptureFixture) -> None:
    bare = Doc(Vocab(), words=["No", "ataxia"])
    known = Doc(Vocab(), words=["No", "gout"])
    known.set_ents([])
    assert [r.sentence.text for r, _ in doc_examples([bare, known], {"GENE": "gene"})] == ["No gout"]
    assert "1 requests for sentences with tokens whose annotation is missing" in caplog.text

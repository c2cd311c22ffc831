"""From a doc to sentences and requests: nothing moves, nothing is lost but white space at the edges."""

from hypothesis import given
from hypothesis import strategies as st
from spacy.tokenizer import Tokenizer
from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_nerllama.requests import Request, Sentence, doc_requests, doc_sentences

VOCAB = Vocab()  # a bare one, as docs are read from a DocBin with: it does not know which tokens are white space
TOKENIZE = Tokenizer(VOCAB)

texts = st.lists(
    st.sampled_from(["Ataxia", "was", "seen.", "ATM,", " ", "  ", "\n", "\n\n", "\t", "😀", ". "])
    | st.text(max_size=4)
).map("".join)


def check(doc: Doc) -> None:
    end = 0
    for start, sentence in doc_sentences(doc):
        assert all(token.text.isspace() for token in doc[end:start]), "only white space is left out"
        end = start + len(sentence.words)
        assert doc[start:end].text == sentence.text
        assert sentence.words == tuple(token.text for token in doc[start:end])
        assert not sentence.words[0].isspace()
        assert not sentence.words[-1].isspace()
    assert all(token.text.isspace() for token in doc[end:])


@given(texts)
def test_sentences_are_where_they_say(text: str) -> None:
    check(TOKENIZE(text))


@given(texts, st.data())
def test_sentences_of_the_doc_are_where_they_say(text: str, data: st.DataObject) -> None:
    doc = TOKENIZE(text)
    for token in doc:
        token.is_sent_start = data.draw(st.booleans())
    check(doc)


def test_white_space_at_the_edges_is_left_out() -> None:
    words = ["\n", "Ataxia", " ", "fell", "\n", "\n\n", "ATM", " "]
    starts = [True, False, False, False, False, True, True, False]
    doc = Doc(VOCAB, words=words, spaces=[False] * 8, sent_starts=starts)
    assert [(start, sentence.words) for start, sentence in doc_sentences(doc)] == [
        (1, ("Ataxia", " ", "fell")),
        (6, ("ATM",)),
    ]


def test_blank_docs_have_no_sentences() -> None:
    assert list(doc_sentences(Doc(VOCAB))) == []
    assert list(doc_sentences(Doc(VOCAB, words=[" ", "\n\n"]))) == []


def test_a_sentence_as_pieces() -> None:
    sentence = Sentence(("(", "ATM", ")", "fell"), (False, False, True, True))
    assert [sentence.piece(i) for i in range(4)] == ["(", "ATM", ")", " fell"]
    assert sentence.text == "(ATM) fell"
    assert [sentence.has_space_before(i) for i in range(4)] == [False, False, False, True]


def test_squashed_is_the_same_for_natural_and_tokenised_text() -> None:
    natural = Sentence(("Ataxia", "\n", "(", "A", "-", "T", ")"), (False, False, False, False, False, False, True))
    tokenised = Sentence(("Ataxia", "(", "A", "-", "T", ")"), (True,) * 6)
    assert natural.text != tokenised.text
    assert natural.squashed == tokenised.squashed == "Ataxia(A-T)"


def test_what_the_model_answers_as_a_whole_is_not_cut_into_sentences() -> None:
    doc = Doc(VOCAB, words=["\n", "Ataxia", "ATM", " "], spaces=[False, True, True, False])
    for i, token in enumerate(doc):
        token.is_sent_start = i in (0, 2)
    whole = Sentence(("Ataxia", "ATM"), (True, True))
    gene, disease = ("GENE", "gene"), ("DISEASE", "disease")
    known = [Request(whole, (disease,))]
    assert list(doc_requests(doc, dict([gene, disease]), answers=known.__contains__)) == [
        (1, Request(whole, (disease,))),
        (1, Request(Sentence(("Ataxia",), (True,)), (gene,))),
        (2, Request(Sentence(("ATM",), (True,)), (gene,))),
    ]
    assert list(doc_requests(Doc(VOCAB), dict([gene]), answers=lambda request: True)) == []


def test_labels_asked_for_together_that_the_model_answers_as_a_whole() -> None:
    doc = Doc(VOCAB, words=["Ataxia", "fell", ".", "ATM", "rose", "."], sent_starts=[1, 0, 0, 1, 0, 0])
    labels = {"DISEASE": "disease", "GENE": "gene"}
    both = tuple(labels.items())

    def asked(*known: tuple[tuple[str, str], ...]) -> list[tuple[int, int, list[str]]]:
        def answers(request: Request) -> bool:
            return len(request.sentence.words) == len(doc) and request.labels in known

        requests = doc_requests(doc, labels, True, answers)
        return [(start, len(r.sentence.words), [label for label, _ in r.labels]) for start, r in requests]

    assert asked(both) == [(0, 6, ["DISEASE", "GENE"])]
    assert asked(both[:1]) == [(0, 6, ["DISEASE"]), (0, 3, ["GENE"]), (3, 3, ["GENE"])]
    assert asked(both[:1], both[1:]) == [(0, 6, ["DISEASE"]), (0, 6, ["GENE"])]


def test_one_request_for_each_sentence_and_label() -> None:
    words = ["Ataxia", "fell", "ATM", "rose"]
    doc = Doc(VOCAB, words=words, sent_starts=[True, False, True, False])
    first = Sentence(("Ataxia", "fell"), (True, True))
    second = Sentence(("ATM", "rose"), (True, True))
    assert list(doc_requests(doc, {"DISEASE": "disease", "GENE": "gene or protein"})) == [
        (0, Request(first, (("DISEASE", "disease"),))),
        (0, Request(first, (("GENE", "gene or protein"),))),
        (2, Request(second, (("DISEASE", "disease"),))),
        (2, Request(second, (("GENE", "gene or protein"),))),
    ]


def test_one_request_for_all_labels_of_a_sentence() -> None:
    doc = Doc(VOCAB, words=["Ataxia", "fell"])
    labels = {"DISEASE": "disease", "GENE": "gene or protein"}
    ((start, request),) = doc_requests(doc, labels, together=True)
    assert start == 0
    assert dict(request.labels) == labels

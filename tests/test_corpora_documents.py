import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc

from spacy_nerllama.corpora import Document, Mention, Misaligned, Report, to_doc

NLP = spacy.blank("en")


def document(text: str, *mentions: str, label: str = "Disease") -> Document:
    """A document whose mentions are the given parts of its text, each at its first occurrence."""
    starts = [(text.index(mention), mention) for mention in mentions]
    return Document("d1", text, tuple(Mention(i, i + len(part), label, part) for i, part in starts))


def entities(doc: Doc) -> list[tuple[str, str]]:
    return [(entity.text, entity.label_) for entity in doc.ents]


def test_mentions_become_entities_and_sentences_are_set() -> None:
    report = Report()
    doc = to_doc(document("Ataxia was seen. It was not hereditary ataxia.", "Ataxia"), NLP, report=report)
    assert entities(doc) == [("Ataxia", "Disease")]
    assert [sentence.text for sentence in doc.sents] == ["Ataxia was seen.", "It was not hereditary ataxia."]
    assert doc.user_data["nerllama_id"] == "d1"
    assert report == Report(documents=1, sentences=2, mentions=report.mentions)
    assert report.mentions == {"Disease": 1}


def test_labels_are_mapped_and_others_are_skipped_and_counted() -> None:
    text = "Aspirin eased the migraine."
    mentions = (Mention(0, 7, "Chemical", "Aspirin"), Mention(18, 26, "Disease", "migraine"))
    report = Report()
    doc = to_doc(Document("d1", text, mentions), NLP, labels={"Chemical": "CHEMICAL"}, report=report)
    assert entities(doc) == [("Aspirin", "CHEMICAL")]
    assert report.skipped == {"Disease": 1}


@pytest.mark.parametrize(("misaligned", "expected"), [("snap", ["KCNH2x", "KCNH7"]), ("drop", ["KCNH7"])])
def test_a_mention_off_token_boundaries_is_snapped_or_dropped(misaligned: Misaligned, expected: list[str]) -> None:
    report = Report()
    doc = to_doc(
        document("A KCNH2x or KCNH7 carrier.", "KCNH2", "KCNH7"), NLP, misaligned=misaligned, report=report
    )
    assert [entity.text for entity in doc.ents] == expected
    assert (report.snapped, report.dropped) == ((1, 0) if misaligned == "snap" else (0, 1))


@pytest.mark.parametrize("misaligned", ["snap", "drop"])
@pytest.mark.parametrize("mention", [" ataxia ", "  ataxia  ", "ataxia "])
def test_white_space_at_the_edges_is_not_the_mentions(mention: str, misaligned: Misaligned) -> None:
    """It puts no mention off its tokens, and takes in no neighbour."""
    report = Report()
    text = document("with  ataxia  and", mention)
    doc = to_doc(text, NLP, misaligned=misaligned, report=report)
    assert entities(doc) == [("ataxia", "Disease")]
    assert report == Report(documents=1, sentences=1, mentions=report.mentions)


def test_mentions_that_differ_in_white_space_at_their_edges_are_one() -> None:
    report = Report()
    doc = to_doc(document("with ataxia and", "ataxia", "ataxia ", " ataxia"), NLP, report=report)
    assert entities(doc) == [("ataxia", "Disease")]
    assert (report.duplicates, report.nested) == (2, {})


@pytest.mark.parametrize(("misaligned", "expected"), [("snap", ["ataxias"]), ("drop", [])])
def test_what_is_still_off_without_white_space_is_misaligned(misaligned: Misaligned, expected: list[str]) -> None:
    report = Report()
    doc = to_doc(document("with ataxias", " ataxia"), NLP, misaligned=misaligned, report=report)
    assert [entity.text for entity in doc.ents] == expected
    assert report.snapped + report.dropped == 1


def test_of_overlapping_mentions_the_longest_is_kept() -> None:
    report = Report()
    text = "Breast and ovarian cancer is hereditary."
    doc = to_doc(document(text, "ovarian cancer", "Breast and ovarian cancer", "cancer is"), NLP, report=report)
    assert entities(doc) == [("Breast and ovarian cancer", "Disease")]
    assert (report.nested, report.overlapping) == ({"Disease in Disease": 1}, {"Disease across Disease": 1})
    assert ("nested, the longer kept: Disease in Disease", 1) in report.rows()


def test_no_sentence_begins_inside_a_mention() -> None:
    report = Report()
    doc = to_doc(document("Loss of HLA. DR was seen.", "HLA. DR"), NLP, report=report)
    assert entities(doc) == [("HLA. DR", "Disease")]
    assert len(list(doc.sents)) == 1
    assert report.cut_boundaries == 1


def test_words_of_a_tokenised_corpus_are_the_tokens() -> None:
    words = ("Ataxia", "-", "telangiectasia", ".", "Rare", ".")
    mention = Mention(0, 23, "Disease", "Ataxia - telangiectasia")
    doc = to_doc(Document("d1", " ".join(words), (mention,), words=words, is_sentence=True), NLP, report=Report())
    assert [token.text for token in doc] == list(words)
    assert doc.has_unknown_spaces
    assert entities(doc) == [("Ataxia - telangiectasia", "Disease")]
    assert len(list(doc.sents)) == 1, "a sentence of the corpus is not cut"


def test_mentions_that_the_reader_corrected_are_counted() -> None:
    report = Report()
    to_doc(Document("d1", "Ataxia.", (Mention(0, 6, "Disease", "Ataxia"),), corrected=1), NLP, report=report)
    assert ("wrong offsets, corrected", 1) in report.rows()


def test_an_empty_document_is_not_lost() -> None:
    report = Report()
    assert to_doc(Document("d1", "", ()), NLP, report=report).text == ""
    assert (report.documents, report.sentences) == (1, 0)


@given(st.data())
def test_every_mention_is_accounted_for(data: st.DataObject) -> None:
    text = data.draw(st.text(st.sampled_from("Aa b1.-(\n\u03b1"), min_size=1))
    bounds = st.lists(st.integers(0, len(text)), min_size=2, max_size=2, unique=True).map(sorted)
    spans = data.draw(st.lists(bounds, max_size=4))
    mentions = tuple(Mention(i, j, "X", text[i:j]) for i, j in spans if text[i:j].strip())
    misaligned = data.draw(st.sampled_from(["snap", "drop"]))
    report = Report()
    doc = to_doc(Document("d1", text, mentions), NLP, misaligned=misaligned, report=report)
    assert doc.text == text
    assert report.mentions.total() == len(doc.ents)
    left_out = report.nested.total() + report.overlapping.total() + report.duplicates + report.dropped
    assert report.mentions.total() + left_out == len(mentions)
    assert all(not (entity[0].is_space or entity[-1].is_space) for entity in doc.ents)
    assert report.sentences == len(list(doc.sents))
    if misaligned == "drop":
        texts = {mention.text.strip() for mention in mentions}
        assert {entity.text for entity in doc.ents} <= texts
    else:
        assert all(any(e.start_char < m.end and m.start < e.end_char for e in doc.ents) for m in mentions)

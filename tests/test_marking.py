"""Marked text: what goes in comes out, whatever the text holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import sentences, spans_of, unmark

from spacy_nerllama.marking import SINGLE, Markers, MarkingScheme, join, mark, typed_scheme
from spacy_nerllama.requests import Sentence, TokenSpan

TYPED = typed_scheme({"DISEASE": "disease", "GENE": "gene"})
ATAXIA = Sentence(("The", "ataxia", "gene", "(", "ATM", ")", "."), (True, True, True, False, False, False, False))


def characters(sentence: Sentence, span: TokenSpan) -> tuple[int, int, str]:
    """Where a span of tokens lies in the text, counted independently of marking."""
    ends, at = [], 0
    for word, space in zip(sentence.words, sentence.spaces, strict=True):
        ends.append((at, at + len(word)))
        at += len(word) + space
    return ends[span.start][0], ends[span.end - 1][1], span.label


def test_a_marked_sentence_reads_as_in_the_paper() -> None:
    spans = [TokenSpan(1, 2, "DISEASE"), TokenSpan(4, 5, "GENE")]
    assert join(mark(ATAXIA, spans)) == "The @@ataxia## gene (@@ATM##)."
    assert join(mark(ATAXIA, spans, TYPED)) == "The @disease@ataxia#disease# gene (@gene@ATM#gene#)."
    assert join(mark(ATAXIA, [])) == ATAXIA.text == "The ataxia gene (ATM)."


def test_segments_are_tokens_and_markers() -> None:
    assert mark(Sentence(("an", "ataxia"), (True, False)), [TokenSpan(1, 2, "DISEASE")]) == [
        ("text", "an", None),
        ("open", " @@", "DISEASE"),
        ("text", "ataxia", None),
        ("close", "##", "DISEASE"),
    ]


@pytest.mark.parametrize(
    ("scheme", "labels"), [(SINGLE, ["DISEASE", "anything", ""]), (TYPED, ["DISEASE", "GENE"])]
)
@given(st.data())
def test_what_is_marked_can_be_unmarked(scheme: MarkingScheme, labels: list[str], data: st.DataObject) -> None:
    sentence = data.draw(sentences(st.text(min_size=1) | st.sampled_from(["@@", "##", "\n", "@@a##"])))
    spans = data.draw(spans_of(sentence, labels))
    shuffled = data.draw(st.permutations(spans))
    text, mentions = unmark(mark(sentence, shuffled, scheme))
    assert text == sentence.text
    assert mentions == [characters(sentence, span) for span in spans]


@pytest.mark.parametrize(
    "spans",
    [
        [(0, 0)],  # empty
        [(2, 1)],
        [(-1, 1)],  # leaves the sentence
        [(6, 8)],
        [(0, 2), (1, 3)],  # overlap
        [(0, 3), (1, 2)],
        [(0, 1), (0, 1)],
    ],
)
def test_bad_spans(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match=r"^\[NL033\] .* 7 tokens"):
        mark(ATAXIA, [TokenSpan(start, end, "DISEASE") for start, end in spans])


@pytest.mark.parametrize("marker", ["", " ", " @@", "@@ ", "\n##"])
def test_bad_markers(marker: str) -> None:
    with pytest.raises(ValueError, match=r"^\[NL030\]"):
        MarkingScheme(Markers(marker, "##"))
    with pytest.raises(ValueError, match=r"^\[NL030\]"):
        MarkingScheme(None, {"GENE": Markers("@@", marker)})


@pytest.mark.parametrize(("one", "other"), [("@", "@@"), ("@@", "@@"), ("@g@", "@g@x")])
def test_opening_markers_must_differ_from_the_start(one: str, other: str) -> None:
    pairs = {"A": Markers(one, "##"), "B": Markers("<b>", "</b>"), "C": Markers(other, "##")}
    with pytest.raises(ValueError, match=r"^\[NL031\]"):
        MarkingScheme(None, pairs)
    with pytest.raises(ValueError, match=r"^\[NL031\]"):
        MarkingScheme(Markers(one, "##"), {"C": Markers(other, "##")})


def test_a_label_without_markers() -> None:
    with pytest.raises(KeyError, match=r"\[NL032\] .* label CHEMICAL, only for DISEASE, GENE"):
        TYPED["CHEMICAL"]
    with_default = MarkingScheme(Markers("@@", "##"), {"GENE": Markers("<g>", "</g>")})
    assert with_default["CHEMICAL"] == ("@@", "##")
    assert with_default["GENE"] == ("<g>", "</g>")

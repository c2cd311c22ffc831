import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc

from spacy_nerllama.sentences import MAX_TOKENS, sentence_spans, sentence_starts

NLP = spacy.blank("en")

# One text a line; `|` marks where a sentence must begin. All are our own.
TEXTS = [
    "Ataxia was seen. |It improved.",
    "Was it ataxia? |Yes! |It was.",
    "The dose was 2. 5 mg in all rats.",  # never before a digit
    "Expression rose. p53 fell.",  # nor before a lower-case letter
    "Pain fell (p < 0.05). |The rest did not.",
    'They said "no pain." |We agree.',
    "They said “no pain.” |We agree.",
    "The trial ended (as planned.) |No one died.",
    'Pain eased. |"Severe" pain did not.',
    "Pain eased. |(The dose was small.) |Nausea did not.",
    "Pain eased. (as before) Nausea did not.",
    "Growth of E. coli and S. Typhimurium stopped.",
    "Smith et al. Found nothing, i.e. Nothing at all.",
    "See Fig. A and Dr. Roe, J. R. Doe vs. Poe.",
    "The variant p.Arg117His was found.",
    "The file results.Ataxia was read.",  # no space, no cut
    "Two genes were lost. |\u0394F508 was not.",  # an upper-case Greek letter is upper-case
    "Background\n\n|Ataxia is rare",
    "Ataxia is\nRare and wrapped",
    "Ataxia is rare.\n|It is wrapped.",
    "Ataxia... |Then nothing.",
    "Children with Vit. D deficiency, Strep. B or conc. HCl; see Tab. S1 and No. A12. |We say no. |We do.",
    "",
]


def split(text: str) -> tuple[str, list[int]]:
    pieces = text.split("|")
    return "".join(pieces), [sum(map(len, pieces[:i])) for i in range(len(pieces))]


@pytest.mark.parametrize("marked", TEXTS)
def test_natural_text(marked: str) -> None:
    text, expected = split(marked)
    doc = NLP.make_doc(text)
    assert [doc[i].idx for i in sentence_starts(doc)] == (expected if text else [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ataxia was seen . |It improved .", 2),
        ("The dose was 2 . 5 mg .", 1),
        ("Growth of E . coli , S . Typhi , et al . |", 1),
        ('They said " no pain . " |We agree .', 2),
        ('Pain eased . |" Severe " pain did not .', 2),
        ("( p < 0 . 05 ) . |The rest [ sic . ] |Did not .", 3),
    ],
)
def test_tokens_joined_by_spaces(text: str, expected: int) -> None:
    """A list of words and a Doc of the same words have the same sentences."""
    pieces = [piece.split() for piece in text.split("|") if piece.strip()]
    words = [word for piece in pieces for word in piece]
    starts = [sum(map(len, pieces[:i])) for i in range(len(pieces))]
    assert len(starts) == expected
    assert sentence_starts(words) == starts
    assert sentence_starts(Doc(NLP.vocab, words=words)) == starts


@given(
    st.lists(st.sampled_from(["A", "Ataxia", "p53", "5", ".", "?", '"', "(", ")", "\n", "\n\n", "al", "\u00e9"]))
)
def test_never_before_a_lower_case_letter_or_a_digit(words: list[str]) -> None:
    starts = sentence_starts(words)
    assert starts == sorted(set(starts))
    assert starts[:1] == [0][: len(words)]
    for start in starts[1:]:
        first = next(word for word in words[start:] if word not in '"(')[0]
        assert first.isupper()


@given(st.text())
def test_spans_cover_every_doc(text: str) -> None:
    doc = NLP.make_doc(text)
    spans = sentence_spans(doc, max_tokens=3)
    assert [i for start, end in spans for i in range(start, end)] == list(range(len(doc)))
    assert all(start < end for start, end in spans)


def test_a_doc_of_96_tokens_is_one_sentence_and_a_longer_one_is_cut() -> None:
    words = ["Ataxia", "was", "seen", "."] * (MAX_TOKENS // 4)
    assert sentence_spans(Doc(NLP.vocab, words=words)) == [(0, 96)]
    spans = sentence_spans(Doc(NLP.vocab, words=[*words, "It", "improved"]))
    assert len(spans) == 25
    assert spans[-1] == (96, 98)


def test_the_docs_own_sentences_are_taken_and_not_changed() -> None:
    words = ["Ataxia", "was", "seen", ".", "It", "improved"]
    annotated = Doc(NLP.vocab, words=words, sent_starts=[True, False, True, False, False, False])
    assert sentence_spans(annotated, max_tokens=1) == [(0, 2), (2, 6)]
    plain = Doc(NLP.vocab, words=words)
    assert sentence_spans(plain, max_tokens=1) == [(0, 4), (4, 6)]
    assert not plain.has_annotation("SENT_START")

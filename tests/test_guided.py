"""The grammar that goes to a server: it writes every reading of a request, and nothing else.

The grammar is read twice: by a few lines of our own, which write out all that it accepts, and by llguidance, an
engine that servers use.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer, grammar_from
from strategies import PLAIN, SPACE, has_clean_edges, sentences, spans_of

from spacy_nerllama.alignment import align
from spacy_nerllama.grammar import Grammar
from spacy_nerllama.marking import SINGLE, MarkingScheme, join, mark, typed_scheme
from spacy_nerllama.models.guided import to_gbnf
from spacy_nerllama.requests import Request, Sentence, TokenSpan

TYPED = typed_scheme({"DISEASE": "disease", "GENE": "gene"})
schemes = pytest.mark.parametrize("scheme", [SINGLE, TYPED], ids=["single", "typed"])
BYTES = LLTokenizer("byte")


def request_of(sentence: Sentence, scheme: MarkingScheme = SINGLE) -> Request:
    labels = ("DISEASE",) if scheme is SINGLE else ("DISEASE", "GENE")
    return Request(sentence, tuple((label, label.lower()) for label in labels))


def language(gbnf: str) -> list[str]:
    """Write out all texts that a grammar accepts; ours have no loops."""
    rules = {}
    for line in gbnf.removesuffix("\n").split("\n"):
        name, alternatives = re.fullmatch(r"(\w+) ::= ([^\n]*)", line).groups()
        pattern = r'"((?:[^"\\]|\\.)*)"(?: (\w+))?(?: \| |$)'
        assert re.fullmatch(f"(?:{pattern})+", alternatives)
        rules[name] = re.findall(pattern, alternatives)
    escapes = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}

    def unescape(literal: str) -> str:
        return re.sub(
            r"\\(?:x(..)|(.))", lambda m: chr(int(m[1], 16)) if m[1] else escapes[m[2]], literal, flags=re.DOTALL
        )

    def texts(name: str) -> Iterator[str]:
        for literal, following in rules[name]:
            yield from (unescape(literal) + rest for rest in (texts(following) if following else [""]))

    return list(texts("root"))


def accepts(gbnf: str, text: str) -> bool:
    """Whether llguidance reads the whole text by a grammar."""
    matcher = LLMatcher(BYTES, grammar_from("gbnf", gbnf))
    assert not matcher.get_error()
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


def readings(sentence: Sentence, labels: Mapping[str, str]) -> list[list[TokenSpan]]:
    """All sets of spans that do not overlap, none empty, none with white space at an edge: the definition."""
    n = len(sentence.words)

    def from_token(i: int) -> Iterator[list[TokenSpan]]:
        if i == n:
            yield []
            return
        yield from from_token(i + 1)
        for end in range(i + 1, n + 1):
            for label in labels:
                if has_clean_edges(sentence, span := TokenSpan(i, end, label)):
                    yield from ([span, *rest] for rest in from_token(end))

    return list(from_token(0))


def has_clean_ends(sentence: Sentence) -> bool:
    return has_clean_edges(sentence, TokenSpan(0, len(sentence.words), ""))


# Words without the characters of markers, so that no two readings are the same text.
any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="@#"), min_size=1, max_size=4)
clean_words = st.sampled_from([*PLAIN, *SPACE, '"', "\\", "\\n", "[a]", "::=", "|", "root", "//", "'"]) | any_text


@schemes
@settings(max_examples=60)
@given(data=st.data())
def test_it_accepts_the_readings_and_nothing_else(scheme: MarkingScheme, data: st.DataObject) -> None:
    sentence = data.draw(sentences(clean_words, max_size=4).filter(has_clean_ends))
    request = request_of(sentence, scheme)
    expected = [join(mark(sentence, spans, scheme)) for spans in readings(sentence, dict(request.labels))]
    assert sorted(language(to_gbnf(request, scheme))) == sorted(expected)


@schemes
@settings(max_examples=60)
@given(data=st.data())
def test_an_engine_reads_it_so_too(scheme: MarkingScheme, data: st.DataObject) -> None:
    sentence = data.draw(sentences(clean_words, max_size=5).filter(has_clean_ends))
    request = request_of(sentence, scheme)
    gbnf = to_gbnf(request, scheme)
    spans = [s for s in data.draw(spans_of(sentence, [*dict(request.labels)])) if has_clean_edges(sentence, s)]
    reading = join(mark(sentence, spans, scheme))
    assert accepts(gbnf, reading)
    i = data.draw(st.integers(0, len(reading)))
    j = data.draw(st.integers(i, min(i + 3, len(reading))))
    other = reading[:i] + data.draw(st.sampled_from(["", "x", " ", "@@", "##", "#", "\n", " @@"])) + reading[j:]
    every = {join(mark(sentence, each, scheme)) for each in readings(sentence, dict(request.labels))}
    assert accepts(gbnf, other) == (other in every)


@schemes
@settings(max_examples=60)
@given(data=st.data())
def test_texts_that_look_like_markers_are_copied(scheme: MarkingScheme, data: st.DataObject) -> None:
    """As in marked decoding, with one token id for each character."""
    sentence = data.draw(sentences(max_size=4).filter(has_clean_ends))
    request = request_of(sentence, scheme)
    grammar = Grammar(request, scheme, lambda text: tuple(map(ord, text)))
    expected = []
    for spans in readings(sentence, dict(request.labels)):
        try:
            grammar.follow(spans)
        except ValueError:  # it stands at a text that looks like a marker
            continue
        expected.append(join(mark(sentence, spans, scheme)))
    assert sorted(language(to_gbnf(request, scheme))) == sorted(expected)


ODD = [
    *map(chr, [*range(1, 33), *b'"\\[](){}|#@.*+?-/', 127, 0x85, 0xA0, 0x2028, 0xFEFF, 0x1F600]),
    "\\x41",
    "\\u0041",
]


@pytest.mark.parametrize("odd", ODD)
def test_characters_that_need_escaping(odd: str) -> None:
    sentence = Sentence(("a", odd, "b"), (True, False, False))
    gbnf = to_gbnf(request_of(sentence), SINGLE)
    for spans in ([], [TokenSpan(0, 1, "DISEASE")], [TokenSpan(0, 3, "DISEASE")]):
        assert accepts(gbnf, join(mark(sentence, spans)))
    assert not accepts(gbnf, "a b")


def test_what_it_looks_like() -> None:
    """As the documentation says."""
    docs = Path(__file__).parent.parent / "docs" / "text-servers.md"
    sentence = Sentence(("The", '"p53"', "fell"), (True, True, False))
    assert to_gbnf(request_of(sentence), SINGLE) in docs.read_text("utf8")


def test_every_reading_is_aligned_exactly() -> None:
    sentence = Sentence(("ATM", "and", "p53", "fell", "."), (True, True, True, False, False))
    request = request_of(sentence)
    for spans in readings(sentence, dict(request.labels)):
        assert align(request, join(mark(sentence, spans))) == (tuple(spans), "exact")


def test_it_grows_with_the_length_of_the_sentence_alone() -> None:
    sizes = [len(to_gbnf(request_of(Sentence(("ataxia",) * n, (True,) * n)), SINGLE)) for n in (100, 200, 400)]
    assert sizes[2] < 2.1 * sizes[1] < 4.5 * sizes[0]

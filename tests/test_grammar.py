"""The grammar of marked copies: which readings there are, and which decisions lead to them.

Everything is tested with three tokenizers: one id a character, so that a marker shares its space with any text;
one in which ` @@` and ` @-adrenergic` share ` @`, as they do in SmolLM2; and the real one.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import has_clean_edges, plain_words, sentences, spans_of, unmark

from spacy_nerllama.grammar import Grammar, Path, State
from spacy_nerllama.marking import SINGLE, Markers, MarkingScheme, join, mark, typed_scheme
from spacy_nerllama.requests import Request, Sentence, TokenSpan

START = State()
LABELS = ("DISEASE", "GENE")
TYPED = typed_scheme({"DISEASE": "disease", "GENE": "gene"})


class Coder(NamedTuple):
    encode: Callable[[str], tuple[int, ...]]
    decode: Callable[[Sequence[int]], str]


def characters(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


MERGED = [" @", "@@", "###", "##", " ##", "disease", "gene"]


def merged(text: str) -> tuple[int, ...]:
    """One id a character, but for a few longer pieces, which have negative ids."""
    pieces = re.findall("|".join([*MERGED, "."]), text, flags=re.DOTALL)
    return tuple(~MERGED.index(piece) if piece in MERGED else ord(piece) for piece in pieces)


def merged_text(ids: Sequence[int]) -> str:
    return "".join(MERGED[~i] if i < 0 else chr(i) for i in ids)


@pytest.fixture(scope="module", params=["characters", "merged", "smollm2"])
def coder(request: pytest.FixtureRequest) -> Coder:
    if request.param == "characters":
        return Coder(characters, lambda ids: "".join(map(chr, ids)))
    if request.param == "merged":
        return Coder(merged, merged_text)
    encoder = request.getfixturevalue("encoder")
    return Coder(encoder.piece, lambda ids: encoder.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def sentence(*words: str, joined: Sequence[int] = ()) -> Sentence:
    """A sentence with a space after each token, except for those at the given places."""
    return Sentence(words, tuple(i not in joined for i in range(len(words))))


def grammar_of(
    sentence: Sentence, encode: Callable[[str], tuple[int, ...]], scheme: MarkingScheme = SINGLE
) -> Grammar:
    labels = LABELS if scheme.default is None else LABELS[:1]
    return Grammar(Request(sentence, tuple((label, label.lower()) for label in labels)), scheme, encode)


def walk(grammar: Grammar, ids: Sequence[int]) -> list[TokenSpan]:
    """Write ids one by one, as decoding does, and collect the spans; the ids must be a whole reading."""
    state, spans = START, []
    for token_id in ids:
        assert token_id in grammar.choices(state)
        state, span = grammar.advance(state, token_id)
        spans += [span] if span else []
    assert grammar.choices(state) == ()
    return [*spans, *grammar.last_span(state)]


def readings(
    grammar: Grammar, state: State = START, spans: tuple[TokenSpan, ...] = ()
) -> Iterator[tuple[TokenSpan, ...]]:
    """The spans of every reading there is."""
    choices = grammar.choices(state)
    if not choices:
        yield (*spans, *grammar.last_span(state))
    for choice in choices:
        after, span = grammar.advance(state, choice)
        yield from readings(grammar, after, (*spans, span) if span else spans)


def check_decisions(grammar: Grammar, path: Path) -> None:
    """A path's decisions are the branching nodes on its way, all of them, with the choice that it takes."""
    state, nodes, closed = START, [], ()
    for position, token_id in enumerate(path.ids):
        choices = grammar.choices(state)
        if len(choices) > 1:
            nodes.append((position, choices, choices.index(token_id), state, closed))
        state, span = grammar.advance(state, token_id)
        closed = (*closed, span) if span else closed
    assert [tuple(decision) for decision in path.decisions if decision.position < len(path.ids)] == nodes
    assert all(len(d.choices) == len(set(d.choices)) >= 2 for d in path.decisions)


spaced_words = plain_words | st.sampled_from(["\n", " ", "@-adrenergic", "#1"])
schemes = pytest.mark.parametrize("scheme", [SINGLE, TYPED], ids=["single", "typed"])


def in_every_scheme(test: Callable) -> Callable:
    """Run a property test with one pair of markers for all labels, and with one for each."""
    return schemes(settings(max_examples=50)(given(st.data())(test)))


@in_every_scheme
def test_the_reading_of_any_spans(coder: Coder, scheme: MarkingScheme, data: st.DataObject) -> None:
    """Its ids are those of the marked text, piece by piece, and lead back to the spans."""
    source = data.draw(sentences(spaced_words))
    grammar = grammar_of(source, coder.encode, scheme)
    spans = data.draw(spans_of(source, LABELS if scheme is TYPED else LABELS[:1]))
    spans = [span for span in spans if has_clean_edges(source, span)]
    path = grammar.follow(spans)
    assert path.spans == tuple(spans)
    assert walk(grammar, path.ids) == spans
    check_decisions(grammar, path)

    segments = mark(source, spans, scheme)
    if segments[-1].kind == "close":  # at the end of the sentence nothing is left to decide
        segments.pop()
    assert path.ids == sum((coder.encode(segment.text) for segment in segments), ())
    assert coder.decode(path.ids) == join(segments)
    assert unmark(segments)[0] == source.text


@in_every_scheme
def test_every_reading_of_any_text_is_well_formed(
    coder: Coder, scheme: MarkingScheme, data: st.DataObject
) -> None:
    """Whatever is chosen, the reading ends, its spans are sound, and the text is copied."""
    source = data.draw(sentences())
    grammar = grammar_of(source, coder.encode, scheme)
    random = data.draw(st.randoms(use_true_random=False))
    state, ids, spans, text = START, [], [], []
    while choices := grammar.choices(state):
        ids.append(random.choice(choices))
        after, span = grammar.advance(state, ids[-1])
        spans += [span] if span else []
        if after.token > state.token:
            text += source.words[state.token]
        assert state.token <= after.token <= state.token + 1
        assert len(ids) <= grammar.longest, "a reading must end"
        state = after
    spans += grammar.last_span(state)
    assert text == list("".join(source.words)), "no token is left out or copied twice"
    assert all(0 <= span.start < span.end <= len(source.words) for span in spans)
    assert all(one.end <= other.start for one, other in pairwise(spans))
    assert all(has_clean_edges(source, span) for span in spans)
    assert {span.label for span in spans} <= set(LABELS if scheme is TYPED else LABELS[:1])
    # Training can write what decoding can read.
    assert walk(grammar, grammar.follow(spans).ids) == spans


@in_every_scheme
def test_the_draft_is_the_copy(coder: Coder, scheme: MarkingScheme, data: st.DataObject) -> None:
    source = data.draw(sentences())
    grammar = grammar_of(source, coder.encode, scheme)
    draft = grammar.draft(START)
    pieces = [coder.encode(source.piece(i)) for i in range(len(source.words))]
    assert draft.ids == sum(pieces, ()) == grammar.follow([]).ids
    assert coder.decode(draft.ids) == source.text
    assert draft.spans == ()
    check_decisions(grammar, draft)


@in_every_scheme
def test_a_draft_takes_guesses_and_stops_in_a_mention(
    coder: Coder, scheme: MarkingScheme, data: st.DataObject
) -> None:
    """Whatever is guessed, legal or not, it is a reading or the beginning of one."""
    source = data.draw(sentences())
    grammar = grammar_of(source, coder.encode, scheme)
    copied = grammar.draft(START)
    guesses = {
        decision.state: data.draw(st.sampled_from([*decision.choices, -1])) for decision in copied.decisions
    }
    ahead = data.draw(st.none() | st.integers(0, 12))
    draft = grammar.draft(START, guesses, ahead)
    check_decisions(grammar, draft)
    for decision in draft.decisions:
        guess = guesses.get(decision.state)
        assert decision.choices[decision.taken] == (guess if guess in decision.choices else decision.choices[0])
    if draft.whole:
        assert walk(grammar, draft.ids) == list(draft.spans)
    else:
        last = draft.decisions[-1]
        assert last.position == len(draft.ids) >= ahead
        assert last.state.label is not None
        assert draft.spans == last.spans


@in_every_scheme
def test_a_draft_from_anywhere_goes_on_by_copying(
    coder: Coder, scheme: MarkingScheme, data: st.DataObject
) -> None:
    """What was written, the other choice at a decision, and the draft from there are a reading."""
    source = data.draw(sentences())
    grammar = grammar_of(source, coder.encode, scheme)
    path, before, spans = grammar.draft(START), (), []
    while path.decisions:
        decision = data.draw(st.sampled_from(path.decisions))
        choice = data.draw(st.sampled_from(decision.choices[1:]))
        state, span = grammar.advance(decision.state, choice)
        spans = [*spans, *decision.spans, *([span] if span else [])]
        before = (*before, *path.ids[: decision.position], choice)
        path = grammar.draft(state)
        assert walk(grammar, (*before, *path.ids)) == [*spans, *path.spans]


@schemes
@pytest.mark.parametrize("words", [("ataxia", "gene", "β"), ("ataxia", "\n", "gene"), ("@-x", "the")])
def test_there_are_exactly_the_readings_that_the_rules_allow(
    coder: Coder, scheme: MarkingScheme, words: tuple[str, ...]
) -> None:
    """Every set of spans that do not overlap and have clean edges, each by one way."""
    source = sentence(*words)
    labels = LABELS if scheme is TYPED else LABELS[:1]
    edges = combinations(range(len(words) + 1), 2)
    spans = [TokenSpan(start, end, label) for start, end in edges for label in labels]
    spans = [span for span in sorted(spans) if has_clean_edges(source, span)]
    allowed = [
        chosen
        for k in range(len(words) + 1)
        for chosen in combinations(spans, k)
        if all(one.end <= other.start for one, other in pairwise(chosen))
    ]
    assert sorted(readings(grammar_of(source, coder.encode, scheme))) == sorted(allowed)


def test_a_mention_neither_starts_nor_ends_on_white_space() -> None:
    grammar = grammar_of(sentence("a", "\n", "b", joined=[0, 1]), characters)
    assert grammar.choices(State(1)) == characters("\n")
    assert grammar.choices(State(2, "DISEASE", 0)) == characters("b")
    assert grammar.choices(State(1, "DISEASE", 0)) == characters("\n#")
    assert grammar.follow([TokenSpan(0, 3, "DISEASE")]).ids == characters("@@a\nb")


def test_one_mention_may_follow_another_at_once() -> None:
    grammar = grammar_of(sentence("a", "b"), characters)
    path = grammar.follow([TokenSpan(0, 1, "DISEASE"), TokenSpan(1, 2, "DISEASE")])
    assert path.ids == characters("@@a## @@b")


def test_a_mention_has_a_word() -> None:
    grammar = grammar_of(sentence("a", "b"), characters)
    assert grammar.choices(State(0, "DISEASE", 0)) == characters("a")
    assert grammar.choices(State(1, "DISEASE", 1)) == characters("b"), "the marker has taken the space"


def test_readings_outside_of_a_mention_stand_alike() -> None:
    """Whether they copied to there, or closed a mention there."""
    grammar = grammar_of(sentence("a", "b", "c"), characters)
    assert grammar.advance(State(1, entered=(ord(" "),)), ord("b")) == (State(2), None)
    assert grammar.advance(State(2, "DISEASE", 1, (ord("#"),)), ord("#")) == (State(2), TokenSpan(1, 2, "DISEASE"))


def test_an_open_mention_is_closed_by_the_end_without_a_decision() -> None:
    grammar = grammar_of(sentence("an", "ataxia"), characters)
    path = grammar.draft(State(1, "DISEASE", 1))
    assert path == (characters("ataxia"), (), (TokenSpan(1, 2, "DISEASE"),), True)


def test_closing_before_white_space_at_the_end_and_closing_by_the_end_are_one_span(coder: Coder) -> None:
    grammar = grammar_of(sentence("ataxia", "\n", "\n"), coder.encode)
    span = TokenSpan(0, 1, "DISEASE")
    assert sorted(readings(grammar)) == [(), (span,), (span,)]
    assert walk(grammar, grammar.follow([span]).ids) == [span]


@pytest.mark.parametrize(
    ("word", "label"),
    [("@@", None), ("@@x", None), ("@@@", None), ("##", "DISEASE"), ("##x", "DISEASE"), ("###", "DISEASE")],
)
def test_a_text_that_begins_with_a_marker_is_text(coder: Coder, word: str, label: str | None) -> None:
    grammar = grammar_of(sentence("a", word, "b", joined=[0]), coder.encode)
    assert grammar.choices(State(1, label, 0)) == coder.encode(word)[:1]


def test_a_text_whose_ids_begin_a_marker_is_text() -> None:
    """After ` @`, an `@` could be the rest of ` @@` or the next token."""
    grammar = grammar_of(sentence("a", "@", "@", "b", joined=[1]), merged)
    assert grammar.choices(State(1)) == merged(" @")
    with pytest.raises(ValueError, match=r"\[NL035\]"):
        grammar.follow([TokenSpan(1, 2, "DISEASE")])
    assert walk(grammar, grammar.follow([TokenSpan(0, 3, "DISEASE")]).ids) == [TokenSpan(0, 3, "DISEASE")]


def test_where_one_label_cannot_be_opened_none_can() -> None:
    grammar = grammar_of(sentence("a", "@disease@b"), characters, TYPED)
    path = grammar.draft(State(1))
    assert path.decisions == ()
    assert path.ids == characters(" @disease@b")


def test_decisions_are_made_token_by_token() -> None:
    """` @-x`, ` @disease@` and ` @gene@` share ` @`: what follows it is the decision."""
    grammar = grammar_of(sentence("a", "@-x"), merged, TYPED)
    state, _ = grammar.advance(State(1), *merged(" @"))
    assert grammar.choices(State(1)) == merged(" @")
    assert grammar.choices(state) == (ord("-"), *merged("disease"), *merged("gene"))
    state, _ = grammar.advance(state, *merged("gene"))
    assert grammar.choices(state) == (ord("@"),)
    assert grammar.draft(state) == (characters("@@-x"), (), (TokenSpan(1, 2, "GENE"),), True)


def test_a_decision_knows_what_the_path_has_closed() -> None:
    """The marker `#gene#` has three ids: after its first, the rest and the closing lie in the draft."""
    grammar = grammar_of(sentence("a", "b", "c"), merged, TYPED)
    state, _ = grammar.advance(State(1, "GENE", 0), *merged("#"))
    draft = grammar.draft(state)
    assert draft.ids == merged("gene# b c")
    assert [decision.spans for decision in draft.decisions] == [(TokenSpan(0, 1, "GENE"),)] * 2
    assert draft.spans == (TokenSpan(0, 1, "GENE"),)


def test_smollm2_decides_after_what_marker_and_text_share(encoder) -> None:
    grammar = grammar_of(sentence("the", "@-adrenergic", "receptor"), encoder.piece)
    shared, opens = encoder.piece(" @@")
    copies = encoder.piece(" @-adrenergic")
    assert copies[0] == shared
    decisions = {d.position: d.choices for d in grammar.draft(START).decisions}
    # Before "the": position 0. Before "@-adrenergic" after ` @`: 2. Before "receptor": after all of its ids.
    assert decisions[2] == (copies[1], opens)
    assert list(decisions) == [0, 2, 1 + len(copies)]


@pytest.mark.parametrize(
    "spans",
    [
        [(0, 0)],
        [(0, 4)],
        [(-1, 1)],
        [(3, 4)],
        [(2, 3), (0, 1)],  # not in order
        [(0, 2), (0, 1)],
        [(0, 3), (2, 3)],
        [(1, 3)],  # white space at an edge
        [(0, 2)],
    ],
)
def test_spans_without_a_reading(coder: Coder, spans: list[tuple[int, int]]) -> None:
    grammar = grammar_of(sentence("a", "\n", "b"), coder.encode)
    with pytest.raises(ValueError, match=r"^\[NL035\]"):
        grammar.follow([TokenSpan(start, end, "DISEASE") for start, end in spans])


def test_a_span_on_white_space_at_the_end_has_no_reading(coder: Coder) -> None:
    grammar = grammar_of(sentence("a", "\n"), coder.encode)
    with pytest.raises(ValueError, match=r"^\[NL035\]"):
        grammar.follow([TokenSpan(0, 2, "DISEASE")])


def test_labels_that_cannot_be_told_apart() -> None:
    request = Request(sentence("a"), (("DISEASE", "disease"), ("GENE", "gene")))
    with pytest.raises(ValueError, match=r"^\[NL034\] .*'@@' and '@@'"):
        Grammar(request, SINGLE, characters)
    scheme = MarkingScheme(None, {"DISEASE": Markers("@d", "##"), "GENE": Markers("@g", "##")})
    Grammar(request, scheme, characters)
    with pytest.raises(ValueError, match=r"^\[NL034\] .*'@d' and '@g'"):
        Grammar(request, scheme, lambda text: (text.count("@"),))


def test_a_label_without_markers() -> None:
    request = Request(sentence("a"), (("CHEMICAL", "chemical"),))
    with pytest.raises(KeyError, match=r"\[NL032\]"):
        Grammar(request, TYPED, characters)

"""What may come next in a marked copy of a sentence, in token ids.

The copy is tokenised piece by piece at spaCy's token boundaries, markers as pieces of their own, so that no
token of the language model straddles a place where a marker may go. At each boundary the legal continuations
are: copy the next piece, open a mention (outside of one) or close it (inside, once it has a word). They form
a trie of token ids; a decision is made at each of its branching nodes, token by token.

Decoding walks this grammar and fine-tuning follows the gold marking through it: the same code builds both.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from .errors import Errors
from .marking import MarkingScheme
from .requests import Request, TokenSpan

Encode = Callable[[str], tuple[int, ...]]


class State(NamedTuple):
    """Where a reading stands.

    token: The next token of the sentence to copy.
    label: The label of the open mention, None outside.
    start: The token at which the open mention begins, 0 outside: readings outside of a mention stand alike,
        whatever came before.
    entered: The ids of the next continuation that are already written.
    """

    token: int = 0
    label: str | None = None
    start: int = 0
    entered: tuple[int, ...] = ()


class Continuation(NamedTuple):
    """The ids that may come next as a whole, the state after them, and the span that they close, if any."""

    ids: tuple[int, ...]
    state: State
    span: TokenSpan | None = None


class Decision(NamedTuple):
    """A branching node on the way through a reading.

    position: How many ids of the reading (or draft) stand before it.
    choices: The legal next ids, at least two, that of copying first where copying is still possible.
    taken: The index of the choice that the path takes.
    state: The state at the node.
    spans: The spans that the path has closed before it; readings that leave the path here keep them.
    """

    position: int
    choices: tuple[int, ...]
    taken: int
    state: State
    spans: tuple[TokenSpan, ...]


class Path(NamedTuple):
    """Ids written from some state on, the decisions met on the way, and the spans closed by the end.

    A mention that is open where the path starts is among the spans, mentions that were closed before are not.

    whole: Whether the path goes to the end of the sentence. If not, it stops at its last decision, whose choice
        is not among the ids any more.
    """

    ids: tuple[int, ...]
    decisions: tuple[Decision, ...]
    spans: tuple[TokenSpan, ...]
    whole: bool = True


class Grammar:
    """The marked copies of one request's sentence.

    request: The request.
    scheme: The markers.
    encode: Gives the token ids of a piece of text, at least one. Called for each piece that is needed; let it
        cache.
    RAISES: ValueError if the ids of two labels' opening markers cannot be told apart; KeyError for a label
        without markers.
    """

    def __init__(self, request: Request, scheme: MarkingScheme, encode: Encode) -> None:
        self.sentence = request.sentence
        self._labels = [label for label, _ in request.labels]
        self._scheme = scheme
        self._encode = encode
        self._continuations: dict[tuple[int, str | None, bool], tuple[Continuation, ...]] = {}
        self._tell_apart()

    def _tell_apart(self) -> None:
        for space in ("", " "):
            markers = [space + self._scheme[label].open for label in self._labels]
            for one, other in combinations(markers, 2):
                if _ambiguous(self._encode(one), self._encode(other)):
                    raise ValueError(Errors.E034.format(one=one, other=other))

    @property
    def longest(self) -> int:
        """The most ids that a reading can have: where each word is a mention of its own."""
        encode, markers = self._encode, [self._scheme[label] for label in self._labels]
        around = max(max(len(encode(m.open)), len(encode(" " + m.open))) + len(encode(m.close)) for m in markers)
        return sum(
            max(len(encode(self.sentence.piece(i))), len(encode(word)) + around)
            for i, word in enumerate(self.sentence.words)
        )

    def continuations(self, state: State) -> tuple[Continuation, ...]:
        """Give the legal continuations where `state` stands, copying first; none at the end."""
        n, label, start, _ = state
        if n == len(self.sentence.words):
            return ()
        key = (n, label, label is not None and start == n)
        if key not in self._continuations:
            self._continuations[key] = tuple(self._legal(*key))
        known = self._continuations[key]
        if label is None:
            return known
        # The start of the open mention is not in the key: it changes states and spans, not ids.
        return tuple(
            Continuation(
                c.ids,
                c.state._replace(start=start) if c.state.label is not None else c.state,
                c.span and c.span._replace(start=start),
            )
            for c in known
        )

    def _legal(self, n: int, label: str | None, just_opened: bool) -> list[Continuation]:
        words = self.sentence.words
        piece = words[n] if just_opened else self.sentence.piece(n)
        copy = Continuation(self._encode(piece), State(n + 1, label))
        if just_opened:  # a mention has a word
            return [copy]
        markers: list[tuple[str, Continuation]] = []
        if label is None and not words[n].isspace():
            space = " " if self.sentence.has_space_before(n) else ""
            for each in self._labels:
                marker = space + self._scheme[each].open
                markers.append((marker, Continuation(self._encode(marker), State(n, each, n))))
        elif label is not None and not words[n - 1].isspace():
            marker = self._scheme[label].close
            closed = Continuation(self._encode(marker), State(n), TokenSpan(0, n, label))
            markers.append((marker, closed))
        # A text that looks like a marker is text: there only copying is legal.
        if any(piece.startswith(marker) or _ambiguous(c.ids, copy.ids) for marker, c in markers):
            return [copy]
        return [copy, *(c for _, c in markers)]

    def choices(self, state: State) -> tuple[int, ...]:
        """Give the legal next ids, that of copying first where copying is still possible."""
        depth = len(state.entered)
        return tuple(
            dict.fromkeys(c.ids[depth] for c in self.continuations(state) if c.ids[:depth] == state.entered)
        )

    def advance(self, state: State, token_id: int) -> tuple[State, TokenSpan | None]:
        """Write one legal id. Gives the state after it and the span that it closed, if any."""
        entered = (*state.entered, token_id)
        for continuation in self.continuations(state):
            if continuation.ids == entered:
                return continuation.state, continuation.span
        return state._replace(entered=entered), None

    def draft(self, state: State, guesses: Mapping[State, int] | None = None, ahead: int | None = None) -> Path:
        """Copy from a state on, to the end of the sentence if nothing else is asked for.

        guesses: The id to take at some states, where it is legal, instead of copying.
        ahead: Stop at the first decision inside of a mention that has at least so many ids since it was opened
            (or since the start): how it goes on is not worth reading before it is known whether it closes there.
        """
        ids: list[int] = []
        decisions: list[Decision] = []
        spans: list[TokenSpan] = []
        opened = 0
        while choices := self.choices(state):
            guess = (guesses or {}).get(state, choices[0])
            taken = choices.index(guess) if guess in choices else 0
            if len(choices) > 1:
                decisions.append(Decision(len(ids), choices, taken, state, tuple(spans)))
                if ahead is not None and state.label is not None and len(ids) - opened >= ahead:
                    return Path(tuple(ids), tuple(decisions), tuple(spans), whole=False)
            ids.append(choices[taken])
            before = state.label
            state, span = self.advance(state, choices[taken])
            if state.label != before:
                opened = len(ids)
            if span:
                spans.append(span)
        return Path(tuple(ids), tuple(decisions), (*spans, *self.last_span(state)))

    def follow(self, spans: Sequence[TokenSpan]) -> Path:
        """Write the reading that marks the given spans, as fine-tuning does.

        spans: Spans of the sentence's tokens, in order, not overlapping, with labels of the request.
        RETURNS: The whole marked copy.
        RAISES: ValueError if the grammar has no such reading (the spans are not as above, have white space at
            an edge, or stand at a text that looks like a marker).
        """
        wanted = list(spans)
        closed: list[TokenSpan] = []
        ids: list[int] = []
        decisions: list[Decision] = []
        state = State()
        while legal := self.continuations(state):
            taken = _gold(legal, state, wanted)
            if taken is None:
                raise ValueError(Errors.E035.format(span=tuple(wanted[0]), text=self.sentence.text))
            for i, token_id in enumerate(taken.ids):
                node = state._replace(entered=taken.ids[:i])
                choices = self.choices(node)
                if len(choices) > 1:
                    decisions.append(Decision(len(ids), choices, choices.index(token_id), node, tuple(closed)))
                ids.append(token_id)
            if taken.span:
                closed.append(wanted.pop(0))
            state = taken.state
        if list(self.last_span(state)) != wanted:
            raise ValueError(Errors.E035.format(span=tuple(wanted[0]), text=self.sentence.text))
        return Path(tuple(ids), tuple(decisions), tuple(spans))

    def last_span(self, state: State) -> tuple[TokenSpan, ...]:
        """Give the span that is closed by the end of the sentence without a decision, if one is open."""
        if state.label is None:
            return ()
        end = state.token
        while self.sentence.words[end - 1].isspace():
            end -= 1
        return (TokenSpan(state.start, end, state.label),)


def _gold(legal: Sequence[Continuation], state: State, wanted: Sequence[TokenSpan]) -> Continuation | None:
    """Find the continuation that the next wanted span asks for; None if it is not legal."""
    span = wanted[0] if wanted else None
    if span is None or (state.label is None and span.start > state.token):
        return legal[0]
    if state.label is None:
        opening = (c for c in legal[1:] if c.state.label == span.label)
        return next(opening, None) if span.start == state.token else None
    if span.end == state.token:
        return next((c for c in legal[1:] if c.span), None)
    return legal[0]


def _ambiguous(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether one sequence begins with the other: the shorter could then not be told from the longer."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]

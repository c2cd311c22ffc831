"""The grammar of a request's readings in GBNF, for servers that let a grammar guide what a model writes."""

from ..grammar import Grammar, State
from ..marking import MarkingScheme
from ..requests import Request


def to_gbnf(request: Request, scheme: MarkingScheme) -> str:
    """Write the grammar that accepts the readings of a request, as text, and nothing else.

    The rules are those of `Grammar`, here for characters instead of token ids: one rule for each state that a
    reading can be in. A mention that is open at the end of the sentence is closed in writing.

    request: The request; its sentence neither begins nor ends on white space, as `doc_requests` makes it.
    scheme: The markers.
    RETURNS: GBNF as llama.cpp, XGrammar and llguidance read it, with the start rule `root`. It has about three
        rules for each token and label.
    RAISES: ValueError if the opening markers of two labels cannot be told apart; KeyError for a label without
        markers.
    """
    grammar = Grammar(request, scheme, lambda text: tuple(map(ord, text)))
    end = len(request.sentence.words)
    names = {State(): "root"}
    rules: list[str] = []
    queue = [State()]
    for state in queue:
        alternatives = []
        for continuation in grammar.continuations(state):
            text = "".join(map(chr, continuation.ids))
            after = _merged(continuation.state)
            if after.token == end:
                closing = scheme[after.label].close if after.label is not None else ""
                alternatives.append(_literal(text + closing))
                continue
            if after not in names:
                names[after] = f"r{len(names)}"
                queue.append(after)
            alternatives.append(f"{_literal(text)} {names[after]}")
        rules.append(f"{names[state]} ::= {' | '.join(alternatives)}\n")
    return "".join(rules)


def _merged(state: State) -> State:
    """Give one state for all that go on alike: of an open mention it matters only whether it has a word yet."""
    return state if state.start == state.token else state._replace(start=-1)


# What the three engines read alike: other forms of escapes are mangled by one or the other.
_ESCAPES = {
    **{chr(code): f"\\x{code:02x}" for code in (*range(32), 127)},
    **{"\n": r"\n", "\r": r"\r", "\t": r"\t", '"': r"\"", "\\": r"\\"},
}


def _literal(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(char, char) for char in text) + '"'

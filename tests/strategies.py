"""What hypothesis draws sentences and spans from, and what takes the markers out again."""

from collections.abc import Sequence

from hypothesis import strategies as st

from spacy_nerllama.marking import Segment
from spacy_nerllama.requests import Sentence, TokenSpan

# Words of every kind that matters: plain, white space, and what looks like a marker or a control token.
PLAIN = ["ataxia", "the", "gene", ".", "β", "😀", "T-cell", "5"]
SPACE = [" ", "\n", "\n\n", "\t", "\u00a0", "\u2003"]
LOOKALIKE = "@@ ## @ # @@x ##x @- #- @-adrenergic a@@ @disease@ @disease #disease# @gene@x <|im_end|>".split()

# No control characters, surrogates or unassigned ones: all others survive a byte-level tokenizer.
_text = st.text(st.characters(exclude_categories=["Cc", "Cn", "Cs"]), min_size=1, max_size=5)
plain_words = st.sampled_from(PLAIN)
words = st.one_of(plain_words, st.sampled_from(SPACE), st.sampled_from(LOOKALIKE), _text)


@st.composite
def sentences(draw: st.DrawFn, words: st.SearchStrategy[str] = words, max_size: int = 8) -> Sentence:
    """Any tokens, with or without a space after each."""
    tokens = draw(st.lists(st.tuples(words, st.booleans()), min_size=1, max_size=max_size))
    return Sentence(tuple(word for word, _ in tokens), tuple(space for _, space in tokens))


@st.composite
def spans_of(draw: st.DrawFn, sentence: Sentence, labels: Sequence[str]) -> list[TokenSpan]:
    """Any spans of a sentence that do not overlap, in order; they may touch."""
    n = len(sentence.words)
    cuts = sorted(draw(st.sets(st.integers(0, n))))
    kinds = [draw(st.sampled_from([None, *labels])) for _ in cuts[1:]]
    return [
        TokenSpan(start, end, label)
        for start, end, label in zip(cuts, cuts[1:], kinds, strict=False)
        if label is not None
    ]


def has_clean_edges(sentence: Sentence, span: TokenSpan) -> bool:
    """Whether a span neither starts nor ends on white space."""
    return not (sentence.words[span.start].isspace() or sentence.words[span.end - 1].isspace())


def unmark(segments: Sequence[Segment]) -> tuple[str, list[tuple[int, int, str]]]:
    """Take the markers out of a marked sentence, independently of the grammar.

    RETURNS: The text, and the mentions as (start, end, label) in characters of it.
    """
    text, mentions, start = "", [], 0
    for kind, content, label in segments:
        if kind == "text":
            text += content
        elif kind == "open":
            text += " " * content.startswith(" ")
            start = len(text)
        else:
            mentions.append((start, len(text), label))
    return text, mentions

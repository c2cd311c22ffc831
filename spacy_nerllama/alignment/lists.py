"""Responses that name mentions in the place of a copy, or say that there are none."""

import re
from collections.abc import Iterable

from ..requests import Request, Sentence, TokenSpan
from .markers import Marked
from .projection import FOLDS, Alignment, Text, flat

# A response of more words, or characters, says more than that there are no mentions.
MAX_WORDS_FOR_NONE, MAX_CHARS_FOR_NONE = 20, 500


def align_list(sentence: Sentence, marked: Marked, start: int = 0) -> Alignment | None:
    """Align marked strings that all stand in the sentence, with nothing but numbers and signs around them.

    Behind a bullet each may have a comment: "- @@ATM## (a kinase)".

    start: Where they begin. After a copy of the sentence they may have a heading; where there are other words,
        another sentence may be answered.
    """
    mentions = marked.mentions(start)
    edges = [start, *(edge for mention in mentions for edge in mention[:2]), len(marked.text)]
    around = [marked.text[i:j] for i, j in zip(edges[::2], edges[1::2], strict=True)]
    if all(_BULLET.search(before) for before in around[:-1]):
        around[1:] = [_COMMENT.sub("", after) for after in around[1:]]
    if start:
        around[0] = _HEADINGS.sub("", around[0])
    if any(char.isalpha() for text in around for char in text):
        return None
    return align_strings(sentence, marked.strings(mentions), all_of_them=True)


_BULLET = re.compile(r"(?:\A|\n)[ \t]*(?:[-*•]|\d+[.)])[ \t]*\Z")
_COMMENT = re.compile(r"\A[ \t]*[(:–-][^\n]*")
_HEADINGS = re.compile(r"\A\W*(?:[^\n:]*:\s*)+")
_HEADING = re.compile(r"\A[^\n:]*:")
_SAYS = "contains?|ha[sd]|have|mentions?|includes?|found|find|sees?|saw|identif(?:y|ied)"


def align_none(request: Request, response: str, marked: Marked) -> Alignment | None:
    """Read an empty list, or a few words that say that there are no mentions: so there are none."""
    said = " ".join(response.split())
    if marked.marks or len(said) > MAX_CHARS_FOR_NONE or len(_WORD.findall(said)) > MAX_WORDS_FOR_NONE:
        return None
    asked = {word for label in request.labels for text in label for word in _WORD.findall(text) if len(word) > 2}
    names = "|".join(map(re.escape, sorted({*asked, "entit", "mention"})))
    says_none = re.match(_NONE.format(some=rf"(?:\w+\ )*?(?:{names})\w*"), said, re.I | re.X)
    return Alignment((), "aligned") if says_none else None


_NONE = rf"""
    (?: {_HEADING.pattern} | [^\n,]*, )?  # "Genes:", "In this sentence,"
    \W*?
    (?:
        (?: none | n/a | null ) \b
        | .* \[\s*\] | {{{{\s*}}}}
        | (?: there\ (?:are|is|were|was)\ )? no\ {{some}}
        | (?: i | we | it | (?:the|this)(?:\ \w+){{{{1,2}}}}? )\ (?:
            (?:{_SAYS})\ no\ {{some}}
            | (?: cannot | (?:do|does|did|could|can|am|was)(?:n['’]t|\ not) )\ (?:\w+\ ){{{{0,3}}}}?
              (?:{_SAYS})\ {{some}}
        )
    )
"""


def align_strings(
    sentence: Sentence, strings: Iterable[tuple[str, str | None]], all_of_them: bool = False
) -> Alignment | None:
    """Find strings in the sentence, each wherever it stands as whole words: as written, else in another form."""
    missing = sorted({(string, label) for string, label in strings if label})
    spans: set[TokenSpan] = set()
    for fold, _ in FOLDS:
        text = Text(sentence, fold)
        wanted, missing = missing, []
        for string, label in wanted:
            places = text.find(fold(string).chars)
            spans.update(text.span(i, j, label) for i, j in places)
            if not places:
                missing.append((string, label))
    return Alignment(flat(spans), "aligned") if spans and not (all_of_them and missing) else None


_WORD = re.compile(r"\w+")

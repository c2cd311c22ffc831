"""Responses that name mentions in the place of a copy, or say that there are none."""

import json
import re
from collections.abc import Iterable
from contextlib import suppress

from ..requests import Request, Sentence, TokenSpan
from .markers import Marked
from .projection import FOLDS, Alignment, Text, flat

# A response of more words says more than that there are no mentions.
MAX_WORDS_FOR_NONE = 12


def align_list(sentence: Sentence, marked: Marked, start: int = 0) -> Alignment | None:
    """Align marked strings that all stand in the sentence, with nothing but numbers and signs around them.

    start: Where they begin. After a copy of the sentence they may have a heading; where there are other words,
        another sentence may be answered.
    """
    mentions = marked.mentions(start)
    edges = [start, *(edge for mention in mentions for edge in mention[:2]), len(marked.text)]
    around = [marked.text[i:j] for i, j in zip(edges[::2], edges[1::2], strict=True)]
    if start:
        around[0] = _HEADING.sub("", around[0].lstrip())
    if any(char.isalpha() for text in around for char in text):
        return None
    return align_strings(sentence, marked.strings(mentions), all_of_them=True)


_HEADING = re.compile(r"\A[^\n:]*:")


def align_json(request: Request, response: str, marked: Marked) -> Alignment | None:
    """Align a list of strings, or of objects with one each, in JSON or with single quotes as Python writes it."""
    if marked.marks or len(request.labels) != 1:
        return None
    listed = response[max(0, response.find("[")) : response.rfind("]") + 1]
    for quoted in (listed, listed.replace("'", '"')):
        with suppress(ValueError, RecursionError):
            items = json.loads(quoted)
            strings = [_strings_of(item) for item in items] if isinstance(items, list) else []
            if not all(len(each) == 1 for each in strings):
                return None
            return align_strings(request.sentence, [(each[0], request.labels[0][0]) for each in strings])
    return None


def _strings_of(item: object) -> list[str]:
    values = item.values() if isinstance(item, dict) else [item]
    return [value for value in values if isinstance(value, str)]


def align_none(request: Request, response: str, marked: Marked) -> Alignment | None:
    """Read an empty list, or a few words that say that there are no mentions: so there are none."""
    if marked.marks or len(_WORD.findall(response)) > MAX_WORDS_FOR_NONE:
        return None
    asked = {word for label in request.labels for text in label for word in _WORD.findall(text) if len(word) > 2}
    names = "|".join(map(re.escape, sorted({*asked, "entit", "mention"})))
    none = rf"\W*(?:none|n/a|(?:there (?:are|is|were|was) )?no (?:\w+ )*?(?:{names})\w*)\b|.*\[\s*\]"
    says_none = re.match(rf"(?:{_HEADING.pattern})?(?:{none})", response.strip(), re.IGNORECASE | re.DOTALL)
    return Alignment((), "aligned") if says_none else None


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

"""Responses in JSON, or as Python writes it: lists of mentions, with their labels or without."""

import json
import re
from collections.abc import Iterator
from typing import Any

from ..requests import Request
from .lists import align_strings
from .markers import Marked, label_called
from .projection import Alignment

MAX_TRIED = 100  # brackets at which a value may begin
MAX_MENDED = 10_000  # characters in which what is no JSON is mended

_WORDS = ("text", "mention", "span", "word", "term", "name", "value", "entity")  # keys of what is mentioned
_TYPES = ("type", "label", "entity_type", "category", "class", "tag", "entity_group")  # and of its label
_ANYTHING = re.compile(r"entit|mention|result|output|answer|span|name|list|item", re.IGNORECASE)


def align_json(request: Request, marked: Marked) -> Alignment | None:
    """Align the strings of all values in JSON that a response holds, a list that breaks off among them.

    Objects may name label and mention ({"text": "ATM", "type": "gene"}), or have a list for each label
    ({"genes": ["ATM"]}). What is named as something else than was asked for is left out.
    """
    if marked.marks:
        return None
    only = request.labels[0][0] if len(request.labels) == 1 else None
    named = [each for value in _values(marked.text) for each in _named(value, only, request)]
    return align_strings(request.sentence, named)


def _values(text: str) -> list[Any]:
    """Find the lists and objects in a text: all of it, with Python's quotes and commas, or up to where it ends."""
    mended = _QUOTED.sub(lambda quoted: json.dumps(quoted[1]), _LAST_COMMA.sub("", text[:MAX_MENDED]))
    begun = mended, mended[: mended.rfind(",")]  # the last item may be torn
    tried = (text, mended, *(each + end for each in begun for end in ("]", "}", "]}", "}]")))
    return next(filter(None, map(_decoded, tried)), None) or _decoded(text, skip=True)


def _decoded(text: str, skip: bool = False) -> list[Any]:
    """Decode the values in a text, none if one of them is broken.

    skip: Go on behind the bracket at which a broken one begins.
    """
    values: list[Any] = []
    at = 0
    for _ in range(MAX_TRIED):
        if not (begin := _BEGINS.search(text, at)):
            break
        try:
            value, at = _DECODER.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            if not skip:
                return []
            at = begin.end()
        else:
            values.append(value)
    return values


_DECODER = json.JSONDecoder()
_BEGINS = re.compile(r"[\[{]")
_QUOTED = re.compile(r"(?<=[\[{,:\s])'([^\n]{0,200}?)'(?=\s*[,\]}:])")
_LAST_COMMA = re.compile(r",(?=\s*[\]}])")


def _named(value: Any, label: str | None, request: Request) -> Iterator[tuple[str, str | None]]:
    """Give the mentions in a value, each with its label.

    label: What they have if nothing else is said.
    """
    if isinstance(value, str):
        yield value, label
    elif isinstance(value, list):
        for each in value:
            yield from _named(each, label, request)
    elif isinstance(value, dict):
        keys = {str(key).casefold(): each for key, each in value.items()}
        said = next((keys[key] for key in _TYPES if isinstance(keys.get(key), str)), None)
        mention = next((keys[key] for key in _WORDS if isinstance(keys.get(key), str)), None)
        if mention is not None and not any(map(_holds_mentions, value.values())):  # else it is the sentence
            yield mention, label if said is None else label_called(said, request)
            return
        for key, each in value.items():
            of_key = label_called(str(key), request)
            if of_key or len(value) == 1 or (_ANYTHING.search(str(key)) and not isinstance(each, str)):
                yield from _named(each, of_key or label, request)


def _holds_mentions(value: Any) -> bool:
    """Whether a value is a list of more than numbers."""
    return isinstance(value, list) and any(isinstance(each, str | dict) for each in value)

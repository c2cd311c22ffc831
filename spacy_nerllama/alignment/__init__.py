"""Alignment of free text: the response of a model that writes freely -> spans of the sentence's tokens.

A response should be the sentence with markers in it. What comes may lack words or repeat them, spell out Greek
letters, break off, or be no copy at all. The markers are taken out, what is left is aligned with the sentence, and
each mention goes where its characters went. No response raises; the diagnosis says what it was.
"""

import re
from html import unescape

from ..marking import SINGLE, MarkingScheme
from ..requests import Request
from .copies import align_changed_copy, align_copy
from .lists import align_list, align_none, align_strings
from .markers import take_markers_out
from .projection import Alignment, Diagnosis
from .structured import align_json

__all__ = ["Alignment", "Diagnosis", "align"]

# A model that thinks aloud may draft copies before the one that counts, and may not come to that.
_THOUGHT = r"(?:think|thinking|thoughts?|reasoning|scratchpad)"
_THOUGHTS = re.compile(rf"<{_THOUGHT}>|\[{_THOUGHT}\]", re.IGNORECASE)
_THOUGHTS_END = re.compile(rf"(.*)(?:</{_THOUGHT}>|\[/{_THOUGHT}\]|<\|channel\|>final<\|message\|>)", re.I | re.S)
_CORRECTION = re.compile(
    r"^[^\w\n]*(?:wait|actually|correct(?:ed|ion)|revised|final)\b", re.IGNORECASE | re.MULTILINE
)
_ENTITY = re.compile(r"&#?\w+;")  # of HTML


def align(request: Request, response: str, scheme: MarkingScheme = SINGLE) -> Alignment:
    """Find the mentions that a response marks; docs/alignment.md has the rules.

    Understood are the markers of the scheme and those of the paper's two schemes, whichever was asked for, and
    lists of strings in their place.

    request: The sentence, and the labels that were asked for.
    response: What the model wrote, any text at all.
    scheme: The markers that were asked for.
    RETURNS: The mentions that could be recovered, and a diagnosis.
    RAISES: KeyError if the scheme has no markers for one of the labels.
    """
    response = _said(request.sentence.text, response)
    if corrected := _corrected(request.sentence.text, response):
        marked = take_markers_out(request, corrected, scheme)
        if marked.marks and (alignment := align_copy(request, marked)):
            return alignment
    marked = take_markers_out(request, response, scheme)
    return (
        align_copy(request, marked)
        or align_list(request.sentence, marked)
        or align_json(request, marked)
        or align_changed_copy(request.sentence, marked)
        or align_strings(request.sentence, marked.strings(marked.mentions()))
        or align_none(request, response, marked)
        or Alignment((), "unusable")
    )


def _said(text: str, response: str) -> str:
    """Take out of a response to a text what was only thought, and put characters for entities of HTML."""
    if (thought := _THOUGHTS_END.match(response)) and not _THOUGHTS_END.match(text):
        response = response[thought.end() :] if response[thought.end() :].strip() else thought[1]
    if not _THOUGHTS.search(text):
        response = _THOUGHTS.split(response)[0]
    return response if _ENTITY.search(text) else _ENTITY.sub(lambda entity: unescape(entity[0]), response)


def _corrected(text: str, response: str) -> str | None:
    """Give what follows the last line in which a model takes back what it said."""
    if _CORRECTION.search(text):
        return None
    *_, last = _CORRECTION.split(response)
    return last if last != response else None

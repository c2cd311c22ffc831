"""Answers as lines of JSON, as the cache keeps, `annotate --record` writes and `nerllama.Replay.v1` reads them."""

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from ..alignment import Diagnosis
from ..errors import Errors
from ..files import as_offset, is_text, parse_json
from ..marking import MarkingScheme
from ..requests import Request, Sentence, TokenSpan, squash
from ..voting import Votes
from .texts import count_votes


@dataclass(frozen=True)
class Record:
    """An answer.

    text: The sentence.
    labels: The labels that were asked for together.
    responses: What a model wrote that answers in text.
    votes: Of marked decoding, which writes no text, the vote of each span: start, end (in characters of the text),
        label and vote. None: there are no votes but those of the responses.
    unexplored: As `Votes` has it.
    """

    text: str
    labels: tuple[str, ...]
    responses: tuple[str, ...] = ()
    votes: tuple[tuple[int, int, str, float], ...] | None = None
    unexplored: float = 0.0

    @classmethod
    def of(cls, request: Request, votes: Votes) -> "Record":
        """Record the answer to a request."""
        labels = tuple(label for label, _ in request.labels)
        record = cls(request.sentence.text, labels, votes.responses)
        if votes.responses or not votes.answered:  # the votes follow from them, or there are none
            return record
        edges = _edges(request.sentence)
        scored = tuple(
            (edges[span.start][0], edges[span.end - 1][1], span.label, vote)
            for span, vote in sorted(votes.spans.items())
        )
        return replace(record, votes=scored, unexplored=votes.unexplored)

    @classmethod
    def from_line(cls, line: str, path: Path, number: int) -> "Record":
        """Read a record.

        line: A JSON object with `text`, `label` (a string, or a list of those that were asked for together), and
            `response` (a string or null), `responses` (a list of these) or `votes`.
        path, number: Where the line is, for errors.
        RAISES: ValueError, naming file and line, if it is none.
        """
        value = parse_json(line, path, number)
        if not isinstance(value, dict):
            raise ValueError(Errors.E081.format(path=path, line=number))
        labels = [value["label"]] if isinstance(value.get("label"), str) else value.get("label")
        if not isinstance(value.get("text"), str):
            raise ValueError(Errors.E082.format(path=path, line=number, key="text"))
        if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
            raise ValueError(Errors.E082.format(path=path, line=number, key="label"))
        responses = value.get("responses", [None if "votes" in value else value.get("response", 0)])
        if not isinstance(responses, list) or not all(r is None or isinstance(r, str) for r in responses):
            raise ValueError(Errors.E083.format(path=path, line=number))
        votes, unexplored = value.get("votes", []), value.get("unexplored", 0.0)
        if not isinstance(votes, list) or not _is_share(unexplored):
            raise ValueError(Errors.E200.format(path=path, line=number))
        scored = [_scored(vote, len(value["text"]), labels) for vote in votes]
        if None in scored:
            raise ValueError(Errors.E200.format(path=path, line=number))
        return cls(
            value["text"],
            tuple(labels),
            tuple(response for response in responses if response is not None),
            tuple(vote for vote in scored if vote) if "votes" in value else None,
            unexplored,
        )

    @property
    def answers(self) -> bool:
        """Whether there is an answer: a record may say that there was none."""
        return bool(self.responses) or self.votes is not None

    def to_line(self) -> str:
        """Write the record as a line of JSON, without its end."""
        label = self.labels[0] if len(self.labels) == 1 else self.labels
        value: dict[str, Any] = {"text": self.text, "label": label}
        if self.responses or self.votes is None:
            value["responses"] = self.responses
        else:
            value["votes"] = [
                {"start": start, "end": end, "label": name, "vote": vote} for start, end, name, vote in self.votes
            ]
            value["unexplored"] = self.unexplored
        line = json.dumps(value, ensure_ascii=False)
        return line if is_text(line) else json.dumps(value)  # half a character cannot be written as UTF-8

    def votes_on(self, request: Request, scheme: MarkingScheme) -> tuple[Votes, list[Diagnosis]]:
        """Give the votes of the answer on a request for the same text, however it is tokenised.

        request: A sentence whose text is that of the record, white space aside, and the labels to take.
        scheme: The markers of the responses.
        RETURNS: The votes, those of spans off its token boundaries on all tokens that they touch; and the
            diagnosis of each response.
        """
        if self.responses or self.votes is None:
            return count_votes(request, self.responses, scheme)
        tokens = [i for i, word in enumerate(request.sentence.words) for _ in squash(word)]
        wanted = {label for label, _ in request.labels}
        spans: dict[TokenSpan, float] = {}
        for start, end, label, vote in self.votes:
            first, last = (len(squash(self.text[:at])) for at in (start, end))
            if first < last and label in wanted:
                span = TokenSpan(tokens[first], tokens[last - 1] + 1, label)
                spans[span] = max(vote, spans.get(span, 0.0))
        return Votes(spans, self.unexplored), []


def _edges(sentence: Sentence) -> list[tuple[int, int]]:
    """Where each token of a sentence begins and ends, in characters of its text."""
    edges, end = [], 0
    for i, word in enumerate(sentence.words):
        start = end + sentence.has_space_before(i)
        end = start + len(word)
        edges.append((start, end))
    return edges


def _scored(value: Any, length: int, labels: Collection[str]) -> tuple[int, int, str, float] | None:
    if isinstance(value, dict):
        start, end = as_offset(value.get("start")), as_offset(value.get("end"))
        label, vote = str(value.get("label")), value.get("vote")
        if 0 <= start < end <= length and label in labels and _is_share(vote):
            return start, end, label, vote
    return None


def _is_share(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1

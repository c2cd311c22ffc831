"""Recorded responses, `nerllama.Replay.v1`: everything after the model, without the model."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from ..alignment import Diagnosis
from ..corpora.files import numbered_lines, parse_json
from ..errors import Errors
from ..prompts import Prompt, scheme_of
from ..requests import Request, TokenSpan, squash
from ..voting import Votes, Voting
from .texts import TextModel, count_votes


class Replay(TextModel):
    """Responses that were recorded, in the place of a model.

    A record is found by its label and its text, white space aside: first the whole text of a doc is looked up,
    then its sentences. Where there is no record, nothing is marked. Several responses to a text are samples that
    vote.

    path: A JSONL file, read on first use. Each line has `text`, `label`, and `response` (a string, or null where
        none was recorded) or `responses` (a list of these). Lines with the same text and label add up.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self._by_record: dict[tuple[str, str], list[Diagnosis]] = {}

    def __str__(self) -> str:
        return self.path

    @property
    def diagnoses(self) -> Counter[Diagnosis]:
        """How many responses have each diagnosis, each counted once, of those that were asked for so far."""
        return Counter(diagnosis for diagnoses in self._by_record.values() for diagnosis in diagnoses)

    @cached_property
    def records(self) -> Mapping[tuple[str, str], list[str]]:
        """The responses to each text, without its white space, and label.

        RAISES: FileNotFoundError if there is no file; ValueError, naming file and line, for one that is broken.
        """
        records: dict[tuple[str, str], list[str]] = {}
        for text, label, responses in _read_records(Path(self.path).expanduser()):
            records.setdefault((squash(text), label), []).extend(responses)
        return records

    def answers(self, request: Request) -> bool:
        """Whether there is a record of a request."""
        return any((request.sentence.squashed, label) in self.records for label, _ in request.labels)

    def vote(
        self, requests: Iterable[Request], prompt: Prompt, voting: Voting, max_batch_tokens: int
    ) -> Iterator[Votes | Exception]:
        """Let the recorded responses vote.

        requests: The requests, taken as a stream.
        prompt: Not read; if it has a `scheme`, the responses are read by it.
        voting: With `samples` only so many responses vote, the first.
        max_batch_tokens: Not used.
        RETURNS: The votes, in the order of the requests.
        RAISES: As `records`.
        """
        records = self.records  # read before the first request: that a file is broken is the fault of no doc
        scheme = scheme_of(prompt)

        def vote(request: Request) -> Votes:
            spans: dict[TokenSpan, float] = {}
            for label in request.labels:
                key = (request.sentence.squashed, label[0])
                if key in records:
                    asked = Request(request.sentence, (label,))
                    votes, self._by_record[key] = count_votes(asked, records[key][: voting.samples], scheme)
                    spans.update(votes.spans)
            return Votes(spans)

        return self._logged(map(vote, requests))

    def warm_up(self) -> None:
        """Read the file, so that the first doc does not wait."""
        _ = self.records

    def unload(self) -> None:
        """Forget what was read; the next `vote` reads it again."""
        vars(self).pop("records", None)


def _read_records(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Stream text, label and responses of the lines of a file. Responses that are null are left out."""
    if not path.is_file():
        raise FileNotFoundError(Errors.E080.format(path=path))
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        record = parse_json(line, path, number)
        if not isinstance(record, dict):
            raise ValueError(Errors.E081.format(path=path, line=number))
        for key in ("text", "label"):
            if not isinstance(record.get(key), str):
                raise ValueError(Errors.E082.format(path=path, line=number, key=key))
        responses = record["responses"] if "responses" in record else [record.get("response", 0)]
        if not isinstance(responses, list) or not all(r is None or isinstance(r, str) for r in responses):
            raise ValueError(Errors.E083.format(path=path, line=number))
        yield record["text"], record["label"], [response for response in responses if response is not None]

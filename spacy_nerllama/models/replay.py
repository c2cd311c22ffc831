"""Recorded responses, `nerllama.Replay.v1`: everything after the model, without the model."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

from ..alignment import Diagnosis
from ..errors import Errors
from ..files import numbered_lines
from ..prompts import Prompt, scheme_of
from ..requests import Request, squash
from ..voting import Votes, Voting
from .records import Record
from .texts import TextModel

_Key = tuple[str, frozenset[str]]

MOST_KEPT = 1024
"""How many texts' votes are kept for when they come again."""


class Replay(TextModel):
    """Responses that were recorded, in the place of a model.

    A record is found by its label and its text, white space aside: first the whole text of a doc is looked up,
    then its sentences. Where there is no record, nothing is marked. Several responses to a text are samples that
    vote. Votes that were recorded, as those of marked decoding are, stand as they are.

    path: A JSONL file, read on first use. Each line has `text`, `label` (or a list of labels that were asked for
        together), and `response` (a string, or null where none was recorded), `responses` (a list of these), or
        `votes` (a list of `start` and `end` in characters, `label` and `vote`). Responses of lines with the same
        text and label add up; of votes the first line counts.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self._by_record: dict[_Key, list[Diagnosis]] = {}

    def __str__(self) -> str:
        return self.path

    @property
    def diagnoses(self) -> Counter[Diagnosis]:
        """How many responses have each diagnosis, each counted once, of those that were asked for so far."""
        return Counter(diagnosis for diagnoses in [*self._by_record.values()] for diagnosis in diagnoses)

    @cached_property
    def records(self) -> Mapping[_Key, Record]:
        """What is recorded of each text, without its white space, and label (or labels asked for together).

        RAISES: FileNotFoundError if there is no file; ValueError, naming file and line, for one that is broken.
        """
        records: dict[_Key, Record] = {}
        for record in _read_records(Path(self.path).expanduser()):
            if not record.answers:
                continue
            key = squash(record.text), frozenset(record.labels)
            before = records.get(key)
            records[key] = replace(before, responses=before.responses + record.responses) if before else record
        return records

    def answers(self, request: Request) -> bool:
        """Whether there is a record of a request: of all of its labels, together or of each."""
        return {label for found, _ in self._found(request) for label in found.labels} == {*request.labels}

    def _found(self, request: Request) -> Iterator[tuple[Request, _Key]]:
        """Find what is recorded of a request: of all of its labels together, else of each."""
        for labels in dict.fromkeys((request.labels, *((label,) for label in request.labels))):
            key = request.sentence.squashed, frozenset(label for label, _ in labels)
            if key in self.records:
                yield Request(request.sentence, labels), key
                if labels == request.labels:
                    return

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
        _ = self.records  # read before the first request: that a file is broken is the fault of no doc
        scheme = scheme_of(prompt)

        @lru_cache(MOST_KEPT)  # a text that comes again has its records aligned once
        def vote(request: Request) -> Votes:
            found = Votes(answered=False)
            for asked, key in self._found(request):
                record = self.records[key]
                record = replace(record, responses=record.responses[: voting.samples])
                votes, self._by_record[key] = record.votes_on(asked, scheme)
                found = Votes(
                    {**found.spans, **votes.spans},
                    max(found.unexplored, votes.unexplored),
                    found.responses + votes.responses,
                    found.answered or votes.answered,
                )
            return found

        return self._logged(map(vote, requests))

    def warm_up(self) -> None:
        """Read the file, so that the first doc does not wait."""
        _ = self.records

    def unload(self) -> None:
        """Forget what was read; the next `vote` reads it again."""
        vars(self).pop("records", None)


def _read_records(path: Path) -> Iterator[Record]:
    """Stream the records of a file."""
    if not path.is_file():
        raise FileNotFoundError(Errors.E080.format(path=path))
    for number, line in numbered_lines(path):
        if line.strip():
            yield Record.from_line(line, path, number)

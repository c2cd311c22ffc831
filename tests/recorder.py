"""An engine that remembers what it was asked, and sentences and jobs for it."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import spacy

from spacy_nerllama.grammar import Grammar
from spacy_nerllama.marking import SINGLE, MarkingScheme
from spacy_nerllama.models.decoding import Job
from spacy_nerllama.models.engine import Engine, KeysValues
from spacy_nerllama.models.scoring import Row
from spacy_nerllama.models.walks import make_walk
from spacy_nerllama.prompts import CompactPrompt
from spacy_nerllama.requests import Request, Sentence
from spacy_nerllama.voting import Voting

NLP = spacy.blank("en")
DISEASE = (("DISEASE", "disease"),)
GENE = (("GENE", "gene or protein"),)


def sentence(text: str) -> Sentence:
    """A sentence of spaCy's tokens."""
    doc = NLP(text)
    return Sentence(tuple(t.text for t in doc), tuple(bool(t.whitespace_) for t in doc))


def make_job(encoder: Any, request: Request, voting: Voting, scheme: MarkingScheme = SINGLE) -> Job:
    """A job as the local model makes it."""
    prompt = encoder.prompt(CompactPrompt()(request))
    return Job(prompt, Grammar(request, scheme, encoder.piece), make_walk(request, voting))


class Recorder:
    """Passes rows on to an engine, and remembers them.

    read: All ids of each row, those of its past included.
    batches: The tokens of each batch, those of its rows' pasts and of padding included.
    rows: The number of rows of each batch.
    """

    def __init__(self, engine: Engine) -> None:
        self._score = engine.score
        self.prefix, self.efficient, self.at_once = engine.prefix, engine.efficient, engine.at_once
        self.read: list[tuple[int, ...]] = []
        self.batches: list[int] = []
        self.rows: list[int] = []
        self._pasts: list[tuple[KeysValues, tuple[int, ...]]] = []

    def submit(self, rows: Sequence[Row]) -> Future[Any]:
        """See `Engine.submit`."""
        future: Future[Any] = Future()
        future.set_result(self.score(rows))
        return future

    def score(self, rows: Sequence[Row]) -> Any:
        """See `Engine.score`."""
        scores = self._score(rows)
        read = [(*self._before(row), *row.ids) for row in rows]
        groups = [[row for row in rows if len(row.ids).bit_length() == size] for size in range(32)]
        widths = [max(r.past_length for r in some) + max(len(r.ids) for r in some) for some in groups if some]
        self.batches.append(
            sum(len(some) * width for some, width in zip(filter(None, groups), widths, strict=True))
        )
        self.rows.append(len(rows))
        self.read += read
        given = scores.past

        def past(row: int, n_ids: int) -> KeysValues:
            kept = given(row, n_ids)
            before = len(read[row]) - len(rows[row].ids)
            self._pasts.append((kept, read[row][: before + n_ids]))
            return kept

        scores.past = past
        return scores

    def _before(self, row: Row) -> tuple[int, ...]:
        if row.past is None:
            return ()
        start = row.past.tensor.data_ptr()  # it is kept here, or the beginning of what is
        return next(ids[: row.past_length] for past, ids in self._pasts if past.tensor.data_ptr() == start)

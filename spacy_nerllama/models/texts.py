"""Texts -> alignment -> votes: what models have in common that answer in free text."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from typing import Any

from ..alignment import Diagnosis, align
from ..marking import MarkingScheme
from ..prompts import Prompt, PromptText, scheme_of
from ..requests import Request, TokenSpan
from ..voting import Votes, Voting
from .adapter import Adapter
from .tasks import MarksTasks

logger = logging.getLogger(__name__)

Responses = Sequence[str] | Exception
"""What a model wrote for one request, or why there is nothing."""


class TextModel(MarksTasks):
    """A model that answers in free text, in the place of `Llama`: what it writes is aligned and votes.

    Subclasses say in `respond` where the texts come from; those that need more of a request than its prompt, in
    `respond_to`.
    """

    def __init__(self) -> None:
        self.adapter: Adapter | None = None
        self._diagnoses: Counter[Diagnosis] = Counter()

    @property
    def diagnoses(self) -> Counter[Diagnosis]:
        """How many responses have each diagnosis, of those that came in so far in this process."""
        return self._diagnoses

    @property
    def meta(self) -> dict[str, Any]:
        """What is known of the adapter of a pipeline, as its labels and thresholds; empty without one."""
        return self.adapter.meta if self.adapter else {}

    def set_adapter(self, adapter: Adapter | None) -> None:
        """Keep the adapter that a pipeline brings, for its labels and thresholds: no model is put under it."""
        self.adapter = adapter

    def respond(self, prompts: Iterable[PromptText], voting: Voting) -> Iterator[Responses]:
        """Let the model answer.

        prompts: The prompts, taken as a stream.
        voting: `samples` and `temperature` say how many responses to give to each, and how they are drawn.
        RETURNS: The responses to each prompt, in the order of the prompts; an error where they failed.
        """
        raise NotImplementedError

    def respond_to(self, requests: Iterable[Request], prompt: Prompt, voting: Voting) -> Iterator[Responses]:
        """Let the model answer requests.

        requests: The requests, taken as a stream.
        prompt: What the model reads of a request.
        voting: As `respond` takes it.
        RETURNS: As `respond`.
        """
        return self.respond(map(prompt, requests), voting)

    def vote(
        self, requests: Iterable[Request], prompt: Prompt, voting: Voting, max_batch_tokens: int
    ) -> Iterator[Votes | Exception]:
        """Let the model mark requests.

        requests: The requests, taken as a stream.
        prompt: What the model reads of a request; its responses are read by its marking scheme.
        voting: How readings are drawn; the vote rule is not applied here.
        max_batch_tokens: Not used.
        RETURNS: The votes, in the order of the requests; an error where the model failed.
        """
        scheme = scheme_of(prompt)
        asked, kept = tee(requests)

        def votes() -> Iterator[Votes | Exception]:
            for responses, request in zip(self.respond_to(asked, prompt, voting), kept, strict=True):
                if isinstance(responses, Exception):
                    yield responses
                else:
                    counted, diagnoses = count_votes(request, responses, scheme)
                    self._diagnoses.update(diagnoses)
                    yield counted

        return self._logged(votes())

    def _logged(self, votes: Iterator[Votes | Exception]) -> Iterator[Votes | Exception]:
        """Log the responses by diagnosis when a stream ends."""
        try:
            yield from votes
        finally:
            if logger.isEnabledFor(logging.INFO):
                counts = ", ".join(f"{n} {diagnosis}" for diagnosis, n in self.diagnoses.most_common())
                logger.info("Responses of %s: %s", self, counts or "none")

    def warm_up(self) -> None:
        """Nothing is loaded here."""

    def unload(self) -> None:
        """Nothing is kept here."""


def count_votes(
    request: Request, responses: Iterable[str], scheme: MarkingScheme
) -> tuple[Votes, list[Diagnosis]]:
    """Let the responses to a request vote (SCNP): each is a reading, a span's vote the share of them that hold it.

    request: The sentence, and the labels that were asked for.
    responses: What a model wrote, any texts at all. One that is unusable is no reading.
    scheme: The markers that were asked for.
    RETURNS: The votes, none if there are no readings; and the diagnosis of each response.
    RAISES: KeyError if the scheme has no markers for one of the labels.
    """
    counts: Counter[TokenSpan] = Counter()
    diagnoses: list[Diagnosis] = []
    responses = tuple(responses)
    aligned = {response: align(request, response, scheme) for response in dict.fromkeys(responses)}
    for response in responses:
        spans, diagnosis = aligned[response]
        counts.update(spans)
        diagnoses.append(diagnosis)
    readings = len(diagnoses) - diagnoses.count("unusable")
    # Rounded, as all votes are: what agrees with itself is to stay the same.
    shares = {span: round(count / readings, 12) for span, count in sorted(counts.items())}
    return Votes(shares, responses=responses, answered=readings > 0), diagnoses

"""Requests -> votes by marked decoding, whatever the engine: what the local and the served model share."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..grammar import Grammar
from ..prompts import Prompt, scheme_of
from ..requests import Request
from ..voting import Votes, Voting
from .decoding import Job, decode
from .scoring import Scorer
from .walks import make_walk
from .windows import in_windows

if TYPE_CHECKING:
    from .tokens import TextEncoder


def mark_requests(
    requests: Iterable[Request],
    prompt: Prompt,
    voting: Voting,
    max_batch_tokens: int,
    encoder: "TextEncoder",
    engine: Scorer,
) -> Iterator[Votes]:
    """Mark requests as `try_requests` does, but raise the error of one that failed."""
    for votes in try_requests(requests, prompt, voting, max_batch_tokens, encoder, engine):
        if isinstance(votes, Exception):
            raise votes
        yield votes


def try_requests(
    requests: Iterable[Request],
    prompt: Prompt,
    voting: Voting,
    max_batch_tokens: int,
    encoder: "TextEncoder",
    engine: Scorer,
) -> Iterator[Votes | Exception]:
    """Mark requests, those that are too long window by window.

    requests: The requests, taken as a stream.
    prompt: What the model reads of a request.
    voting: How readings are drawn; the vote rule is not applied here.
    max_batch_tokens: The most tokens in a batch.
    encoder: Encodes text as the engine's model reads it.
    engine: Scores rows.
    RETURNS: The votes, in the order of the requests; an error in the place of those of one that failed.
    """
    scheme = scheme_of(prompt)

    def make(request: Request) -> Job:
        grammar = Grammar(request, scheme, encoder.piece)
        return Job(encoder.prompt(prompt(request)), grammar, make_walk(request, voting))

    return in_windows(
        requests,
        make,
        lambda jobs: decode(jobs, engine, voting.temperature, max_batch_tokens),
        min(engine.context, max_batch_tokens),
    )

"""Devel F1 while training: the adapter in training is decoded with, on the base that is there already."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation import Counts, score
from ..grammar import Grammar
from ..models.decoding import Job, decode
from ..models.engine import Engine
from ..models.tokens import TextEncoder
from ..models.walks import make_walk
from ..prompts import Prompt, scheme_of
from ..requests import Request, TokenSpan
from ..voting import Voting

GREEDY = Voting(samples=1)
"""One greedy reading needs no threshold, and takes less than half the passes of exact votes."""


@dataclass(frozen=True)
class Devel:
    """Devel requests, and the engine that marks them with the weights as they are.

    engine: Of the model in training. It was made before a loss changed the model.
    examples: Requests with their gold spans.
    """

    engine: Engine
    encoder: TextEncoder
    prompt: Prompt
    examples: Sequence[tuple[Request, list[TokenSpan]]]

    def measure(self, part: int = 0, parts: int = 1) -> Counts:
        """Decode the requests, or one part of several, and count spans strictly.

        The model has to be in evaluation mode.
        """
        self.engine.prefix.cache_clear()  # it was read with other weights
        scheme, examples = scheme_of(self.prompt), self.examples[part::parts]
        jobs = [
            Job(
                self.encoder.prompt(self.prompt(request)),
                Grammar(request, scheme, self.encoder.piece),
                make_walk(request, GREEDY),
            )
            for request, _ in examples
        ]
        largest = max((job.size for job in jobs), default=0)
        votes = decode(jobs, self.engine, GREEDY.temperature, max(4096, largest))
        counts = score((vote.spans, gold) for vote, (_, gold) in zip(votes, examples, strict=True))
        self.engine.prefix.cache_clear()  # its memory is not to last into the next step
        return counts

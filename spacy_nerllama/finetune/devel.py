"""Devel F1 while training: the adapter in training is decoded with, on the base that is there already."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation import Counts, score
from ..models.engine import Engine
from ..models.marked import mark_requests
from ..models.tokens import TextEncoder
from ..prompts import Prompt
from ..voting import Voting
from .sequences import Example

GREEDY = Voting(samples=1)
"""One greedy reading needs no threshold, and takes less than half the passes of exact votes."""


@dataclass(frozen=True)
class Devel:
    """Devel requests, and the engine that marks them with the weights as they are.

    engine: Of the model in training. It was made before a loss changed the model.
    examples: Requests with their gold spans.
    max_batch_tokens: The most tokens in a batch.
    """

    engine: Engine
    encoder: TextEncoder
    prompt: Prompt
    examples: Sequence[Example]
    max_batch_tokens: int

    def measure(self, part: int = 0, parts: int = 1) -> Counts:
        """Decode the requests, or one part of several, and count spans strictly.

        The model has to be in evaluation mode.
        """
        self.engine.prefix.cache_clear()  # it was read with other weights
        examples = self.examples[part::parts]
        requests = (request for request, _ in examples)
        votes = mark_requests(requests, self.prompt, GREEDY, self.max_batch_tokens, self.encoder, self.engine)
        counts = score((vote.spans, gold) for vote, (_, gold) in zip(votes, examples, strict=True))
        self.engine.prefix.cache_clear()  # its memory is not to last into the next step
        return counts

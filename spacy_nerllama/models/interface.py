"""What the component asks of a model."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from ..prompts import Prompt
from ..requests import Request
from ..voting import Votes, Voting
from .adapter import Adapter


class Model(Protocol):
    """What turns requests into votes, such as `models.Llama`."""

    @property
    def adapter(self) -> Adapter | None:
        """The adapter, which travels with the pipeline."""

    @property
    def meta(self) -> dict[str, Any]:
        """What is known of the adapter: its `labels` and `thresholds`, among others."""

    def set_adapter(self, adapter: Adapter | None) -> None:
        """Replace the adapter."""

    def vote(
        self, requests: Iterable[Request], prompt: Prompt, voting: Voting, max_batch_tokens: int
    ) -> Iterator[Votes | Exception]:
        """Give the votes of requests, in order, as a stream; an error in the place of those of one that failed.

        What is missing is raised at once, not in the stream.
        """

    def warm_up(self) -> None:
        """Load what is needed, so that the first doc does not wait."""

    def unload(self) -> None:
        """Give memory back."""

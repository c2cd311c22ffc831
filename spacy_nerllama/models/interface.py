"""What the component asks of a model: `Model` of each, the other protocols of one that can do more."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class NamesAdapter(Protocol):
    """A model whose settings may name an adapter, which then wins over the one that a pipeline brings.

    adapter_name: The folder or hub name. None: the settings name none.
    """

    adapter_name: str | None


@runtime_checkable
class Selective(Protocol):
    """A model that has answers to some requests only, and to whole docs perhaps."""

    def answers(self, request: Request) -> bool:
        """Whether there is an answer to a request. A doc that has one is not cut into sentences."""


@runtime_checkable
class Identified(Protocol):
    """A model whose answers can be cached."""

    def fingerprint(self) -> str:
        """Give all that the answers depend on, beside the request, the prompt and the voting."""

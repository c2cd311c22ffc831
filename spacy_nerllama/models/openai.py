"""Servers that answer in text, `nerllama.OpenAI.v1`: any endpoint that speaks OpenAI's API."""

import json
from collections.abc import Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import Errors, ModelUnavailableError
from ..marking import MarkingScheme
from ..prompts import Prompt, scheme_of
from ..requests import Request
from ..voting import Voting
from .guided import to_gbnf
from .inflight import in_order
from .retries import TemporaryError, api_key, is_temporary, persist, retry_after
from .tasks import as_text
from .texts import Responses, TextModel

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Endpoint = Literal["chat", "completions"]
Guided = Literal["vllm", "llama.cpp"]

_ALL_TOKENS = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
"""Sample from the whole of the distribution. llama.cpp leaves out its tail unless told so, vLLM where the model's
generation_config.json says so; a rare marker would never be drawn."""

_UNAVAILABLE = {401, 404}  # a wrong key, a wrong address or model: so it will be for all requests


class OpenAI(TextModel):
    """A model behind a server that answers in text: vLLM, llama.cpp, a gateway, OpenAI itself.

    Registered as `nerllama.OpenAI.v1`.

    `samples = k` asks for k choices in one request, or in several where the server gives fewer. `samples = null`
    is one greedy reading as `samples = 1` is: without log-probabilities there are no exact votes.

    model: The server's name of the model.
    base_url: Where the API is, for example "http://localhost:8000/v1".
    api_key_env: The environment variable that holds the API key. None: no key is sent.
    endpoint: What to call: "chat" or "completions". None: chat if the prompt has a system message.
    guided: Send the grammar of the readings along, in the way of "vllm" or "llama.cpp", so that the server can
        write nothing else. None: no grammar.
    concurrency: How many requests may be in flight.
    timeout: Seconds that an attempt at a request may take, from connecting to the last byte.
    retries: How often a request is repeated that failed for a reason that may pass.
    max_failures: After so many requests in a row that failed for good, the run ends.
    max_tokens: The most tokens of a response. None: as many as the sentence's longest reading can have.
    extra_body: More settings for the server, which replace ours; one that is null is left out.
    RAISES: ValueError for settings out of range.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        api_key_env: str | None = None,
        endpoint: Endpoint | None = None,
        guided: Guided | None = None,
        concurrency: int = 16,
        timeout: float = 60.0,
        retries: int = 5,
        max_failures: int = 20,
        max_tokens: int | None = None,
        extra_body: dict[str, Any] | None = None,
    ) -> None:
        if (
            min(concurrency, max_failures, 1 if max_tokens is None else max_tokens) < 1
            or not timeout > 0
            or retries < 0
            or endpoint not in (None, *get_args(Endpoint))
            or guided not in (None, *get_args(Guided))
        ):
            settings = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
            raise ValueError(Errors.E192.format(settings=settings))
        super().__init__()
        self.model = model
        self.base_url = base_url
        self.api_key_env = api_key_env
        self.endpoint = endpoint
        self.guided = guided
        self.concurrency = concurrency
        self.timeout = timeout
        self.retries = retries
        self.max_failures = max_failures
        self.max_tokens = max_tokens
        self.extra_body = dict(extra_body or {})
        self._takes_n = True  # until the server shows that it gives one choice at a time

    def __str__(self) -> str:
        return f"{self.model} at {self.base_url}"

    def fingerprint(self) -> str:
        """Give what the model's answers depend on, as far as it is known here: the server, and what it is told."""
        settings = (self.base_url, self.model, self.endpoint, self.guided, self.max_tokens, self.extra_body)
        return json.dumps(settings, sort_keys=True)

    def warm_up(self) -> None:
        """Import the client and look for the API key; the server is not asked.

        RAISES: ImportError without the client; ValueError without the key.
        """
        self._importable()

    def respond_to(self, requests: Iterable[Request], prompt: Prompt, voting: Voting) -> Iterator[Responses]:
        """Let the server answer requests, see `TextModel.respond_to`.

        RETURNS: The responses, in order; a ConnectionError where a request failed for good.
        RAISES: ImportError without the client; ValueError without the key, before a request is taken;
            ModelUnavailableError if too many requests fail in a row, or the server refuses the key or the model.
        """
        client = self._client()

        def answer(request: Request) -> Coroutine[Any, Any, list[str]]:
            return self._answer(client, request, prompt, voting)

        def outage(error: Exception) -> ModelUnavailableError:
            cause = error.__cause__ or error
            return ModelUnavailableError(Errors.E194.format(n=self.max_failures, url=self.base_url, error=cause))

        return in_order(requests, answer, self.concurrency, self.max_failures, outage, client.close)

    def _importable(self) -> tuple[type["AsyncOpenAI"], str]:
        """Give the client's class, and the API key."""
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise ImportError(Errors.E190) from error
        return AsyncOpenAI, api_key(self.api_key_env) or "none"  # the client wants one

    def _client(self) -> "AsyncOpenAI":
        client_type, key = self._importable()
        # Its own retries know neither bodies that are no completion nor a time limit for the whole of a body.
        client = client_type(api_key=key, base_url=self.base_url, max_retries=0, timeout=self.timeout)
        # What it took from OPENAI_ORG_ID and others is not for this server.
        client.organization = client.project = None
        client._custom_headers = {}
        return client

    async def _answer(self, client: "AsyncOpenAI", request: Request, prompt: Prompt, voting: Voting) -> list[str]:
        """Give as many responses to a request as `samples` asks for.

        RAISES: ConnectionError if the server does not give them; ModelUnavailableError if it never will.
        """
        k = voting.samples or 1
        body = self._body(request, prompt)
        responses: list[str] = []
        try:
            while len(responses) < k:
                n = k - len(responses) if self._takes_n else 1
                if k > 1:
                    body |= {"temperature": voting.temperature, "seed": voting.seed + len(responses)}
                    body |= _ALL_TOKENS if self.guided else {}
                try:
                    choices = await self._post(client, {**body, "n": n} if n > 1 else body)
                except _RefusedError:
                    if n == 1:
                        raise
                    choices = await self._post(client, body)  # if it goes, it was the number that was refused
                if len(choices) < n:
                    self._takes_n = False
                responses += choices[:n]
        except (_RefusedError, TemporaryError) as error:
            text = _shorten(request.sentence.text, 60)
            raise ConnectionError(Errors.E193.format(url=self.base_url, text=text, error=error)) from error
        return responses

    def _body(self, request: Request, prompt: Prompt) -> dict[str, Any]:
        """Write a request for one greedy response."""
        text, scheme = prompt(request), scheme_of(prompt)
        body: dict[str, Any] = {"temperature": 0.0, "max_tokens": self.max_tokens or _longest(request, scheme)}
        if self.endpoint == "chat" or (self.endpoint is None and text.system is not None):
            system = [] if text.system is None else [{"role": "system", "content": text.system}]
            body["messages"] = [*system, {"role": "user", "content": text.text}]
        else:
            body["prompt"] = as_text(text)
        if self.guided == "vllm":
            body["structured_outputs"] = {"grammar": to_gbnf(request, scheme)}
        elif self.guided == "llama.cpp":
            body["grammar"] = to_gbnf(request, scheme)
        return body

    async def _post(self, client: "AsyncOpenAI", body: dict[str, Any]) -> list[str]:
        """Send a request, again if need be, and give the texts of its choices, at least one.

        RAISES: TemporaryError if it failed `retries` + 1 times; _RefusedError; ModelUnavailableError.
        """
        return await persist(lambda: self._post_once(client, body), self.timeout, self.retries)

    async def _post_once(self, client: "AsyncOpenAI", body: dict[str, Any]) -> list[str]:
        from openai import APIConnectionError, APIStatusError

        body = {key: value for key, value in {**body, **self.extra_body}.items() if value is not None}
        chat = "messages" in body
        endpoint: Any = client.chat.completions if chat else client.completions
        read = {key: body[key] for key in ("messages", "prompt") if key in body}
        rest = {key: value for key, value in body.items() if key not in read}
        try:
            raw = await endpoint.with_raw_response.create(model=self.model, **read, extra_body=rest)
        except APIStatusError as error:
            reason = _shorten(str(error), 300)
            if error.status_code in _UNAVAILABLE:
                kind = "chat" if chat else "completions"
                message = Errors.E195.format(url=self.base_url, endpoint=kind, error=reason)
                raise ModelUnavailableError(message) from error
            if is_temporary(error.status_code):
                raise TemporaryError(reason, retry_after(error.response.headers.get("retry-after"))) from error
            raise _RefusedError(reason) from error
        except APIConnectionError as error:
            raise TemporaryError(repr(error.__cause__ or error)) from error
        return _texts(raw.text, chat)


class _RefusedError(Exception):
    """A request that the server does not take, whenever it is sent."""


def _texts(body: str, chat: bool) -> list[str]:
    """Read the texts of a completion's choices; that of a choice without text (a refusal) is empty.

    RAISES: TemporaryError if it is none, or has no choices, or one that failed while it was written.
    """
    try:
        choices = json.loads(body)["choices"]
        texts = [_text(choice["message"].get("content") if chat else choice.get("text")) for choice in choices]
        if not texts or any(each.get("error") or each.get("finish_reason") in _FAILED for each in choices):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise TemporaryError(Errors.E196.format(body=_shorten(body, 200))) from None
    return texts


_FAILED = ("error", "abort")  # why a gateway or a server gave up, with a status that says that all is well


def _text(content: Any) -> str:
    """Read a text: null is none, and of a list of parts it is what those of the type `text` hold."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if content is not None and not isinstance(content, str):
        raise TypeError
    return content or ""


def _longest(request: Request, scheme: MarkingScheme) -> int:
    """Give a number of tokens that no reading exceeds: its bytes, if each word is a mention, and some to spare."""
    markers = max(len("".join(scheme[label]).encode()) for label, _ in request.labels)
    return len(request.sentence.text.encode()) + len(request.sentence.words) * markers + 32


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}..."

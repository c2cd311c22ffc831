"""A vLLM server as an engine: each row is one request, which asks for the scores of the choices and nothing else.

The server reads a row as a prompt, and gives the log-probabilities of the ids that we name at the places that we
name (`prompt_logprob_token_ids` of `/inference/v1/generate`, vLLM 0.32). The likeliest ids would not do: markers
are often not among them. Log-probabilities differ from logits by a number that is the same for all choices of a
decision, and so serve as logits do.

What was read before a row is the ids themselves, sent again. The server takes them from its prefix cache if it has
them: scores are asked for from the first decision on only, so nothing before it has to be computed again.
"""

import asyncio
import base64
import binascii
import io
import os
import threading
import weakref
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar, cast

import httpx
import numpy as np

from ..errors import Errors, ModelUnavailableError
from .inflight import end_tasks
from .retries import TemporaryError, is_temporary, persist, retry_after
from .scoring import Row, Scored

T = TypeVar("T")

GENERATE = "/inference/v1/generate"
TRIAL = Row(None, (0, 0), ((1, (0, 1)),))
"""What any model can score."""


class ServerScores(NamedTuple):
    """What a batch of rows gave, see `scoring.Scores`."""

    rows: Sequence[Row]
    logits: Sequence[Scored]

    def past(self, row: int, n_ids: int) -> tuple[int, ...]:
        """Give the ids that were read: that is all there is to keep."""
        return (*_before(self.rows[row]), *self.rows[row].ids[:n_ids])


class Server:
    """Scores continuations with a model that vLLM serves. Threads may share it.

    Requests go out from a thread of its own, which ends with it; one that nobody waits for any more is cancelled,
    here and on the server.

    base_url: Where the server is, such as `http://localhost:8000`, with or without `/v1`.
    model: The name under which the model, or a LoRA module of it, is served. None: the only one that is.
    api_key: The key, if the server wants one.
    concurrency: How many requests can be under way at a time, of all threads together.
    timeout: How many seconds an attempt may take, to the last byte of the answer.
    retries: How many more attempts a request has, where the server does not answer, is busy or fails.
    """

    efficient = 1  # each row is a batch, and goes out as soon as there is room

    def __init__(
        self, base_url: str, model: str | None, api_key: str | None, concurrency: int, timeout: float, retries: int
    ) -> None:
        self.url = base_url.rstrip("/").removesuffix("/v1")
        self.at_once = concurrency
        self.model = model
        self._timeout, self._retries = timeout, retries
        self._slots = asyncio.Semaphore(concurrency)  # to wait for one is no part of an attempt
        try:
            self._client = httpx.AsyncClient(
                base_url=self.url,
                headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
                timeout=None,
                limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            )
        except httpx.InvalidURL as error:
            raise ValueError(Errors.E180.format(url=self.url, reason=error)) from error
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop,), name="nerllama-server", daemon=True)
        self._thread.start()
        self.close = weakref.finalize(self, _close, self._loop, self._client, os.getpid())
        """Disconnect; what is under way is cancelled. Done at the latest when nobody has the server any more."""

    def connect(self) -> None:
        """Ask the server what it serves, and whether it can score.

        RAISES: ConnectionError if there is no server, or it does not answer; PermissionError if it does not know
            the key; ValueError if it does not serve the model, or cannot score.
        """
        self._wait(self._check())

    async def _check(self) -> None:
        try:
            answer = await self._request("GET", "/v1/models")
        except ConnectionError as error:
            failed = error.__cause__
            if failed and isinstance(failed.__cause__, httpx.RequestError):  # else something is there
                raise ConnectionError(Errors.E180.format(url=self.url, reason=failed)) from error
            raise
        data = answer.get("data")
        if not isinstance(data, list) or not all(isinstance(card, dict) for card in data):
            raise ValueError(Errors.E188.format(url=self.url, reason="no list of models"))
        cards = {str(card.get("id")): card for card in data}
        if self.model is None and sum(card.get("parent") is None for card in cards.values()) == 1:
            self.model = next(name for name, card in cards.items() if card.get("parent") is None)
        if self.model not in cards:
            raise ValueError(Errors.E183.format(url=self.url, model=self.model, served=", ".join(cards)))
        card = cards[self.model]
        base = cards.get(str(card.get("parent")), card)  # a LoRA module does not tell these
        if not isinstance(base.get("max_model_len"), int):
            raise ValueError(Errors.E184.format(url=self.url, reason="it does not tell its max_model_len"))
        self.root = str(base.get("root"))
        # One id is generated, since none cannot be asked for, and one follows the last decision.
        self.context = base["max_model_len"] - 2
        await self._logits(TRIAL)

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Give the ids of a text by the server's tokenizer."""
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        tokens = self._wait(self._request("POST", "/tokenize", body)).get("tokens")
        if not isinstance(tokens, list):
            raise ValueError(Errors.E188.format(url=self.url, reason="no tokens"))
        return tuple(tokens)

    def prefix(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Give the past of ids: themselves."""
        return ids

    def submit(self, rows: Sequence[Row]) -> "Future[Any]":
        """Begin to read rows: they are sent, and their scores come in later.

        RETURNS: The scores. Its error is a ConnectionError where the server did not answer, a ValueError where it
            refused; a ModelUnavailableError if that is not because of these rows, but will be so for all.
        """
        return asyncio.run_coroutine_threadsafe(self._score(rows), self._loop)

    def _wait(self, request: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(request, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # where the wait was interrupted

    async def _score(self, rows: Sequence[Row]) -> ServerScores:
        try:
            return ServerScores(rows, await asyncio.gather(*map(self._logits, rows)))
        except Exception:  # raised again below, whatever it is: but is it of these rows, or of the server?
            try:
                await self._check()
            except Exception as outage:
                raise ModelUnavailableError(str(outage)) from outage
            raise

    async def _logits(self, row: Row) -> Scored:
        if not row.asks:
            return np.zeros((0, 0), np.float32)
        before = _before(row)
        (first, _), (last, choices) = row.asks[0], row.asks[-1]
        wanted: list[tuple[int, ...]] = [()] * (last - first + 1)
        for i, legal in row.asks:
            wanted[i - first] = legal
        # The server scores what may follow an id only if another follows it in the prompt, whichever.
        ids = (*before, *row.ids[: last + 1], choices[0])
        for skip in (False, True):
            body = {
                "model": self.model,
                "token_ids": ids,
                "sampling_params": {
                    "max_tokens": 1,
                    "temperature": 0.0,
                    "detokenize": False,
                    "prompt_logprob_start": len(before) + first,
                    "prompt_logprob_token_ids": wanted,
                    "skip_reading_prefix_cache": skip,
                },
            }
            answer = await self._request("POST", GENERATE, body)
            if (scores := answer.get("prompt_token_id_logprobs")) is not None:
                return self._array(scores, (len(wanted), max(map(len, wanted))), [i - first for i, _ in row.asks])
            # It has read this very row before, and has given what it knows of it from its cache: no scores.
        raise ValueError(Errors.E184.format(url=self.url, reason="it gives no prompt_token_id_logprobs"))

    def _array(self, text: str, shape: tuple[int, int], asked: list[int]) -> Scored:
        """Read the rows that were asked for out of an array, in each of which something is possible."""
        try:
            array = np.lib.format.read_array(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
        except (binascii.Error, ValueError, TypeError, MemoryError) as error:
            raise ValueError(Errors.E188.format(url=self.url, reason=error)) from error
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array[asked].max(axis=1)).all():
            reason = f"scores of the shape {array.shape} and type {array.dtype} for {shape}, or not numbers"
            raise ValueError(Errors.E188.format(url=self.url, reason=reason))
        return cast(Scored, array[asked])

    async def _request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Send a request, several times if need be.

        RETURNS: The object that the server answers with.
        RAISES: ConnectionError if it gave none; PermissionError, ValueError if it refused.
        """
        try:
            async with self._slots:
                return await persist(lambda: self._attempt(method, path, body), self._timeout, self._retries)
        except TemporaryError as error:
            raise ConnectionError(Errors.E181.format(url=self.url, n=self._retries + 1, reason=error)) from error

    async def _attempt(self, method: str, path: str, body: Any) -> dict[str, Any]:
        try:
            response = await self._client.request(method, path, json=body)
        except httpx.RequestError as error:
            raise TemporaryError(f"{type(error).__name__} {error}".strip()) from error
        if is_temporary(response.status_code):
            wait = retry_after(response.headers.get("Retry-After"))
            raise TemporaryError(f"{response.status_code} {_message(response)}", wait)
        if not response.is_success:
            raise self._refusal(response, path)
        try:
            answer = response.json()
        except (ValueError, RecursionError) as error:
            raise TemporaryError(f"not JSON, {error}") from error
        if not isinstance(answer, dict) or answer.get("error"):
            raise TemporaryError(f"{response.status_code} without an answer, {response.text[:200]}")
        return answer

    def _refusal(self, response: httpx.Response, path: str) -> Exception:
        code, reason = response.status_code, _message(response)
        if code == 401 or (code == 403 and "scale-out" not in reason.casefold()):  # which vLLM has to be told
            return PermissionError(Errors.E182.format(url=self.url, reason=reason))
        if code == 404 and "does not exist" in reason:
            return ValueError(Errors.E183.format(url=self.url, model=self.model, served=reason))
        if code in (403, 404, 405) or "prompt_logprob_token_ids requires" in reason:
            return ValueError(Errors.E184.format(url=self.url, reason=f"{path}: {code} {reason}"))
        return ValueError(Errors.E187.format(url=self.url, code=code, reason=reason))


def _before(row: Row) -> tuple[int, ...]:
    return cast(tuple[int, ...], row.past or ())


def _message(response: httpx.Response) -> str:
    """Give what the server says of an error."""
    try:
        error = response.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        return response.reason_phrase


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _close(loop: asyncio.AbstractEventLoop, client: httpx.AsyncClient, process: int) -> None:
    """Cancel what is under way, and end the thread of a loop. It may be that very thread that calls this."""

    async def close() -> None:
        await end_tasks(client.aclose)
        loop.stop()

    if process == os.getpid():  # a forked process has no such thread
        loop.call_soon_threadsafe(lambda: loop.create_task(close()))

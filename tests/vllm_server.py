"""A server that speaks as vLLM 0.32 does where we talk to it, on a tiny Llama, and misbehaves when told to.

What vLLM refuses is refused here too, with the same status and about the same words: see its
`entrypoints/scale_out/token_in_token_out` and `SamplingParams`.
"""

import base64
import io
import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch

MAX_LOGPROBS = 20


class FakeVLLM(ThreadingHTTPServer):
    """The server. It answers until it is closed.

    model, encoder: The Llama that computes the answers, and what encodes text for it.
    root: What it says it serves.
    api_key: The key that it wants, if any.
    mishaps: What goes wrong with the next requests for scores: a status, "close", "truncated", "garbage",
        "deep", "trickle", or seconds to wait; None for nothing. Each is used once.
    blips: How many of the next requests for what it serves are answered with 503.
    asked: What it was asked to score, also where it refused; `bodies` holds what it answered.
    gone: Whether it answers nothing any more, also on connections that are open.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, model: Any, encoder: Any, root: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.encoder = model, encoder
        self.api_key: str | None = None
        self.cards: list[dict[str, Any]] = [
            {"id": "tiny", "root": root, "parent": None, "max_model_len": 4096},
            {"id": "lora", "root": "/adapter", "parent": "tiny", "max_model_len": None},
        ]
        self.refuse: dict[str, tuple[int, str]] = {}  # by path
        self.forbidden_id: int | None = None
        self.ignores_scores = False
        self.caches = False
        self.mishaps: deque[int | float | str | None] = deque()
        self.headers: dict[str, str] = {}
        self.blips = 0
        self.asked: list[dict[str, Any]] = []
        self.bodies: list[dict[str, Any]] = []
        self.attempts = 0
        self.gone = False
        self.most = 0
        self._now = 0
        self._read: set[tuple[int, ...]] = set()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that went away are none of our business."""

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer a request for scores."""
        ids, params = body["token_ids"], body["sampling_params"]
        wanted, start = params["prompt_logprob_token_ids"], params["prompt_logprob_start"]
        vocabulary = self.model.config.vocab_size
        if body["model"] not in [card["id"] for card in self.cards]:
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        if len(ids) + params["max_tokens"] > self.cards[0]["max_model_len"]:
            raise Refused(400, f"The decoder prompt (length {len(ids)}) is longer than the maximum model length")
        if max(ids) >= vocabulary or self.forbidden_id in ids:
            raise Refused(400, f"Token id {max(ids)} is out of vocabulary")
        width = max(map(len, wanted))
        if len(wanted) != len(ids) - 1 - start or not 0 < width <= MAX_LOGPROBS or params["max_tokens"] < 1:
            raise Refused(400, f"prompt_logprob_token_ids has {len(wanted)} rows and {width} ids")
        scores = None
        if not self.ignores_scores and (params["skip_reading_prefix_cache"] or tuple(ids) not in self._read):
            with self._lock, torch.inference_mode():
                hidden = self.model.get_decoder()(torch.tensor([ids])).last_hidden_state[0, start:-1]
                places = [i for i, choices in enumerate(wanted) if choices]
                logprobs = self.model.get_output_embeddings()(hidden[places]).log_softmax(-1).numpy()
            scores = np.full((len(wanted), width), -np.inf, np.float32)
            for i, row in zip(places, logprobs, strict=True):
                scores[i, : len(wanted[i])] = row[wanted[i]]
        if self.caches:
            self._read.add(tuple(ids))
        text = None
        if scores is not None:
            file = io.BytesIO()
            np.save(file, scores)
            text = base64.b64encode(file.getvalue()).decode()
        return {"model": body["model"], "choices": [{"token_ids": [0]}], "prompt_token_id_logprobs": text}

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count how many requests are under way."""
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1


class Refused(Exception):  # noqa: N818 (it is an answer)
    """A request is refused: status and message."""


class Handler(BaseHTTPRequestHandler):
    """Answers requests."""

    server: FakeVLLM
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer what is served."""
        self._guarded(self._models)

    def do_POST(self) -> None:
        """Answer ids, or scores."""
        if self.path == "/tokenize":
            piece = self.server.encoder.piece
            self._guarded(lambda body: {"tokens": list(piece(body["prompt"]))})
        elif self.path == "/inference/v1/generate":
            with self.server.counted():
                self._guarded(self._generate)
        else:
            self._guarded(lambda body: self._fail(404, "Not Found"))

    def _fail(self, status: int, message: str) -> Any:
        raise Refused(status, message)

    def _models(self, body: None) -> Any:
        server = self.server
        if server.blips:
            server.blips -= 1
            self._fail(503, "not now")
        return {"object": "list", "data": server.cards}

    def _generate(self, body: dict[str, Any]) -> Any:
        server = self.server
        server.attempts += 1
        server.asked.append(body)
        mishap = server.mishaps.popleft() if server.mishaps else None
        if isinstance(mishap, float):
            time.sleep(mishap)
        elif isinstance(mishap, int):
            self._fail(mishap, "the engine is not well")
        elif mishap == "close":
            self.close_connection = True
            return None
        answer = server.generate(body)
        server.bodies.append(body)
        if mishap == "trickle":  # no read alone takes long
            self._send(200, "", length=300)
            for _ in range(300):
                self.wfile.write(b" ")
                time.sleep(0.1)
            self.close_connection = True
            return None
        if isinstance(mishap, str):
            text = {"truncated": json.dumps(answer)[:40], "garbage": "<html>gateway</html>", "deep": "[" * 100_000}
            self._send(200, text[mishap], length=400 if mishap == "truncated" else None)
            self.close_connection = True
            return None
        return answer

    def _guarded(self, answer: Any) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.gone:
            self.close_connection = True
            return
        try:
            key = self.server.api_key
            if key and self.headers.get("Authorization") != f"Bearer {key}":
                self._fail(401, "Unauthorized")
            if self.path in self.server.refuse:
                self._fail(*self.server.refuse[self.path])
            content = answer(json.loads(text or "null"))
            if content is not None:
                self._send(200, json.dumps(content))
        except Refused as refused:
            status, message = refused.args
            self._send(status, json.dumps({"error": {"message": message, "code": status}}))

    def _send(self, status: int, text: str, length: int | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length or len(data)))
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(model: Any, encoder: Any, root: str) -> Iterator[FakeVLLM]:
    """Serve a model from another thread."""
    server = FakeVLLM(model, encoder, root)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.gone = True
        server.shutdown()
        server.server_close()
        thread.join()


def token_ids(bodies: Sequence[dict[str, Any]]) -> list[tuple[int, ...]]:
    """What was sent to be read."""
    return [tuple(body["token_ids"]) for body in bodies]

"""A server of OpenAI's API that marks what it is asked for, and misbehaves on purpose."""

import json
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

WORD = re.compile(r"\bataxia\d*\b")

Fault = Callable[["Handler"], None]


def mark(sentence: str) -> str:
    """What the server answers when it behaves."""
    return WORD.sub(r"@@\g<0>##", sentence)


class Server:
    """The server, on a port of this machine, as a context manager.

    faults: The share of requests that each fault takes. A request is drawn by the seed, its text and how often it
        was sent, so a fault may pass when the request is sent again.
    lasting: Texts for which the fault is the same whenever they are sent.
    max_n: The most choices that it gives at once.
    """

    def __init__(
        self,
        faults: Mapping[str, float] | None = None,
        lasting: Mapping[str, str] | None = None,
        max_n: int = 100,
        answer: Callable[[str], str] = mark,
    ) -> None:
        self.faults, self.lasting, self.max_n, self.answer = dict(faults or {}), dict(lasting or {}), max_n, answer
        self.refuses_n = False
        self.bodies: list[dict[str, Any]] = []
        self.seen: Counter[str] = Counter()
        self.did: Counter[str] = Counter()
        self.headers: list[Mapping[str, str]] = []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self._server.owner = self
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "Server":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()

    def fault_of(self, sentence: str) -> str | None:
        """Draw what goes wrong with a request, if anything."""
        with self.lock:
            self.seen[sentence] += 1
            times = self.seen[sentence]
        if sentence in self.lasting:
            return self.lasting[sentence]
        drawn = random.Random(f"{sentence} {times}").random()
        for name, share in self.faults.items():
            drawn -= share
            if drawn < 0:
                return name
        return None


class _QuietServer(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128
    owner: Server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: _QuietServer

    def do_POST(self) -> None:
        """Answer a request, or not."""
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = self.path.endswith("/chat/completions")
        read = body["messages"][-1]["content"] if chat else body["prompt"]
        sentence = read.removesuffix("\nMark disease:\n").split("Input:\n")[-1]
        with owner.lock:
            owner.bodies.append(body)
            owner.headers.append({name.lower(): value for name, value in self.headers.items()})
            owner.in_flight += 1
            owner.most_in_flight = max(owner.most_in_flight, owner.in_flight)
        fault = "400" if owner.refuses_n and "n" in body else owner.fault_of(sentence)
        with owner.lock:
            owner.did[fault or "answered"] += 1
        try:
            if fault is None:
                self.send(self.completion(owner.answer(sentence), body.get("n", 1), chat))
            else:
                FAULTS[fault](self)
        finally:
            with owner.lock:
                owner.in_flight -= 1

    def completion(self, text: str | None, n: int, chat: bool = False) -> str:
        """Write choices as the API does."""
        n = min(n, self.server.owner.max_n)
        choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        return json.dumps(
            {"id": "1", "choices": [{"index": i, "finish_reason": "stop", **choice} for i in range(n)]}
        )

    def send(self, body: str, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        """Send a whole response."""
        self.begin(len(body.encode()), status, kind, **headers)
        self.wfile.write(body.encode())

    def begin(self, length: int, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        """Send the head of a response."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _error(status: int, **headers: str) -> Fault:
    body = json.dumps({"error": {"message": f"on purpose, {status}", "type": "test"}})
    return lambda handler: handler.send(body, status, **headers)


def _hang(handler: Handler) -> None:
    handler.server.owner.ending.wait(60)
    handler.close_connection = True


def _close(handler: Handler) -> None:
    """Hang up at once, with a reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def _close_in_the_body(handler: Handler) -> None:
    handler.begin(1000)
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def _slow_body(handler: Handler) -> None:
    """Send a byte now and then, so that no read alone takes long."""
    body = handler.completion("never", 1).encode()
    handler.begin(len(body))
    for byte in body:
        handler.wfile.write(bytes([byte]))
        if handler.server.owner.ending.wait(0.05):
            break
    handler.close_connection = True


def _dated(handler: Handler) -> None:
    _error(429, Retry_After=formatdate(time.time() + 1, usegmt=True))(handler)


FAULTS: dict[str, Fault] = {
    "timeout": _hang,
    "429": _error(429),
    "429 with seconds": _error(429, Retry_After="0.02"),
    "429 with a date": _dated,
    "429 for an hour": _error(429, Retry_After="3600"),
    "500": _error(500),
    "503": _error(503, Retry_After="soon"),
    "closed": _close,
    "closed in the body": _close_in_the_body,
    "slow body": _slow_body,
    "truncated JSON": lambda handler: handler.send(handler.completion("x", 1)[:-20]),
    "HTML": lambda handler: handler.send("<html><body>Bad gateway</body></html>", kind="text/html"),
    "HTML 502": lambda handler: handler.send("<html>" + "<p>Bad gateway</p>" * 1000, 502, "text/html"),
    "no choices": lambda handler: handler.send('{"choices": []}'),
    "null": lambda handler: handler.send("null"),
    "deep": lambda handler: handler.send("[" * 100_000),
    "wrong text": lambda handler: handler.send(handler.completion("I am a teapot.", 100)),
    "400": _error(400),
    "401": _error(401),
    "404": _error(404),
}

"""A served model, `nerllama.VLLM.v1`: marked decoding on a vLLM server."""

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import Errors
from ..prompts import Prompt
from ..requests import Request
from ..voting import Votes, Voting
from .adapter import CONFIG, META, WEIGHTS, Adapter
from .tasks import MarksTasks

if TYPE_CHECKING:
    from .server import Server
    from .tokens import TextEncoder

PROBE = "Mutations of the @@ATM## gene (11q22.3) cause ataxia-telangiectasia: TGF-β1, 5'-UTR, 37 °C.\n"

_OWN = ("_lock", "_connected", "_process", "_named")
"""What a copy or another process makes for itself."""


class _Connected(NamedTuple):
    encoder: "TextEncoder"
    server: "Server"


class VLLM(MarksTasks):
    """A model on a vLLM server, in the place of `Llama`: the same readings and votes, over HTTP.

    base_url: Where the server is, such as `http://localhost:8000`.
    model: The name under which the model, or a LoRA module of it, is served. None: the one model that is.
    tokenizer: The model's tokenizer: a folder, a hub name or a `.gguf` file. None: that of the folder which the
        server says it serves, if it is on this machine too.
    adapter: A folder whose meta.json names labels and thresholds, as `finetune` writes it. Its weights are read
        only to go with a pipeline that is saved: the server has them.
    api_key_env: The environment variable that holds the API key. None: no key is sent.
    concurrency: How many requests can be under way at a time.
    timeout: How many seconds an attempt may take, to the last byte of the answer.
    retries: How many more attempts a request has, where the server does not answer, is busy or fails.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        tokenizer: str | None = None,
        adapter: str | None = None,
        api_key_env: str | None = None,
        concurrency: int = 32,
        timeout: float = 60.0,
        retries: int = 4,
    ) -> None:
        if concurrency < 1 or not timeout > 0 or retries < 0:
            raise ValueError(Errors.E189.format(concurrency=concurrency, timeout=timeout, retries=retries))
        self._base_url, self._model, self._key = base_url, model, api_key_env
        self._tokenizer, self.adapter_name = tokenizer, adapter
        self._limits = (concurrency, timeout, retries)
        self._brought: Adapter | None = None
        self._lock = threading.Lock()
        self._connected: _Connected | None = None
        self._process = os.getpid()

    @property
    def adapter(self) -> Adapter | None:
        """The adapter that a pipeline brought, or that of the setting; only labels and thresholds are used here.

        RAISES: FileNotFoundError if the folder of the setting `adapter` has no meta.json.
        """
        return self._named if self._brought is None else self._brought

    @cached_property
    def _named(self) -> Adapter | None:
        """The adapter of the setting, read once; without weights where they are not here."""
        if self.adapter_name is None:
            return None
        folder = Path(self.adapter_name).expanduser()
        whole = all((folder / name).is_file() for name in (CONFIG, WEIGHTS, META))
        return Adapter.from_folder(folder) if whole else Adapter({}, b"", self._meta)

    @property
    def meta(self) -> dict[str, Any]:
        """What is known of the adapter, as its labels and thresholds; empty while it is not here."""
        if self._brought is not None:
            return self._brought.meta
        try:
            return self._meta
        except FileNotFoundError:
            return {}

    @cached_property
    def _meta(self) -> dict[str, Any]:
        if self.adapter_name is None:
            return {}
        path = Path(self.adapter_name).expanduser() / META
        if not path.is_file():
            raise FileNotFoundError(Errors.E043.format(path=path.parent, file=META))
        meta: dict[str, Any] = json.loads(path.read_text("utf8"))
        return meta

    def set_adapter(self, adapter: Adapter | None) -> None:
        """Keep the adapter that a pipeline brings: only its labels and thresholds are used."""
        self._brought = adapter
        self._connected = None

    def vote(
        self, requests: Iterable[Request], prompt: Prompt, voting: Voting, max_batch_tokens: int
    ) -> Iterator[Votes | Exception]:
        """Let the model mark requests.

        requests: The requests, taken as a stream.
        prompt: What the model reads of a request.
        voting: How readings are drawn; the vote rule is not applied here.
        max_batch_tokens: Bounds what is taken ahead of the stream, and the length of a sentence with its prompt.
        RETURNS: The votes, in the order of the requests; the error in the place of those of a request that the
            server did not answer (ConnectionError) or refused (ValueError).
        RAISES: As `load`, before a request is taken. Later, ModelUnavailableError where the server answers no
            other request either.
        """
        from .marked import try_requests

        encoder, server = self.load()
        return try_requests(requests, prompt, voting, max_batch_tokens, encoder, server)

    def load(self) -> _Connected:
        """Connect to the server and check that it can be used; done by the first `vote`.

        RAISES: ConnectionError if there is no server; PermissionError if it does not know the key; ValueError if
            the key is not set, it serves no such model, has another tokenizer, or cannot score; FileNotFoundError
            if the tokenizer or the adapter's meta.json is missing.
        """
        from .retries import api_key
        from .server import Server

        with self._lock:
            if self._connected is None or os.getpid() != self._process:
                server = Server(self._base_url, self._model, api_key(self._key), *self._limits)
                try:
                    server.connect()
                    encoder = self._encoder(server)
                except BaseException:
                    server.close()
                    raise
                self._connected, self._process = _Connected(encoder, server), os.getpid()
            return self._connected

    def _encoder(self, server: "Server") -> "TextEncoder":
        from .loading import load_tokenizer
        from .tokens import TextEncoder

        where = self._tokenizer or server.root
        if self._tokenizer is None and not Path(where).is_dir():
            raise FileNotFoundError(Errors.E185.format(url=server.url, root=where))
        encoder = TextEncoder(load_tokenizer(where))
        _ = self._brought or self._meta  # whose folder may be missing
        trained_on = self.meta.get("base", {})
        ours = encoder.fingerprint()
        if (theirs := trained_on.get("tokenizer", ours)) != ours:
            raise ValueError(
                Errors.E044.format(fact="tokenizer", adapter=theirs, base=ours, name=trained_on.get("name"))
            )
        ids = encoder.piece(PROBE)
        if (found := server.tokenize(PROBE)) != ids:
            raise ValueError(Errors.E186.format(url=server.url, tokenizer=where, theirs=found[:8], ours=ids[:8]))
        return encoder

    def fingerprint(self) -> str:
        """Give what the model's answers depend on, as far as it is known here: server, model and adapter.

        RAISES: As `load`, if the setting `model` is None: the server is asked for the name.
        """
        model = self._model or self.load().server.model
        adapter = self._brought.fingerprint if self._brought else self._folder_hash
        return json.dumps([self._base_url, model, self._tokenizer, adapter])

    @cached_property
    def _folder_hash(self) -> str | None:
        """A hash of what there is of the adapter in the folder of the setting `adapter`."""
        if self.adapter_name is None:
            return None
        files = [Path(self.adapter_name).expanduser() / name for name in (CONFIG, WEIGHTS, META)]
        return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file())).hexdigest()

    def warm_up(self) -> None:
        """Connect, so that the first doc does not wait."""
        self.load()

    def unload(self) -> None:
        """Disconnect; the next `vote` connects again. A `vote` that is going on keeps its connections."""
        with self._lock:
            self._connected = None

    def __getstate__(self) -> dict[str, Any]:
        """Give what a copy or another process needs; it connects and reads the adapter for itself."""
        return {key: value for key, value in vars(self).items() if key not in _OWN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _connected=None, _process=os.getpid())

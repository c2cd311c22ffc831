"""The local model, `nerllama.Llama.v1`: a Llama-family base with an optional adapter, loaded on first use."""

import gc
import os
import threading
from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..errors import Errors
from ..prompts import Prompt
from ..requests import Request
from ..voting import Votes, Voting
from .adapter import Adapter

if TYPE_CHECKING:
    from .engine import Engine
    from .tokens import TextEncoder

BUNDLED_ADAPTER = "smollm2-135m"


class _Loaded(NamedTuple):
    encoder: "TextEncoder"
    engine: "Engine"


class Llama:
    """A local model.

    name: The base: a folder, a hub name or a `.gguf` file. None: the bundled base.
    adapter: The folder or hub name of an adapter. None: the bundled adapter on the bundled base, else none.
    quantization, dtype, device: As `load_base` takes them.
    """

    def __init__(
        self,
        name: str | None = None,
        adapter: str | None = None,
        quantization: Literal["nf4"] | None = None,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        device: str = "auto",
    ) -> None:
        self._base: dict[str, Any] = {"name": name, "quantization": quantization, "dtype": dtype, "device": device}
        self._adapter_name = adapter
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self._process = os.getpid()

    @cached_property
    def adapter(self) -> Adapter | None:
        """The adapter; its files are read when it is first asked for, its base is not loaded."""
        if self._adapter_name is not None:
            return Adapter.from_folder(_adapter_folder(self._adapter_name))
        if self._base["name"] is None:
            return Adapter.from_folder(Path(str(files("spacy_nerllama") / "assets" / BUNDLED_ADAPTER)))
        return None

    @property
    def meta(self) -> dict[str, Any]:
        """What is known of the adapter (see `Adapter.meta`); empty without one.

        It is empty too while the adapter is not on this machine: asking fetches nothing. spaCy asks for labels
        when a pipeline is read, before the pipeline has brought its adapter.
        """
        if "adapter" not in vars(self) and self._adapter_name is not None:
            try:
                _adapter_folder(self._adapter_name, local_files_only=True)
            except OSError:
                return {}
        return self.adapter.meta if self.adapter else {}

    def set_adapter(self, adapter: Adapter | None) -> None:
        """Replace the adapter, as a saved pipeline does with the one it brings."""
        self.adapter = adapter
        self._loaded = None

    def vote(
        self, requests: Iterable[Request], prompt: Prompt, voting: Voting, max_batch_tokens: int
    ) -> Iterator[Votes]:
        """Let the model mark requests.

        requests: The requests, taken as a stream.
        prompt: What the model reads of a request.
        voting: How readings are drawn; the vote rule is not applied here.
        max_batch_tokens: The most tokens in a batch.
        RETURNS: The votes, in the order of the requests.
        RAISES: FileNotFoundError if base or adapter are missing; ValueError if they do not fit each other.
        """
        from .marked import mark_requests

        encoder, engine = self.load()
        return mark_requests(requests, prompt, voting, max_batch_tokens, encoder, engine)

    def load(self) -> _Loaded:
        """Load the model, once; done by the first `vote`."""
        import torch

        with self._lock:
            if os.getpid() != self._process:
                # In a forked worker the threads of the parent's OpenMP pool are gone: waiting for them would hang.
                torch.set_num_threads(1)
                if torch.cuda._is_in_bad_fork() and self._base["device"] != "cpu":
                    raise RuntimeError(Errors.E046)
            if self._loaded is None:
                from .engine import Engine
                from .loading import load_base
                from .tokens import TextEncoder

                base, tokenizer = load_base(**self._base)
                encoder = TextEncoder(tokenizer)
                model: Any = self.adapter.put_on(base, encoder) if self.adapter else base
                engine = Engine(model)  # it refuses an adapter of the output head, which merging would hide
                if self.adapter and getattr(base.config, "quantization_config", None) is None:
                    engine = Engine(model.merge_and_unload())  # saves two small products for each large one
                self._loaded = _Loaded(encoder, engine)
            return self._loaded

    def warm_up(self) -> None:
        """Load the model and read a token with it, so that the first doc does not wait."""
        from .engine import Row

        self.load().engine.score([Row(None, (0,), ())])

    def unload(self) -> None:
        """Give the model's memory back; the next `vote` loads it again. A `vote` that is going on keeps it."""
        import torch

        with self._lock:
            self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def __getstate__(self) -> dict[str, Any]:
        """Give what a copy or another process needs; it loads base and adapter for itself."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_lock", "_loaded", "_process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _loaded=None, _process=os.getpid())


def _adapter_folder(name: str, local_files_only: bool = False) -> Path:
    """Find an adapter: a folder, or a hub name, which is fetched unless it is there already.

    RAISES: FileNotFoundError if there is no such folder; OSError if it is not to be had.
    """
    from .adapter import CONFIG, META, WEIGHTS

    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise FileNotFoundError(Errors.E043.format(path=path, file=CONFIG))
    from huggingface_hub import snapshot_download

    wanted = [CONFIG, META, WEIGHTS]
    return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=local_files_only))

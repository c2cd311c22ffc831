"""The local model, `nerllama.Llama.v1`: a Llama-family base with an optional adapter, loaded on first use."""

import gc
import json
import os
import threading
import warnings
import weakref
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..base import BUNDLED
from ..errors import Errors
from ..prompts import Prompt
from ..requests import Request
from ..voting import Votes, Voting
from .adapter import Adapter
from .tasks import MarksTasks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .engine import Engine
    from .tokens import TextEncoder

BUNDLED_ADAPTER = "smollm2-135m"


class _Base:
    """A base in memory, whose weights nobody changes, for all models that name it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from .loading import keep_unpacked, load_base
        from .tokens import TextEncoder

        self.model, tokenizer = load_base(**settings)
        keep_unpacked(self.model, fitting=True)  # packed weights are other weights
        self.encoder = TextEncoder(tokenizer)


class _Loaded(NamedTuple):
    """A model that reads.

    base: The base whose weights it shares. None: it has weights of its own, perhaps with the adapter merged.
    trainable: Whether its adapter can be trained.
    """

    encoder: "TextEncoder"
    engine: "Engine"
    base: _Base | None
    trainable: bool


_models: "weakref.WeakSet[Llama]" = weakref.WeakSet()
_bases: "weakref.WeakValueDictionary[tuple[str, ...], _Base]" = weakref.WeakValueDictionary()
_lock = threading.RLock()  # for all models: they look at one another when they load


class Llama(MarksTasks):
    """A local model.

    Models on the same base (name, quantisation, dtype and device) share its weights, each with its own adapter. A
    model that is alone on its base has it for itself: its adapter is merged, unless the base is quantised, which
    saves two small products for each large one. It makes way when another model on this base loads, and loads
    again, sharing, when it is next used.

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
        self._adapter: Adapter | None = None
        self._read = False
        self._trained: dict[str, Any] | None = None  # what is known of weights that `adapter` has not yet
        self._loaded: _Loaded | None = None
        self._process = os.getpid()
        with _lock:
            _models.add(self)

    @property
    def adapter(self) -> Adapter | None:
        """The adapter; its files are read when it is first asked for, its base is not loaded.

        While it is trained, it is the adapter as it is now.
        """
        self._keep()
        if not self._read:
            if self._adapter_name is not None:
                self._adapter = Adapter.from_folder(_adapter_folder(self._adapter_name))
            elif self._base["name"] is None:
                bundled = Path(str(files("spacy_nerllama") / "assets" / BUNDLED_ADAPTER))
                self._adapter = Adapter.from_folder(bundled)
            self._read = True
        return self._adapter

    @property
    def meta(self) -> dict[str, Any]:
        """What is known of the adapter (see `Adapter.meta`); empty without one.

        It is empty too while the adapter is not on this machine: asking fetches nothing. spaCy asks for labels
        when a pipeline is read, before the pipeline has brought its adapter.
        """
        if self._trained is not None:
            return self._trained
        if not self._read and self._adapter_name is not None:
            try:
                _adapter_folder(self._adapter_name, local_files_only=True)
            except OSError:
                return {}
        return self.adapter.meta if self.adapter else {}

    def set_adapter(self, adapter: Adapter | None) -> None:
        """Replace the adapter, as a saved pipeline does with the one it brings."""
        with _lock:
            self._adapter, self._read, self._trained, self._loaded = adapter, True, None, None

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

        encoder, engine, *_ = self.load()
        return mark_requests(requests, prompt, voting, max_batch_tokens, encoder, engine)

    def load(self, trainable: bool = False) -> _Loaded:
        """Load the model, once; done by the first `vote`.

        trainable: Load it so that its adapter, if it has one, can be trained.
        """
        import torch

        if os.getpid() != self._process:
            # In a forked worker the threads of the parent's OpenMP pool are gone: waiting for them would hang.
            torch.set_num_threads(1)
            if torch.cuda._is_in_bad_fork() and self._base["device"] != "cpu":
                raise RuntimeError(Errors.E046)
        loaded = self._loaded
        if loaded is None or (trainable and not loaded.trainable):
            with _lock:
                if self._loaded is None or (trainable and not self._loaded.trainable):
                    self._loaded = self._load(trainable)
                loaded = self._loaded
        return loaded

    def _load(self, trainable: bool) -> _Loaded:
        from .engine import Engine
        from .loading import base_key, load_base, share_weights
        from .tokens import TextEncoder

        adapter, key = self.adapter, base_key(**self._base)
        self._loaded = None  # what it was loaded as before
        gc.collect()  # a pipeline that was thrown away is not another model
        others = [other for other in _models if other is not self and base_key(**other._base) == key]
        for other in others:
            if other._loaded is not None and other._loaded.base is None:
                other._loaded = None  # it makes way
        shared = None
        if others or trainable:
            shared = _bases.get(key)
            if shared is None:
                shared = _bases[key] = _Base(self._base)
            base, encoder = share_weights(shared.model), shared.encoder
        else:
            base, tokenizer = load_base(**self._base)
            encoder = TextEncoder(tokenizer)
        model: Any = adapter.put_on(base, encoder, trainable) if adapter else base
        engine = Engine(model)  # it refuses an adapter of the output head, which merging would hide
        if adapter and not shared and getattr(base.config, "quantization_config", None) is None:
            engine = Engine(model.merge_and_unload())
        return _Loaded(encoder, engine, shared, trainable)

    def new_adapter(self, lora: dict[str, Any]) -> None:
        """Give the model a new adapter, which does nothing until it is trained. The base is loaded for it.

        lora: Settings of PEFT's `LoraConfig`.
        """
        from peft import LoraConfig, get_peft_model

        from .adapter import base_facts
        from .loading import share_weights

        with _lock:
            self.set_adapter(None)
            loaded = self.load(trainable=True)
            assert loaded.base is not None
            base: PreTrainedModel = share_weights(loaded.base.model)
            config = LoraConfig(**lora, task_type="CAUSAL_LM")
            name = self._base["name"] or BUNDLED.name
            meta = {"base": {"name": name, **base_facts(base.config, loaded.encoder)}}
            with warnings.catch_warnings():  # peft 0.21 calls what transformers 5 has renamed
                warnings.simplefilter("ignore", FutureWarning)
                model = get_peft_model(base, config)
            self.set_adapter(Adapter.of(model, meta))
            self.load(trainable=True)  # now, while the base is here

    def changed(self, meta: dict[str, Any]) -> None:
        """Take note that the weights of the adapter were changed, in place, in what `load(trainable=True)` gave.

        meta: What is known of the adapter from now on.
        """
        self._trained = meta
        self.load().engine.prefix.cache_clear()  # it was read with the weights of before

    def _keep(self) -> None:
        """Take the adapter off the loaded model, if it was changed there."""
        if self._trained is not None and self._loaded is not None:
            model: Any = self._loaded.engine.model
            self._adapter, self._trained = Adapter.of(model, self._trained), None

    def fingerprint(self) -> str:
        """Give what the model's answers depend on: base, adapter, and what it computes in. Nothing is loaded."""
        from .loading import base_fingerprint

        return json.dumps([base_fingerprint(**self._base), self.adapter.fingerprint() if self.adapter else None])

    def warm_up(self) -> None:
        """Load the model and read a token with it, so that the first doc does not wait."""
        from .engine import Row

        self.load().engine.score([Row(None, (0,), ())])

    def unload(self) -> None:
        """Give the model's memory back; the next `vote` loads it again. A `vote` that is going on keeps it."""
        import torch

        with _lock:
            self._keep()
            self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def __getstate__(self) -> dict[str, Any]:
        """Give what a copy or another process needs; it loads base and adapter for itself."""
        self._keep()
        return {key: value for key, value in self.__dict__.items() if key not in ("_loaded", "_process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _loaded=None, _process=os.getpid())
        with _lock:
            _models.add(self)


def _adapter_folder(name: str, local_files_only: bool = False) -> Path:
    """Find an adapter: a folder, or a hub name, which is fetched unless it is there already.

    RAISES: FileNotFoundError if there is no such folder, or it is not to be had from the hub.
    """
    from .adapter import CONFIG, META, WEIGHTS

    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise FileNotFoundError(Errors.E043.format(path=path, file=CONFIG))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    wanted = [CONFIG, META, WEIGHTS]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=local_files_only))
    except (OSError, HFValidationError) as error:  # all errors of the hub are among these
        reason = str(error).strip().split("\n")[0]
        raise FileNotFoundError(Errors.E170.format(name=name, reason=reason)) from error

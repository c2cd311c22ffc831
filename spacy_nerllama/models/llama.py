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
from .adapter import Adapter, adapter_folder
from .tasks import MarksTasks

if TYPE_CHECKING:
    from .engine import Engine
    from .tokens import TextEncoder

BUNDLED_ADAPTER = "smollm2-135m"


def bundled_adapter() -> Path:
    """Give the folder of the adapter that comes with the package; it is one of the bundled base."""
    return Path(str(files("spacy_nerllama") / "assets" / BUNDLED_ADAPTER))


class _Base:
    """A base in memory, with a tokenizer. Models share its weights, each with layers of its own.

    settings: What to load, as `load_base` takes it.
    merge: An adapter to merge into the weights, where those are not quantised. None: none.
    own: Whether only models with this adapter read it, and none is trained; of quantised weights, a single one.
    """

    def __init__(self, settings: dict[str, Any], merge: Adapter | None, own: bool) -> None:
        from .engine import Engine
        from .loading import keep_unpacked, load_base
        from .tokens import TextEncoder

        self.merge, self.own = merge, own
        self.model, tokenizer = load_base(**settings)
        self.encoder = TextEncoder(tokenizer)
        self.merged = bool(merge) and getattr(self.model.config, "quantization_config", None) is None
        if merge and self.merged:
            model: Any = merge.put_on(self.model, self.encoder)
            Engine(model)  # it refuses an adapter of the output head, which merging would hide
            self.model = model.merge_and_unload()
        if not own or settings["quantization"] is None:
            keep_unpacked(self.model, fitting=True)  # packed weights cannot be shared or trained


class Loaded(NamedTuple):
    """A model that reads.

    base: The base whose weights it shares.
    trainable: Whether its adapter can be trained.
    """

    encoder: "TextEncoder"
    engine: "Engine"
    base: _Base
    trainable: bool


_models: "weakref.WeakSet[Llama]" = weakref.WeakSet()
_bases: "weakref.WeakValueDictionary[tuple[tuple[Any, ...], bool], _Base]" = weakref.WeakValueDictionary()
_lock = threading.RLock()  # for all models: they look at one another when they load


class Llama(MarksTasks):
    """A local model.

    Models on the same base (name, quantisation, dtype and device) share its weights in memory, each with its own
    adapter. While all of them have the same adapter, as a lone model has, it is merged into the weights, unless
    those are quantised: that saves two small products for each large one. They make way when a model with another
    adapter loads, and load again, not merged, when they are next used.

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
        self.adapter_name = adapter
        self._adapter: Adapter | None = None
        self._read = False
        self._trained: dict[str, Any] | None = None  # what is known of weights that `adapter` has not yet
        self._loaded: Loaded | None = None
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
            if self.adapter_name is not None:
                self._adapter = Adapter.from_folder(adapter_folder(self.adapter_name))
            elif self._base["name"] is None:
                self._adapter = Adapter.from_folder(bundled_adapter())
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
        if not self._read and self.adapter_name is not None:
            try:
                folder = adapter_folder(self.adapter_name, local_files_only=True)
                self._adapter, self._read = Adapter.from_folder(folder), True
            except (OSError, ValueError):  # not there, or not whole, as a training leaves it that goes on
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

    def load(self, trainable: bool = False) -> Loaded:
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

    def _load(self, trainable: bool) -> Loaded:
        from .engine import Engine
        from .loading import base_key, share_weights

        adapter, key = self.adapter, base_key(**self._base)
        self._loaded = None  # what it was loaded as before
        gc.collect()  # a pipeline that was thrown away is not another model
        others = [other for other in _models if other is not self and base_key(**other._base) == key]
        alike = self._base["quantization"] is None and all(other._reads(adapter) for other in others)
        own = not trainable and (alike or not others)
        if not own:
            for other in others:
                if other._loaded is not None and other._loaded.base.own:
                    other._loaded = None  # it makes way
        base, merge = _bases.get((key, own)), adapter if own else None
        if base is None or base.merge != merge:  # perhaps one of before, that is still in use somewhere
            base = _bases[key, own] = _Base(self._base, merge, own)
        model: Any = share_weights(base.model)
        if adapter and not base.merged:
            model = adapter.put_on(model, base.encoder, trainable)
        return Loaded(base.encoder, Engine(model), base, trainable)

    def _reads(self, adapter: Adapter | None) -> bool:
        """Whether this is known to be the adapter, and it is not trained."""
        try:
            _ = self.meta  # its files are read, if they are on this machine
        except (OSError, ValueError):
            return False
        fixed = self._loaded is None or not self._loaded.trainable
        return self._read and self._trained is None and fixed and self._adapter == adapter

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
            base = share_weights(loaded.base.model)
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

        meta: What is known of the adapter from now on, but for the quantisation of its base, which is put in.
        """
        self._trained = {**meta, "recipe": {"base": {"quantization": self._base["quantization"]}}}
        self.load().engine.prefix.cache_clear()  # it was read with the weights of before

    def _keep(self) -> None:
        """Take the adapter off the loaded model, if it was changed there."""
        if self._trained is not None and self._loaded is not None:
            model: Any = self._loaded.engine.model
            self._adapter, self._trained = Adapter.of(model, self._trained), None

    def fingerprint(self) -> str:
        """Give what the model's answers depend on: base, adapter, and what it computes in. Nothing is loaded."""
        from .loading import base_key

        *facts, device = base_key(**self._base)
        adapter = self.adapter.fingerprint if self.adapter else None
        return json.dumps([*facts, device.split(":")[0], adapter])

    def warm_up(self) -> None:
        """Load the model and read a token with it, so that the first doc does not wait."""
        from .scoring import Row

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

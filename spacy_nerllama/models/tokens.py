"""Text to token ids: the pieces of a marked copy, and prompts, for one tokenizer."""

import hashlib
import json
import threading
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import Errors
from ..prompts import PromptText

_CONTENT = "\ue000"  # a private-use character that no chat template holds


class PromptIds(NamedTuple):
    """The token ids of a prompt: what many sentences share, what all labels of the sentence share, the rest."""

    prefix: tuple[int, ...]
    shared: tuple[int, ...]
    own: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """The whole prompt."""
        return (*self.prefix, *self.shared, *self.own)


class TextEncoder:
    """Encodes pieces of text with a Hugging Face tokenizer, so that the text of a document stays text.

    tokenizer: A byte-level BPE tokenizer (of Llama 3, SmolLM2, GPT-2, Qwen and their like).
    RAISES: ValueError for any other, which would change a piece by where it stands.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._lock = threading.Lock()
        if [tokenizer.convert_ids_to_tokens(list(self._encode(x))) for x in ("x", " x")] != [["x"], ["Ġx"]]:
            raise ValueError(Errors.E040.format(tokenizer=type(tokenizer).__name__))
        self.piece = lru_cache(maxsize=100_000)(self._encode)
        self._frame = lru_cache(maxsize=16)(self._make_frame)

    def _encode(self, text: str) -> tuple[int, ...]:
        """Encode text that is never read as a control token, whatever it holds."""
        ids = self._plain(text)
        # Some vocabularies lack a few control characters, as SmolLM2's does: of "\x04" nothing would be left.
        return self._plain("?") if text and not ids else ids

    def _plain(self, text: str) -> tuple[int, ...]:
        with self._lock:  # a tokenizer is changed by its calls, and breaks if threads share one
            return tuple(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def prompt(self, text: PromptText) -> PromptIds:
        """Encode a prompt: a chat by the tokenizer's own template, plain text after its first special token.

        RAISES: ValueError if the prompt is a chat, and the tokenizer has no template, or if it is empty.
        """
        before, after = self._frame(text.system)
        prefix = (*before, *self.piece(text.prefix)) if text.prefix else ()
        shared = self._encode(text.shared) if prefix else (*before, *self._encode(text.shared))
        prompt = PromptIds(prefix, shared, (*self._encode(text.own), *after))
        if not prompt.ids:
            raise ValueError(Errors.E047)
        return prompt

    def _make_frame(self, system: str | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Give the ids before and after the user's text."""
        tokenizer = self.tokenizer
        if system is None:
            return (() if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)), ()
        if not tokenizer.chat_template:
            raise ValueError(Errors.E041)
        chat = [{"role": "system", "content": system}, {"role": "user", "content": _CONTENT}]
        rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        before, after = rendered.split(_CONTENT)
        with self._lock:
            ids = [tuple(tokenizer.encode(part, add_special_tokens=False)) for part in (before, after)]
        return ids[0], ids[1]

    @property
    def end_of_turn(self) -> int:
        """The id that ends a response, for training adapters that generate text."""
        return int(self.tokenizer.eos_token_id)

    def fingerprint(self) -> str:
        """Give a hash of the vocabulary, to tell whether an adapter was trained with this tokenizer."""
        vocabulary = json.dumps(sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1]))
        return hashlib.sha256(vocabulary.encode()).hexdigest()[:16]

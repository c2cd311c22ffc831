"""The task `nerllama.NER.v1` of spacy-llm's component `llm`: our prompts, alignment and votes, its models."""

from collections.abc import Callable
from pathlib import Path

# spacy-llm reads these annotations, and knows no other iterables and tuples than typing's.
from typing import Any, Iterable, Tuple  # noqa: UP035

from spacy.language import Language
from spacy.scorer import get_ner_prf
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import SimpleFrozenList
from spacy.vocab import Vocab

from .agreement import Answered
from .errors import Errors
from .models.spacyllm import as_responses
from .models.tasks import TaskPrompt
from .models.texts import TextModel, count_votes
from .pipe import NerLlama
from .prompts import InstructPrompt, Prompt, scheme_of
from .requests import Request, Sentence
from .voting import Votes, Voting

_TEXT = Sentence(("{text}",), (False,))


class NerTask:
    """What `nerllama_ner` does, around a model that spacy-llm asks. Registered as `nerllama.NER.v1`.

    A doc is several prompts, one for each sentence and label (and sample), so to spacy-llm this is a task that
    shards; but docs are neither cut nor replaced.

    labels: The labels, each with what the prompt calls it.
    prompt: What the model reads of a request. None: `InstructPrompt`, without examples.
    voting: `samples`, thresholds and, for models of ours, how readings are drawn. None: the defaults, which are
        exact votes of a local model and one response of a text model.
    spans_key, overwrite_ents: As `NerLlama` has them.
    scorer: The scoring method, of examples. None: that of entities.
    """

    def __init__(
        self,
        labels: dict[str, str],
        prompt: Prompt | None = None,
        voting: Voting | None = None,
        spans_key: str = "nerllama",
        overwrite_ents: bool = True,
        scorer: Callable[[Iterable[Example]], dict[str, Any]] | None = None,
    ) -> None:
        self._ner = NerLlama(
            Vocab(),
            TextModel(),  # it is spacy-llm that asks a model
            labels=labels,
            prompt=prompt or InstructPrompt(),
            voting=voting or Voting(),
            spans_key=spans_key,
            overwrite_ents=overwrite_ents,
            scorer=scorer or get_ner_prf,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order in which they are asked for."""
        return self._ner.labels

    def add_label(self, label: str, label_definition: str | None = None) -> int:
        """Add a label, see `NerLlama.add_label`."""
        return self._ner.add_label(label, label_definition)

    def clear(self) -> None:
        """Forget the labels."""
        self._ner.initialize(labels={})

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]] | None = None,
        nlp: Language | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        """Prepare the task in a new pipeline, see `NerLlama.initialize`."""
        self._ner.initialize(get_examples, nlp=nlp, labels=labels)

    @property
    def prompt_template(self) -> str:
        """What spacy-llm's cache compares, so that docs of other labels or settings are not taken from it."""
        ner = self._ner
        example = ner.prompt(Request(_TEXT, tuple(ner.label_data.items())[:1])) if ner.labels else ()
        return f"{ner.label_data}\n{ner.voting}\n{example}\n{ner.spans_key} {ner.overwrite_ents}\n"

    def generate_prompts(
        self, docs: Iterable[Doc], context_length: int | None = None
    ) -> Iterable[Tuple[Iterable[Any], Iterable[Doc]]]:  # noqa: UP006
        """Write the prompts of each doc.

        docs: The docs.
        context_length: Not used: prompts are of sentences.
        RETURNS: For each doc its prompts, `samples` copies of each, and the doc as its only shard.
        RAISES: As `NerLlama.pipe`.
        """
        ner, ask = self._ner, self._ner.asks()
        for doc in docs:
            prompts: list[TaskPrompt] = []
            for _, request in ask(doc):
                prompt = TaskPrompt(request, ner.prompt, ner.voting, ner.max_batch_tokens)
                prompts += [prompt] * (ner.voting.samples or 1)
            yield prompts, [doc]

    def parse_responses(
        self, shards: Iterable[Iterable[Doc]], responses: Iterable[Iterable[Any]]
    ) -> Iterable[Doc]:
        """Write what a model answered to the docs.

        shards: The docs, as `generate_prompts` gave them.
        responses: The responses to the prompts of each doc: texts, or the votes of a model of ours.
        RETURNS: The docs, which are changed in place.
        RAISES: ValueError if there is not one response to each prompt of each doc.
        """
        ner, ask = self._ner, self._ner.asks()
        for (doc,), given in zip(shards, responses, strict=True):
            asked = list(ask(doc))
            votes = _votes([request for _, request in asked], list(given), ner.prompt, ner.voting)
            ner.write_answers(doc, (Answered(*each, found) for each, found in zip(asked, votes, strict=True)))
            yield doc

    def scorer(self, examples: Iterable[Example]) -> dict[str, Any]:
        """Score predictions."""
        return self._ner.score(examples)

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = SimpleFrozenList()) -> None:
        """Write the labels to a folder."""
        self._ner.to_disk(path, exclude=exclude)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = SimpleFrozenList()) -> "NerTask":
        """Read the labels from a folder."""
        self._ner.from_disk(path, exclude=exclude)
        return self

    def to_bytes(self, *, exclude: Iterable[str] = SimpleFrozenList()) -> bytes:
        """Give the labels as bytes."""
        return self._ner.to_bytes(exclude=exclude)

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = SimpleFrozenList()) -> "NerTask":
        """Read the labels from bytes."""
        self._ner.from_bytes(bytes_data, exclude=exclude)
        return self


def _votes(requests: list[Request], given: list[Any], prompt: Prompt, voting: Voting) -> list[Votes]:
    """Let the responses to a doc's requests vote; the votes of a model of ours stand as they are.

    RAISES: ValueError if there is not one response for each prompt.
    """
    copies = voting.samples or 1
    expected = len(requests) * copies
    if all(isinstance(votes, Votes) for votes in given):
        if len(given) != expected:
            raise ValueError(Errors.E205.format(given=len(given), expected=expected))
        return given[::copies]
    if given == [""]:  # spacy.NoOp.v1 says nothing, once for each doc
        given = [""] * expected
    texts, scheme = as_responses(given, expected), scheme_of(prompt)
    drawn = (texts[i : i + copies] for i in range(0, expected, copies))
    return [count_votes(request, each, scheme)[0] for request, each in zip(requests, drawn, strict=True)]

"""The component `nerllama_ner`: Doc -> requests -> votes -> doc.ents."""

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import srsly
from spacy.language import Language
from spacy.pipeline import Pipe
from spacy.tokens import Doc
from spacy.training import Example, validate_examples
from spacy.util import SimpleFrozenList, ensure_path, from_bytes, to_bytes
from spacy.vocab import Vocab

from .agreement import Answered, doc_votes
from .annotations import write_votes
from .errors import Errors
from .labels import check_annotated, check_labels, describe, warn_of_other_labels
from .marking import MarkingScheme
from .models.adapter import Adapter
from .models.cache import Cache, Recorder, request_key, text_key
from .models.interface import Model, NamesAdapter, Selective
from .models.llama import Llama
from .prompts import Prompt, scheme_of, warn_of_other_prompt
from .requests import Request, TokenSpan, doc_requests
from .stream import Ask, annotate
from .updating import Updating, make_lora
from .voting import Vote, Votes, Voting

if TYPE_CHECKING:
    from .finetune.updating import Updater

logger = logging.getLogger(__name__)


class NerLlama(Pipe):
    """Marks entities with a language model, sentence by sentence and label by label.

    Labels and adapter are saved with a pipeline; other settings are those of its config, whatever was set on the
    component.

    vocab (Vocab): The shared vocabulary.
    model (Model): What turns requests into votes. It is loaded on first use.
    name (str): The component's name in the pipeline.
    labels (dict[str, str] | None): The labels, each with what the prompt calls it. None: the adapter's own.
    prompt (Prompt): What the model reads of a request.
    voting (Voting): How readings are drawn, and the thresholds.
    spans_key (str): The group in `doc.spans` that gets every span with a vote; votes are in its attrs["scores"].
    overwrite_ents (bool): Where new entities overlap with those that a doc has, the new are kept (as
        `entity_ruler` does); if False the old are.
    max_batch_tokens (int): The most tokens of the language model in a batch, which bounds memory.
    cache (Cache | None): Where answers are kept, and looked up before the model is asked.
    updating (Updating | None): How the adapter is updated in spaCy's training loop. None: the defaults.
    scorer (Callable | None): The scoring method.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model,
        name: str = "nerllama_ner",
        *,
        labels: dict[str, str] | None,
        prompt: Prompt,
        voting: Voting,
        spans_key: str = "nerllama",
        overwrite_ents: bool = True,
        max_batch_tokens: int = 4096,
        cache: Cache | None = None,
        updating: Updating | None = None,
        scorer: Callable | None = None,
    ) -> None:
        if not isinstance(max_batch_tokens, int) or max_batch_tokens < 64:
            raise ValueError(Errors.E053.format(value=max_batch_tokens))
        voting.check_bounded()
        self.vocab = vocab
        self.model = model
        self.name = name
        self.prompt = prompt
        self.voting = voting
        self.spans_key = spans_key
        self.overwrite_ents = overwrite_ents
        self.max_batch_tokens = max_batch_tokens
        self.cache = cache
        self.recorder: Recorder | None = None  # of what `nerllama.Replay.v1` would answer
        self.scorer = scorer
        self.updating = updating or Updating()
        self._labels = None if labels is None else check_labels(labels)
        self._configured = {
            "labels": self._labels,
            "model": type(model).__name__,
            "adapter": model.adapter_name if isinstance(model, NamesAdapter) else None,
        }
        self._annotated: set[str] = set()  # labels that an example has had: others are not taught as absent
        self._updater: Updater | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order in which they are asked for."""
        return tuple(self.label_data)

    @property
    def label_data(self) -> dict[str, str]:
        """The labels, each with what the prompt calls it, as `initialize` takes them."""
        return dict(self._labels if self._labels is not None else self.model.meta.get("labels", {}))

    def _bring_labels(self) -> None:
        """Read the adapter, which may have to be fetched first, if labels are to come from it."""
        if not self.label_data:
            _ = self.model.adapter

    def add_label(self, label: str, description: str | None = None) -> int:
        """Add a label.

        label (str): The label, such as "DISEASE".
        description (str | None): What the prompt calls it, such as "disease". None: what it is called already.
        RETURNS (int): 1 if the label is new, 0 if not.
        RAISES (ValueError): A new label has no description.
        """
        self._bring_labels()
        known = self.label_data
        self._labels = known | check_labels({label: description or known.get(label)})
        return int(label not in known)

    @property
    def is_trainable(self) -> bool:
        """Whether `update` does anything: whether the model's adapter can be trained here."""
        return isinstance(self.model, Llama)

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]] | None = None,
        *,
        nlp: Language | None = None,
        labels: dict[str, str] | None = None,
        lora: dict[str, Any] | None = None,
    ) -> None:
        """Prepare the component in a new pipeline, for training or not.

        get_examples (Callable[[], Iterable[Example]] | None): Gives examples. If neither `labels` nor the config
            names labels, those that the examples annotate are taken; if they annotate none, the adapter's stay.
        labels (dict[str, str] | None): Labels with their descriptions, which replace those of the config.
        lora (dict[str, Any] | None): Begin with a new adapter, as `make_lora` describes it. None: go on from the
            adapter that there is.
        RAISES (ValueError): `lora` is given, and the model is not trained here; or the examples annotate labels,
            and none of the component's is among them.
        """
        if labels is not None:
            self._labels = check_labels(labels)
        if lora is not None and not self.is_trainable:
            raise ValueError(Errors.E172.format(name=self.name, model=type(self.model).__name__))
        if get_examples is not None and self.is_trainable:
            self._annotated = {ent.label_ for example in get_examples() for ent in example.reference.ents}
            self._bring_labels()
            if self._annotated and self._labels is None:
                self._labels = describe(sorted(self._annotated), self.label_data)
                logger.info("%s: the labels, and what the prompt calls them: %s", self.name, self._labels)
            check_annotated(self.name, self.labels, self._annotated)
        if lora is not None and isinstance(self.model, Llama):
            self.model.new_adapter(lora)

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Any = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn from a batch of examples, as `finetune` does; nothing if the model is not trained here.

        A label is asked for once an example has had it, so that what a corpus does not annotate is not taught as
        absent. Sentences with tokens whose annotation is missing are left out.

        examples (Iterable[Example]): The examples. Sentences are those of the predicted docs, as when annotating.
        drop (float): The dropout of the adapter.
        sgd (Optimizer | None): Step with this optimizer; else `finish_update` does.
        losses (dict[str, float] | None): Gets the mean loss of the batch added under the component's name.
        RETURNS (dict[str, float]): The losses.
        RAISES (ValueError): There are no labels, since the component was not initialized.
        """
        losses = {} if losses is None else losses
        if not isinstance(self.model, Llama):
            return losses
        examples = list(examples)
        validate_examples(examples, f"{type(self).__name__}.update")
        losses.setdefault(self.name, 0.0)
        self._annotated.update(ent.label_ for example in examples for ent in example.reference.ents)
        self._bring_labels()
        if not self.labels:
            raise ValueError(Errors.E051.format(name=self.name))
        labels = {label: words for label, words in self.label_data.items() if label in self._annotated}
        if not labels:
            return losses
        from .finetune.updating import Updater, example_requests

        if self._updater is None and self.model.adapter is None:
            self.model.new_adapter(make_lora())
        if self._updater is None:
            self._updater = Updater(self.model, self.name, self.updating)
        together = self._scheme(labels).tells_labels
        taught = (each for example in examples for each in example_requests(example, labels, together))
        losses[self.name] += self._updater.update(taught, self.prompt, drop)
        if sgd not in (None, False):
            self.finish_update(sgd)
        return losses

    def finish_update(self, sgd: Any) -> None:
        """Change the adapter by what `update` has learnt since the last time.

        sgd (Optimizer): spaCy's optimizer. Its settings hold, its moments do not: those are PyTorch's.
        RAISES (ValueError): It is not Adam.
        """
        if self._updater is not None:
            self._updater.step(sgd, self.label_data)

    def warm_up(self) -> None:
        """Load the model now; else the first doc waits for it."""
        self.model.warm_up()

    def unload(self) -> None:
        """Give the model's memory back. The next doc loads it again."""
        self.model.unload()

    def __call__(self, doc: Doc) -> Doc:
        """Annotate one doc, in place.

        RETURNS (Doc): The doc.
        """
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Annotate docs as a stream; sentences of many docs share batches.

        A doc one of whose sentences fails is given to the error handler; if that does not raise, the doc is logged
        by the beginning of its text, and comes out in its place, not annotated.

        stream (Iterable[Doc]): The docs. If it fails, its error is raised once the docs before it are out.
        batch_size (int): So many docs are taken before the first of them is out. What the model reads at once is
            measured in tokens (`max_batch_tokens`), of sentences of these docs.
        YIELDS (Doc): The docs, in order, annotated in place.
        RAISES (ValueError): There are no labels, the prompt has no markers for one, or the adapter does not fit
            the base.
        RAISES (FileNotFoundError): The base or the adapter is missing.
        RAISES (ModelUnavailableError): A server answers no more; the docs before are out.
        """
        ask = self.asks()
        handler: Callable[..., None] = self.get_error_handler()

        def report(doc: Doc, error: Exception) -> None:
            handler(self.name, self, [doc], error)
            logger.warning("%s: a doc is not annotated: %r: %s", self.name, doc.text[:60], error)

        yield from annotate(
            stream,
            ask=ask,
            vote=self._vote,
            write=self.write_answers,
            report=report,
            batch_size=batch_size,
        )

    def asks(self) -> Ask:
        """Make the function that gives the requests of a doc.

        RETURNS (Ask): From a doc to its requests, each with the token at which its sentence begins.
        RAISES (ValueError): There are no labels, or the prompt has no markers for one.
        """
        self._bring_labels()
        labels = self.label_data
        if not labels:
            raise ValueError(Errors.E051.format(name=self.name))
        scheme = self._scheme(labels)
        self._check_settings(labels)
        answers = self.model.answers if isinstance(self.model, Selective) else None
        return lambda doc: doc_requests(doc, labels, scheme.tells_labels, answers)

    def _check_settings(self, labels: Iterable[str]) -> None:
        """Check that the settings of voting name labels that there are; prompt and labels against the adapter's.

        RAISES: ValueError for a threshold of an unknown label.
        """
        meta, configured = self.model.meta, self._configured["labels"]
        known = {*labels, *(configured or {}), *meta.get("labels", {})}
        thresholds = self.voting.threshold
        for label in thresholds if isinstance(thresholds, dict) else ():
            if label not in known:
                raise ValueError(Errors.E058.format(label=label, labels=", ".join(sorted(known))))
        warn_of_other_prompt(self.name, self.prompt, meta)
        warn_of_other_labels(self.name, self.label_data, meta)

    def _vote(self, requests: Iterable[Request]) -> Iterator[Votes | Exception]:
        """Ask the model, for what is neither recorded nor in the cache."""
        settings = self.prompt, self.voting, self.max_batch_tokens
        scheme = scheme_of(self.prompt)

        def ask(asked: Iterable[Request]) -> Iterator[Votes | Exception]:
            return self.model.vote(asked, *settings)

        vote: Vote = ask
        if self.cache:
            vote = self.cache.through(vote, request_key(*settings, self.model), scheme)
        if self.recorder:
            vote = self.recorder.through(vote, text_key, scheme)
        return vote(requests)

    def _scheme(self, labels: Iterable[str]) -> MarkingScheme:
        """Give the marking scheme, which has markers for all labels."""
        scheme = scheme_of(self.prompt)
        try:
            for label in labels:
                _ = scheme[label]
        except KeyError as error:  # which spaCy would take for its own, of a component that was not initialized
            raise ValueError(*error.args) from None
        return scheme

    def write_answers(self, doc: Doc, answered: Iterable[Answered]) -> None:
        """Write the answers to the requests of a doc to it, after its sentences have agreed on the same words.

        doc (Doc): The doc, changed in place.
        answered (Iterable[Answered]): The requests with their answers.
        """
        self.set_annotations([doc], [doc_votes(answered, self.voting.agreement)])

    def set_annotations(self, docs: Iterable[Doc], votes: Iterable[dict[TokenSpan, float]]) -> None:
        """Write votes to docs: entities by the vote rule, and every span with its vote to the span group.

        docs (Iterable[Doc]): The docs, changed in place.
        votes (Iterable[dict[TokenSpan, float]]): The vote of each span of each doc, in tokens of the doc.
        """
        adapter = self.model.meta.get("thresholds", {})
        thresholds = {label: self.voting.threshold_of(label, adapter) for label in self.labels}
        for doc, scored in zip(docs, votes, strict=True):
            for label in thresholds:  # they outlive a memory zone (the stubs of spaCy 3.8 lack the argument)
                doc.vocab.strings.add(label, allow_transient=False)  # type: ignore[call-arg]
            write_votes(doc, scored, thresholds, self.spans_key, self.overwrite_ents)

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Score predictions with the component's scorer.

        RETURNS (dict[str, Any]): The scores.
        """
        return self.scorer(examples, **kwargs) if self.scorer else {}

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = SimpleFrozenList()) -> None:
        """Write labels and adapter to a folder. The base is not written: the config names it.

        path (str | Path): The folder, which is made.
        exclude (Iterable[str]): "cfg" or "adapter", to leave out.
        """
        folder = ensure_path(path)
        folder.mkdir(parents=True, exist_ok=True)
        if "cfg" not in exclude:
            srsly.write_json(folder / "cfg", self._cfg())
        if "adapter" not in exclude:
            adapter = self.model.adapter
            if (folder / "adapter").is_dir():  # of a pipeline that was here before
                shutil.rmtree(folder / "adapter")
            if adapter:
                adapter.to_folder(folder / "adapter")

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = SimpleFrozenList()) -> "NerLlama":
        """Read labels and adapter from a folder.

        Where the config names others than when they were written, as `spacy.load(..., config=...)` may, it holds;
        where it names none (null), what was written is taken, be the model of another kind now.

        path (str | Path): The folder.
        exclude (Iterable[str]): "cfg" or "adapter", to leave out.
        RETURNS (NerLlama): The component.
        """
        folder = ensure_path(path)
        cfg = {} if "cfg" in exclude else srsly.read_json(folder / "cfg")
        written = folder / "adapter"
        adapter = Adapter.from_folder(written) if "adapter" not in exclude and written.is_dir() else None
        self._read(cfg, adapter, "adapter" in exclude)
        return self

    def to_bytes(self, *, exclude: Iterable[str] = SimpleFrozenList()) -> bytes:
        """Give labels and adapter as bytes.

        exclude (Iterable[str]): "cfg" or "adapter", to leave out.
        RETURNS (bytes): The component.
        """
        adapter = self.model.adapter
        return to_bytes(
            {
                "cfg": lambda: srsly.json_dumps(self._cfg()),
                "adapter": lambda: srsly.msgpack_dumps(adapter.to_dict() if adapter else None),
            },
            exclude,
        )

    def from_bytes(self, data: bytes, *, exclude: Iterable[str] = SimpleFrozenList()) -> "NerLlama":
        """Read labels and adapter from bytes, see `from_disk`.

        data (bytes): What `to_bytes` gave.
        exclude (Iterable[str]): "cfg" or "adapter", to leave out.
        RETURNS (NerLlama): The component.
        """

        read: dict[str, Any] = {"cfg": {}, "adapter": None}
        readers = {
            "cfg": lambda part: read.update(cfg=srsly.json_loads(part)),
            "adapter": lambda part: read.update(adapter=srsly.msgpack_loads(part)),
        }
        from_bytes(data, readers, exclude)
        adapter = Adapter(**read["adapter"]) if read["adapter"] else None
        self._read(read["cfg"], adapter, "adapter" in exclude)
        return self

    def _cfg(self) -> dict[str, Any]:
        """Give what the config does not tell.

        labels: As they are now.
        configured: What the config named.
        adapter: Whether there is one.
        """
        return {"labels": self._labels, "configured": self._configured, "adapter": self.model.adapter is not None}

    def _read(self, cfg: dict[str, Any], adapter: Adapter | None, keep_adapter: bool) -> None:
        """Take over what was written, but for what the config names otherwise now."""
        before, now = cfg.get("configured", self._configured), self._configured
        if cfg.get("labels") is not None and now["labels"] in (None, before["labels"]):
            self._labels = cfg["labels"]
        takes = now["adapter"] in (None, before["adapter"])
        if adapter is None:  # a model of another kind has use for the labels and thresholds of one at least
            takes = takes and cfg.get("adapter") is False and before.get("model") == now["model"]
        if takes and not keep_adapter:
            self.model.set_adapter(adapter)

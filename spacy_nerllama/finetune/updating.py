"""Train the adapter of a local model step by step, as spaCy's loop asks for it.

Sequences and losses are those of `finetune`. The optimizer is PyTorch's AdamW, with the settings of the thinc
optimizer that spaCy gives: thinc's own would need CuPy on a GPU and has no bfloat16. The gradient of a step is
that of the mean over all its decisions, however spaCy has cut the batch, and its norm is clipped as a whole.
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

import torch
from spacy import training
from spacy.tokens import Doc
from spacy.training.iob_utils import tags_to_entities

from ..errors import Errors, Warnings
from ..gold import gold_spans, inner_entities
from ..models import Llama
from ..models.llama import Loaded
from ..prompts import CompactPrompt, InstructPrompt, MultiTaskPrompt, PaperPrompt, Prompt
from ..requests import doc_requests
from ..updating import Updating
from .loss import IGNORED, collator, use_loss
from .sequences import Example, TrainingSequence, in_batches, training_sequences


def example_requests(example: training.Example, labels: dict[str, str], together: bool) -> Iterator[Example]:
    """Give what an example teaches: the requests of its predicted doc, with the gold spans aligned to it.

    labels: The labels to teach, each with what the prompt calls it.
    together: As `doc_requests` takes it.
    RETURNS: The requests for the sentences in which every token is annotated, as entity or as none, and whose
        edges cut no entity; as in spaCy's `ner`, a token whose annotation is missing, or whose entity does not
        fall on tokens, is unknown.
    """
    doc: Doc = example.predicted
    tags = example.get_aligned_ner()
    entities = inner_entities(doc, ((start, end + 1, label) for label, start, end in tags_to_entities(tags)))
    for start, request in doc_requests(doc, labels, together):
        spans = gold_spans(request.sentence, start, entities, dict(request.labels))
        if spans is not None and None not in tags[start : start + len(request.sentence.words)]:
            yield request, spans


_REGISTERED: dict[type, str] = {
    CompactPrompt: "nerllama.CompactPrompt.v1",
    MultiTaskPrompt: "nerllama.MultiTaskPrompt.v1",
    InstructPrompt: "nerllama.InstructPrompt.v1",
    PaperPrompt: "nerllama.PaperPrompt.v1",
}


def prompt_config(prompt: Any) -> dict[str, Any]:
    """Give the config of a prompt of ours, for an adapter's `meta.json`; its key is `prompt`.

    RETURNS: Without in-context examples, whose file is not known; empty for another's prompt.
    """
    if type(prompt) not in _REGISTERED:
        return {}
    settings = {field.name: getattr(prompt, field.name) for field in fields(prompt)}
    settings = {name: value for name, value in settings.items() if name not in ("examples", "scheme")}
    return {"prompt": {"@misc": _REGISTERED[type(prompt)], **settings}}


class Updater:
    """Updates the adapter of a model.

    model: The model; it decodes with what was learnt right away.
    name: The component's name, for messages.
    settings: How to update.
    """

    def __init__(self, model: Llama, name: str, settings: Updating) -> None:
        self.model = model
        self.name = name
        self.settings = settings
        self._loaded: Loaded | None = None
        self._optimizer: torch.optim.AdamW | None = None
        self._prompt: Prompt | None = None  # of the last examples
        self._learnt = 0  # labels since the last step
        self._reported = False

    def __getstate__(self) -> dict[str, Any]:
        """Give what a copy needs, which begins anew: what was learnt since the last step stays here."""
        return {**vars(self), "_loaded": None, "_optimizer": None, "_learnt": 0}

    def update(self, examples: Iterable[Example], prompt: Prompt, drop: float) -> float:
        """Add to the gradient.

        examples: Requests with their gold spans.
        prompt: What the model reads of a request.
        drop: The dropout of the adapter.
        RETURNS: The mean loss over the decisions, or over the tokens of a loss on text.
        """
        loaded = self._load()
        model: Any = loaded.engine.model
        sequences = self._sequences(list(examples), prompt, loaded)
        collate = collator(self.settings.loss, loaded.encoder)
        for module in model.modules():
            if isinstance(getattr(module, "lora_dropout", None), torch.nn.ModuleDict):
                module.lora_dropout["default"] = torch.nn.Dropout(drop)
        total, learnt = 0.0, 0
        model.train()
        try:
            for batch in in_batches(sequences, self.settings.batch_tokens):
                tensors = collate(batch)
                n = int((tensors["labels"][:, 1:] != IGNORED).sum())
                if n:
                    inputs = {key: tensor.to(model.device) for key, tensor in tensors.items()}
                    loss = model(**inputs, num_items_in_batch=1).loss  # the sum: divided when all are in
                    loss.backward()
                    total, learnt = total + float(loss.detach()), learnt + n
        finally:
            model.eval()
        self._learnt += learnt
        self._prompt = prompt
        return total / max(learnt, 1)

    def step(self, sgd: Any, labels: dict[str, str]) -> None:
        """Change the weights by the gradient, which is then gone.

        sgd: spaCy's optimizer, whose settings hold: the learn rate where its schedule is, and so on.
        labels: The labels of the adapter from now on, each with what the prompt calls it.
        RAISES: ValueError if the optimizer is another than Adam with decoupled weight decay, or if the gradient is
            no finite number: the weights are not changed then.
        """
        if not self._learnt or self._loaded is not self.model.load(trainable=True) or self._optimizer is None:
            return
        for setting, wrong in (
            ("use_radam", sgd.use_radam),
            ("beta1 and beta2", not (sgd.b1 > 0 and sgd.b2 > 0)),
            ("L2_is_weight_decay", sgd.L2 and not sgd.L2_is_weight_decay),
        ):
            if wrong:
                raise ValueError(Errors.E171.format(setting=setting, name=self.name))
        (group,) = self._optimizer.param_groups
        group.update(lr=sgd.learn_rate, betas=(sgd.b1, sgd.b2), eps=sgd.eps, weight_decay=sgd.L2)
        for weight in group["params"]:
            if weight.grad is not None:
                weight.grad /= self._learnt
        self._learnt = 0
        norm = torch.nn.utils.clip_grad_norm_(group["params"], sgd.grad_clip or torch.inf)
        if norm.isfinite():
            self._optimizer.step()
        self._optimizer.zero_grad()
        if not norm.isfinite():
            raise ValueError(Errors.E233.format(name=self.name, norm=norm.item()))
        known = {"base": self.model.meta["base"]} if "base" in self.model.meta else {}
        known |= prompt_config(self._prompt)
        generates = self.settings.loss != "decision"
        # Thresholds that were tuned for the weights of before hold no more.
        self.model.changed({**known, "labels": labels, "loss": self.settings.loss, "generates_text": generates})

    def _load(self) -> Loaded:
        """Load the model to be trained; where it was loaded anew, begin anew."""
        loaded = self.model.load(trainable=True)
        if loaded is not self._loaded:
            model: Any = loaded.engine.model
            if self.settings.gradient_checkpointing:
                model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
            use_loss(model.get_base_model(), self.settings.response_weight)
            weights = [weight for weight in model.parameters() if weight.requires_grad]
            self._loaded, self._learnt, self._optimizer = loaded, 0, torch.optim.AdamW(weights)
        return loaded

    def _sequences(self, examples: list[Example], prompt: Prompt, loaded: Loaded) -> list[TrainingSequence]:
        max_tokens = min(self.settings.max_tokens, loaded.engine.context)
        found = training_sequences(examples, prompt, loaded.encoder, max_tokens)
        if len(found) < len(examples) and not self._reported:
            self._reported = True
            n, total = len(examples) - len(found), len(examples)
            warnings.warn(Warnings.W170.format(n=n, total=total, max_tokens=max_tokens), stacklevel=2)
        return [sequence for _, sequence in found]

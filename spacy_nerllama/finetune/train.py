"""Run a recipe: `transformers.Trainer` on a PEFT model, and an adapter folder at the end."""

import logging
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from confection import Config
from peft import LoraConfig, PeftModel, get_peft_model
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from ..errors import Errors
from ..evaluation import Counts
from ..models import Llama
from ..models.loading import keep_unpacked, load_base
from ..models.tokens import TextEncoder
from ..requests import doc_sentences
from .interrupt import SaveOnInterrupt
from .loss import Loss, make_batch, use_loss
from .output import save_adapter, save_thresholds
from .recipe import Recipe, TrainingSection
from .sequences import TrainingSequence, doc_examples, training_sequence
from .thresholds import tune

logger = logging.getLogger(__name__)

Batch = list[TrainingSequence]
Split = Literal["train", "devel"]


def finetune(recipe: Recipe, config: Config, output: Path, resume: bool = False) -> Path:
    """Fine-tune an adapter.

    recipe: What to do.
    config: The recipe as written, kept with the adapter.
    output: The folder for the adapter; checkpoints go to `checkpoints` in it.
    resume: Go on from the last checkpoint there.
    RETURNS: The adapter's folder, `output`.
    RAISES: FileExistsError if there are checkpoints and `resume` is not set; ValueError without training data;
        KeyboardInterrupt after Ctrl-C, when a checkpoint is saved.
    """
    checkpoints = output / "checkpoints"
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    if last and not resume:
        raise FileExistsError(Errors.E062.format(path=checkpoints))
    training = recipe.training
    base, tokenizer = load_base(**recipe.base.model_dump())
    encoder = TextEncoder(tokenizer)
    train = _batches(_sequences(recipe, encoder, "train"), training)
    devel = _batches(_sequences(recipe, encoder, "devel"), training)
    if not train:
        raise ValueError(Errors.E063.format(corpora=", ".join(recipe.corpora)))
    set_seed(training.seed)  # the adapter begins at random
    model = _with_adapter(base, recipe)
    use_loss(base, training.response_weight)
    with SaveOnInterrupt() as interrupt:
        trainer = Trainer(
            model=model,
            args=_arguments(training, checkpoints, bool(devel), base.device.type),
            train_dataset=train,
            eval_dataset=devel or None,
            data_collator=_collator(training.loss, encoder),
            callbacks=[interrupt],
        )
        trainer.train(resume_from_checkpoint=last)
    if interrupt.interrupted:
        raise KeyboardInterrupt
    if not trainer.is_world_process_zero():
        return output  # of several processes, one writes
    save_adapter(model, output, recipe, config, encoder, trainer.state.log_history)
    if recipe.thresholds.limit and devel:
        del trainer, model, base  # the adapter goes on a base of its own, without the training's head
        save_thresholds(output, tune_thresholds(recipe, output))
    return output


def tune_thresholds(recipe: Recipe, folder: Path) -> dict[str, tuple[float, Counts]]:
    """Tune the thresholds of an adapter on the devel splits of its recipe."""
    examples = (
        example
        for corpus in recipe.corpora.values()
        for example in doc_examples(_docs(corpus.devel), corpus.labels, together=recipe.scheme.tells_labels)
    )
    model = Llama(adapter=str(folder), **recipe.base.model_dump())
    return tune(model, recipe.prompt, examples, recipe.thresholds.limit, recipe.training.seed)


def _sequences(recipe: Recipe, encoder: TextEncoder, split: Split) -> list[TrainingSequence]:
    """Build the sequences of all corpora for a split, as many of each as the recipe takes.

    Corpora overlap: a sentence of one's devel split may be in another's train split, where it is left out.
    """
    training, found = recipe.training, []
    held_out: frozenset[str] = frozenset()
    if split == "train":
        devel = (doc for corpus in recipe.corpora.values() for doc in _docs(corpus.devel))
        held_out = frozenset(sentence.squashed for doc in devel for _, sentence in doc_sentences(doc))
    for name, corpus in recipe.corpora.items():
        docs = _docs(corpus.train if split == "train" else corpus.devel)
        examples = list(doc_examples(docs, corpus.labels, held_out, recipe.scheme.tells_labels))
        random.Random(training.seed).shuffle(examples)
        limit = corpus.limit if split == "train" else training.limit_devel // len(recipe.corpora)
        left_out = 0
        sequences: list[TrainingSequence] = []
        for request, spans in examples[:limit]:
            try:
                sequence = training_sequence(request, spans, recipe.prompt, recipe.scheme, encoder)
            except ValueError:  # a gold span that no reading can mark
                left_out += 1
                continue
            if len(sequence.ids) <= training.max_tokens:
                sequences.append(sequence)
            else:
                left_out += 1
        found += sequences
        logger.info(
            "%s, %s: %d sequences of %d; left out %d too long or not markable",
            name,
            split,
            len(sequences),
            len(examples),
            left_out,
        )
    return found


def _docs(path: str | None) -> Iterator[Doc]:
    if path is None:
        return
    if not Path(path).is_file():
        raise FileNotFoundError(Errors.E064.format(path=path))
    yield from DocBin().from_disk(path).get_docs(Vocab())


def _batches(sequences: Sequence[TrainingSequence], training: TrainingSection) -> list[Batch]:
    """Put sequences of about the same length together, up to the budget of tokens with padding.

    A batch is one item of the data set, so that the Trainer shuffles, resumes and spreads batches by itself.
    """
    order = list(sequences)
    random.Random(training.seed).shuffle(order)  # among the same length, no corpus comes first
    batches: list[Batch] = [[]]
    for sequence in sorted(order, key=lambda each: len(each.ids)):
        if (len(batches[-1]) + 1) * len(sequence.ids) > training.batch_tokens:
            batches.append([])
        batches[-1].append(sequence)
    return [batch for batch in batches if batch]


def _collator(loss: Loss, encoder: TextEncoder) -> Any:
    pad, end = encoder.tokenizer.pad_token_id, encoder.end_of_turn
    collate = partial(make_batch, loss=loss, pad=end if pad is None else pad, end=end)
    return lambda items: collate(items[0])


def _with_adapter(base: Any, recipe: Recipe) -> PeftModel:
    training, adapter = recipe.training, recipe.adapter
    keep_unpacked(base, fitting=True)
    # PEFT's prepare_model_for_kbit_training is left out: it casts embeddings, norms and output head to float32
    # for those who train them (gigabytes of an 8B model), and the base is frozen already.
    if training.gradient_checkpointing:
        base.enable_input_require_grads()
    if adapter.init:
        return PeftModel.from_pretrained(base, adapter.init, is_trainable=True)
    return get_peft_model(
        base,
        LoraConfig(
            r=adapter.r,
            lora_alpha=adapter.alpha,
            lora_dropout=adapter.dropout,
            target_modules=adapter.target_modules,
            task_type="CAUSAL_LM",
        ),
    )


def _arguments(training: TrainingSection, folder: Path, devel: bool, device: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=training.accumulate,
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        activation_checkpointing=training.gradient_checkpointing,
        optim=training.optimizer,
        logging_steps=10,
        save_steps=training.save_steps,
        save_total_limit=2,
        eval_strategy="steps" if devel else "no",
        eval_steps=training.save_steps,
        remove_unused_columns=False,
        label_names=["labels"],
        prediction_loss_only=True,
        report_to=[],
        seed=training.seed,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
    )

"""Run a recipe: `transformers.Trainer` on a PEFT model, and an adapter folder at the end."""

import logging
import os
from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from accelerate.utils import parse_flag_from_env
from confection import Config
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, TrainingArguments, set_seed

from ..errors import Errors, NotTunedError
from ..evaluation import Counts
from ..models import Llama
from ..models.adapter import Adapter
from ..models.engine import Engine
from ..models.loading import check_device, keep_unpacked, load_base, load_tokenizer, resolve_device
from ..models.tokens import TextEncoder
from .best import KeepBest
from .checkpoints import check_settings, resume_from
from .data import devel_examples, fingerprint, read_split, recipe_batches
from .devel import Devel
from .interrupt import SaveOnInterrupt
from .loss import collator, use_loss
from .output import adapter_weights, describe, save_adapter, save_thresholds
from .recipe import Recipe, TrainingSection, init_folder, with_init
from .sequences import Batch, Example
from .thresholds import tune
from .trainer import AdapterTrainer

logger = logging.getLogger(__name__)


def finetune(recipe: Recipe, config: Config, output: Path, resume: bool | Path = False) -> Path:
    """Fine-tune an adapter.

    recipe: What to do.
    config: The recipe as written, kept with the adapter.
    output: The folder for the adapter; checkpoints go to `checkpoints` in it.
    resume: Go on from the last whole checkpoint there, or from the one that is named.
    RETURNS: The adapter's folder, `output`.
    RAISES: FileExistsError if there are checkpoints and `resume` is not set; ValueError without training data, for
        a device that is not there, a checkpoint that is not whole or of a run with other settings, or if the loss
        is no finite number; ImportError if what to report to is not installed; MemoryError if the device has too
        little; NotTunedError if the adapter is written and its thresholds could not be tuned; KeyboardInterrupt
        after Ctrl-C, when a checkpoint is saved.
    """
    recipe = with_init(recipe)
    _check(recipe)
    checkpoints = output / "checkpoints"
    last = resume_from(checkpoints, resume)
    encoder = TextEncoder(load_tokenizer(recipe.base.name))
    data = _read(recipe, encoder)
    meta = describe(recipe, config, encoder)
    settings = {
        **recipe.settings,
        **{f"base.{fact}": meta["base"][fact] for fact in ("revision", "config_sha256")},
        "training sequences (corpora and prompt)": fingerprint(data.train),
        "devel sequences (corpora and prompt)": fingerprint(data.devel),
    }
    if last:
        check_settings(last, settings)
    trained = _train(recipe, data, settings, encoder, checkpoints, last)
    if trained is None:
        return output
    save_adapter(output, trained.model, trained.weights, {**meta, "kept": trained.kept}, config, trained.log)
    del trained  # the adapter goes on a base of its own, without the loss
    if data.tuned_on:
        try:
            save_thresholds(output, tune_thresholds(recipe, output, data.tuned_on))
        except (OSError, ValueError, RuntimeError) as error:  # a GPU without memory is among these
            raise NotTunedError(Errors.E237.format(path=output, reason=error)) from error
    return output


def _check(recipe: Recipe) -> None:
    """Check what can be checked before anything is read."""
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        raise ValueError(Errors.E236)
    device = resolve_device(recipe.base.device)
    _check_optimizer(recipe.training.optimizer, device)
    check_device(device, recipe.base.quantization)
    _check_index(device)
    _check_reporters(recipe.training)


class _Data(NamedTuple):
    """What a run reads of its corpora, at once: they may change or go before its end.

    train, devel: Batches.
    asked: The requests of the devel batches, with their gold spans.
    tuned_on: Those that thresholds are tuned on.
    """

    train: list[Batch]
    devel: list[Batch]
    asked: list[Example]
    tuned_on: list[Example]


def _read(recipe: Recipe, encoder: TextEncoder) -> _Data:
    """Read the corpora."""
    training = recipe.training
    train = recipe_batches(read_split(recipe, encoder, "train"), training)
    held_out = read_split(recipe, encoder, "devel")
    devel = recipe_batches(held_out, training)
    if not train:
        raise ValueError(Errors.E063.format(corpora=", ".join(recipe.corpora)))
    if training.patience and not devel:
        raise ValueError(Errors.E163)
    tuned_on = list(devel_examples(recipe)) if recipe.thresholds.limit else []
    return _Data(train, devel, [example for example, _ in held_out], tuned_on)


class _Trained(NamedTuple):
    """What came of a training.

    weights: Those of the adapter that is kept.
    kept: Of which step it is, of how many, and its F1 on devel if that was taken.
    log: What the Trainer logged.
    """

    model: PeftModel
    weights: dict[str, torch.Tensor]
    kept: dict[str, Any]
    log: list[dict[str, Any]]


def _train(
    recipe: Recipe,
    data: _Data,
    settings: dict[str, Any],
    encoder: TextEncoder,
    checkpoints: Path,
    last: Path | None,
) -> _Trained | None:
    """Train the adapter.

    settings: Kept with each checkpoint.
    last: The checkpoint to go on from, if any.
    RETURNS: None in all but one of several processes.
    """
    training = recipe.training
    base, _ = load_base(**recipe.base.model_dump())
    set_seed(training.seed)  # the Trainer does so too, but a new adapter is drawn before
    model = with_adapter(base, recipe)
    # For all runs: it refuses what no component could use.
    engine = Engine(cast(PreTrainedModel, model))
    use_loss(base, training.response_weight)
    collate = collator(training.loss, encoder)
    scored = bool(data.devel) and (training.keep == "best" or training.patience is not None)
    keep = KeepBest(training.patience) if scored else None
    if keep and last:
        keep.load(last)
    with SaveOnInterrupt() as interrupt:
        trainer = AdapterTrainer(
            tokenizer=encoder.tokenizer,
            devel=Devel(engine, encoder, recipe.prompt, data.asked, training.decode_tokens) if keep else None,
            keep=keep,
            settings=settings,
            model=model,
            args=_arguments(training, checkpoints, bool(data.devel), base.device.type),
            train_dataset=data.train,
            eval_dataset=data.devel or None,
            data_collator=lambda items: collate(_only(items)),
            callbacks=[interrupt],
        )
        try:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        except torch.OutOfMemoryError as error:
            raise MemoryError(Errors.E231.format(reason=str(error).split(". ")[0])) from error
    if interrupt.interrupted:
        raise KeyboardInterrupt
    if not trainer.is_world_process_zero():
        return None
    state = trainer.state
    best = keep.best if keep and training.keep == "best" else None
    kept = {
        "step": best.step if best else state.global_step,
        "steps": state.global_step,
        "devel_f1": best.f1 if best else None,
    }
    return _Trained(model, best.weights if best else adapter_weights(model), kept, state.log_history)


def tune_thresholds(recipe: Recipe, folder: Path, examples: Iterable[Example]) -> dict[str, tuple[float, Counts]]:
    """Tune the thresholds of an adapter on devel requests, with their gold spans."""
    model, training = Llama(adapter=str(folder), **recipe.base.model_dump()), recipe.training
    tokens = training.max_tokens, training.decode_tokens
    return tune(model, recipe.prompt, examples, recipe.thresholds.limit, training.seed, *tokens)


def _check_reporters(training: TrainingSection) -> None:
    for name in training.report_to:
        if find_spec(name) is None:
            raise ImportError(Errors.E162.format(name=name))


def _check_index(device: str) -> None:
    """Check that a GPU is the one that the Trainer takes: the first, or this process's own of several."""
    where = torch.device(device)
    if where.type == "cuda" and (where.index or 0) != int(os.environ.get("LOCAL_RANK", 0)):
        raise ValueError(Errors.E238.format(device=device, index=where.index or 0))


def _only(items: list[Batch]) -> Batch:
    """Give the one item of a step: it is a whole batch."""
    (batch,) = items
    return batch


def _check_optimizer(optimizer: str, device: str) -> None:
    if "8bit" in optimizer and device.split(":")[0] in ("mps", "hpu"):  # bitsandbytes 0.50 has no kernels there
        what = f'optimizer = "{optimizer}"'
        raise ValueError(Errors.E169.format(what=what, device=device, version=version("bitsandbytes")))


def with_adapter(base: Any, recipe: Recipe) -> PeftModel:
    """Put the adapter of a recipe on its base, to be trained.

    RAISES: FileNotFoundError or ValueError if the adapter to go on from is not there, or of another base.
    """
    training, adapter = recipe.training, recipe.adapter
    keep_unpacked(base, fitting=True)
    # PEFT's prepare_model_for_kbit_training is left out: it casts embeddings, norms and output head to float32
    # for those who train them (gigabytes of an 8B model), and the base is frozen already.
    if training.gradient_checkpointing:
        base.enable_input_require_grads()
    if init := init_folder(adapter):
        begun = Adapter.from_folder(init)
        begun.config["lora_dropout"] = adapter.dropout
        return cast(PeftModel, begun.put_on(base, TextEncoder(load_tokenizer(recipe.base.name)), trainable=True))
    return get_peft_model(
        base,
        LoraConfig(
            r=adapter.r,
            lora_alpha=adapter.alpha,
            lora_dropout=adapter.dropout,
            target_modules=list(adapter.target_modules),
            task_type="CAUSAL_LM",
        ),
    )


def _arguments(training: TrainingSection, folder: Path, devel: bool, device: str) -> TrainingArguments:
    arguments = TrainingArguments(
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
        report_to=list(training.report_to),
        run_name=folder.parent.name,
        logging_nan_inf_filter=False,  # AdapterTrainer stops at such a loss
        seed=training.seed,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
    )
    if arguments.n_gpu > 1:  # asked for, since that sets it
        # Else the Trainer would take an item for each GPU of the machine, and spread the model over them.
        arguments._n_gpu = 1
    return arguments

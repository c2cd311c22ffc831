"""Runs that are killed, interrupted, resumed or stopped, and which adapter is left in the end."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from spacy.cli._util import app
from spacy.tokens import DocBin
from spacy.vocab import Vocab
from training import recipe_of
from transformers import TrainerControl, TrainingArguments
from typer.testing import CliRunner

import spacy_nerllama.cli  # noqa: F401 (adds our commands)
from spacy_nerllama.cards import adapter_card
from spacy_nerllama.finetune import checkpoints, curve, train, trainer
from spacy_nerllama.finetune.best import BEST, KeepBest, Snapshot
from spacy_nerllama.finetune.interrupt import SaveOnInterrupt
from spacy_nerllama.finetune.recipe import TrainingSection, with_init
from spacy_nerllama.finetune.train import finetune
from spacy_nerllama.models import Llama
from spacy_nerllama.models.adapter import Adapter

# Dropout and accumulation draw on all of the state that a checkpoint holds. 9 steps, checkpoints at 2, 4, 6, 8, 9.
HARD = {
    "adapter__dropout": 0.2,
    "training__accumulate": 2,
    "training__batch_tokens": 128,
    "training__max_steps": 9,
    "training__save_steps": 2,
    "thresholds__limit": 0,
}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: Path, other: Path) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(mine[name].equal(theirs[name]) for name in mine)


def meta(folder: Path) -> dict:
    return json.loads((folder / "meta.json").read_text("utf8"))


def history(folder: Path, key: str) -> dict[int, float]:
    entries = json.loads((folder / "history.json").read_text("utf8"))
    return {entry["step"]: entry[key] for entry in entries if key in entry}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that gets a copy of each checkpoint as it is sealed: a run itself keeps the last two."""

    def sealing(folder: Path) -> None:
        checkpoints.seal(folder)
        shutil.copytree(folder, tmp_path / "kept" / folder.name)

    monkeypatch.setattr(trainer, "seal", sealing)
    return tmp_path / "kept"


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_run_resumed_from_any_checkpoint_gives_the_adapter_of_an_uninterrupted_one(
    corpus: Path, tiny_base: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, keep: str
):
    recipe = recipe_of(corpus, tiny_base, training__keep=keep, **HARD)
    whole = finetune(*recipe, corpus / "whole")
    monkeypatch.undo()
    found = sorted(kept.iterdir())
    assert [path.name for path in found] == [f"checkpoint-{step}" for step in (2, 4, 6, 8, 9)]
    for checkpoint in found:
        again = finetune(*recipe, corpus / f"from-{checkpoint.name}", resume=checkpoint)
        assert same(again, whole), checkpoint.name
        assert meta(again)["kept"] == meta(whole)["kept"]
        assert history(again, "eval_loss") == history(whole, "eval_loss")


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from spacy.tokens import DocBin
from spacy.vocab import Vocab
from training import recipe_of
from spacy_nerllama.finetune.train import finetune
from spacy_nerllama.finetune.trainer import AdapterTrainer

save = AdapterTrainer._save_optimizer_and_scheduler

def killed(self, folder):
    save(self, folder)
    if folder.endswith("-6"):
        os.kill(os.getpid(), signal.SIGKILL)

AdapterTrainer._save_optimizer_and_scheduler = killed
corpus = Path(sys.argv[2])
finetune(*recipe_of(corpus, Path(sys.argv[3]), **eval(sys.argv[4])), corpus / "killed")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_killed_during_a_save_goes_on_from_the_checkpoint_before(
    corpus: Path, tiny_base: Path, caplog: pytest.LogCaptureFixture
):
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(corpus), str(tiny_base), repr(HARD)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    folder = corpus / "killed" / "checkpoints"
    assert [(path.name, checkpoints.is_whole(path)) for path in checkpoints.checkpoints(folder)] == [
        ("checkpoint-6", False),
        ("checkpoint-4", True),
        ("checkpoint-2", True),
    ]
    recipe = recipe_of(corpus, tiny_base, **HARD)
    again = finetune(*recipe, corpus / "killed", resume=True)
    assert f"{folder / 'checkpoint-6'} is not whole" in caplog.text
    assert same(again, finetune(*recipe, corpus / "whole"))  # a new adapter is drawn alike in any process


def test_states_of_the_optimiser_in_8_bits_are_gone_on_with(corpus: Path, wide_base: Path):
    """As the recipes for 8B have them; bitsandbytes keeps those of matrices of 4096 numbers and more so."""
    settings = {**HARD, "adapter__r": 64, "training__optimizer": "adamw_8bit", "training__keep": "last"}
    recipe = recipe_of(corpus, wide_base, **{**settings, "training__max_steps": 4})
    whole = finetune(*recipe, corpus / "whole")
    checkpoint = whole / "checkpoints" / "checkpoint-2"
    moments = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    assert torch.uint8 in {tensor.dtype for tensor in leaves(moments)}
    assert same(finetune(*recipe, corpus / "again", resume=checkpoint), whole)


def leaves(tree) -> list[torch.Tensor]:
    if isinstance(tree, dict):
        return [leaf for branch in tree.values() for leaf in leaves(branch)]
    return [tree] if torch.is_tensor(tree) else []


def test_a_run_with_other_settings_is_not_gone_on_with(corpus: Path, tiny_base: Path):
    """The optimiser, the schedule and the order of batches would be those of neither."""
    settings = {**HARD, "training__max_steps": 2}
    folder = finetune(*recipe_of(corpus, tiny_base, **settings), corpus / "adapter")
    other = recipe_of(corpus, tiny_base, **{**settings, "adapter__r": 8, "training__learning_rate": 0.5})
    wrong = r"NL230.*\n  adapter.r: 4 then, 8 now\n  training.learning_rate: 0.02 then, 0.5 now\nSet"
    with pytest.raises(ValueError, match=wrong):
        finetune(*other, folder, resume=True)
    docs = list(DocBin().from_disk(corpus / "train.spacy").get_docs(Vocab()))
    DocBin(docs=docs[:-1]).to_disk(corpus / "fewer.spacy")
    fewer = recipe_of(corpus, tiny_base, **settings, corpora__ours__train=str(corpus / "fewer.spacy"))
    with pytest.raises(ValueError, match=r"NL230.*\n  training sequences \(corpora and prompt\): '\w+' then"):
        finetune(*fewer, folder, resume=True)
    devel = list(DocBin().from_disk(corpus / "devel.spacy").get_docs(Vocab()))
    DocBin(docs=devel[:1]).to_disk(corpus / "less.spacy")
    less = recipe_of(corpus, tiny_base, **settings, corpora__ours__devel=str(corpus / "less.spacy"))
    with pytest.raises(ValueError, match=r"NL230.*\n  devel sequences \(corpora and prompt\): '\w+' then"):
        finetune(*less, folder, resume=True)  # the best F1 so far is of the others
    copied = shutil.copytree(tiny_base, corpus / "base")
    elsewhere = recipe_of(corpus, copied, **settings)
    finetune(*elsewhere, folder, resume=True)  # the same base lies where it likes
    changed = json.loads((copied / "config.json").read_text("utf8"))
    (copied / "config.json").write_text(json.dumps({**changed, "rms_norm_eps": 0.5}))
    with pytest.raises(ValueError, match=r"NL230.*\n  base.config_sha256: '\w+' then, '\w+' now\nSet"):
        finetune(*elsewhere, folder, resume=True)
    moved = (corpus / "devel.spacy").rename(corpus / "moved.spacy")
    free = {"training__save_steps": 1, "training__keep": "last", "corpora__ours__devel": str(moved)}
    finetune(*recipe_of(corpus, tiny_base, **{**settings, **free}), folder, resume=True)


def test_an_adapter_is_gone_on_from(corpus: Path, tiny_base: Path, wide_base: Path):
    still = {**HARD, "training__max_steps": 1, "training__learning_rate": 1e-30}
    first = finetune(*recipe_of(corpus, tiny_base, **{**HARD, "training__max_steps": 2}), corpus / "first")
    other = {"adapter__r": 64, "adapter__alpha": 1, "adapter__target_modules": ["q_proj"]}
    recipe, config = recipe_of(corpus, tiny_base, adapter__init=str(first), **{**still, **other})
    again = finetune(recipe, config, corpus / "again")
    assert same(first, again)
    config = json.loads((again / "adapter_config.json").read_text("utf8"))
    assert config["lora_dropout"] == HARD["adapter__dropout"]
    described = meta(again)["recipe"]["adapter"]
    assert {key: described[key] for key in ("r", "alpha", "dropout")} == {"r": 4, "alpha": 32, "dropout": 0.2}
    assert set(described["target_modules"]) == set(config["target_modules"]) > {"q_proj"}
    assert meta(again)["init"] == Adapter.from_folder(first).fingerprint
    assert meta(first)["init"] is None
    assert with_init(recipe).adapter.r == 4, "what a plan is made of"
    with pytest.raises(ValueError, match=r"NL044.*hidden_size is 32, that of this base 64"):
        finetune(*recipe_of(corpus, wide_base, adapter__init=str(first), **still), corpus / "other")
    with pytest.raises(FileNotFoundError, match="NL049"):
        finetune(*recipe_of(corpus, tiny_base, adapter__init=str(corpus / "none"), **still), corpus / "other")


def test_the_bundled_adapter_is_gone_on_from_by_its_name_on_its_own_base(corpus: Path, tiny_base: Path):
    recipe = recipe_of(corpus, tiny_base, **{**HARD, "adapter__init": "bundled"})
    with pytest.raises(ValueError, match=r"NL044.*SmolLM2-135M.*hidden_size is 576, that of this base 32"):
        finetune(*recipe, corpus / "adapter")


def test_a_device_without_memory_is_told_what_to_set(
    corpus: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 8 GiB.")

    monkeypatch.setattr(trainer.AdapterTrainer, "compute_loss", full)
    with pytest.raises(MemoryError, match=r"NL231.*\(CUDA out of memory\).*training.batch_tokens"):
        finetune(*recipe_of(corpus, tiny_base, **HARD), corpus / "adapter")


def test_thresholds_are_tuned_when_the_memory_of_the_training_is_given_back(
    corpus: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
):
    with_adapter, bases = train.with_adapter, []

    def watched(base, recipe):
        bases.append(weakref.ref(base))
        return with_adapter(base, recipe)

    def tuned(recipe, folder, examples):
        gc.collect()  # as loading a model does
        assert bases[0]() is None
        return {}

    monkeypatch.setattr(train, "with_adapter", watched)
    monkeypatch.setattr(train, "tune_thresholds", tuned)
    finetune(*recipe_of(corpus, tiny_base, **{**HARD, "thresholds__limit": 2}), corpus / "adapter")


def test_a_corpus_that_changes_or_goes_while_training_does_not_cost_the_adapter(
    corpus: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is published says on what it was trained, and has its thresholds."""
    digest = sha256((corpus / "train.spacy").read_bytes()).hexdigest()
    run = trainer.AdapterTrainer.train

    def going(self, **settings):
        (corpus / "train.spacy").unlink()
        (corpus / "devel.spacy").unlink()
        return run(self, **settings)

    monkeypatch.setattr(trainer.AdapterTrainer, "train", going)
    settings = {**HARD, "training__max_steps": 2, "thresholds__limit": 2}
    folder = finetune(*recipe_of(corpus, tiny_base, **settings), corpus / "adapter")
    assert meta(folder)["data"]["ours"]["train"]["sha256"] == digest
    assert set(meta(folder)["thresholds"]) == {"DISEASE"}


def test_an_adapter_whose_thresholds_could_not_be_tuned_is_there_and_they_can_be_tuned_later(
    corpus: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    settings = {"training.max_steps": 2, "training.save_steps": 2}
    recipe_of(corpus, tiny_base)
    command = ["nerllama", "finetune", str(corpus / "recipe.cfg"), "--output", str(corpus / "adapter")]
    command += [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    with monkeypatch.context() as patched:
        patched.setattr(train, "tune", full)
        failed = CliRunner().invoke(app, command)
    assert failed.exit_code == 1
    said = " ".join(failed.output.split())
    assert "The thresholds were not tuned" in said
    assert "(CUDA out of memory.). Put that right, and give the same command with --resume" in said
    assert meta(corpus / "adapter")["thresholds"] == {}
    trained = weights(corpus / "adapter")
    again = CliRunner().invoke(app, [*command, "--resume"])
    assert again.exit_code == 0, again.output
    assert set(meta(corpus / "adapter")["thresholds"]) == {"DISEASE"}
    assert all(trained[name].equal(tensor) for name, tensor in weights(corpus / "adapter").items())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full can be had on Linux only")
def test_a_full_disk_is_named_and_the_checkpoint_before_is_whole(
    corpus: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
):
    save = trainer.AdapterTrainer._save_optimizer_and_scheduler

    def filled(self, folder):
        if folder.endswith("-4"):
            (Path(folder) / "optimizer.pt").symlink_to("/dev/full")
        save(self, folder)

    monkeypatch.setattr(trainer.AdapterTrainer, "_save_optimizer_and_scheduler", filled)
    with pytest.raises(OSError, match=r"NL232.*checkpoint-4 could not.*--resume.*: .*checkpoint-2\."):
        finetune(*recipe_of(corpus, tiny_base, **HARD), corpus / "adapter")


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with two sealed checkpoints."""
    for step in (9, 10):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "optimizer.pt").write_bytes(b"moments")
        checkpoints.seal(folder)
    (tmp_path / "checkpoints" / "checkpoint-notes").mkdir()
    return tmp_path / "checkpoints"


def test_the_last_checkpoint_is_the_one_of_the_latest_step(two: Path):
    assert checkpoints.resume_from(two, True) == two / "checkpoint-10"


@pytest.mark.parametrize("harm", ["truncate", "delete", "unseal", "break the seal"])
def test_a_checkpoint_that_is_not_whole_is_passed_over(two: Path, caplog: pytest.LogCaptureFixture, harm: str):
    last = two / "checkpoint-10"
    if harm == "truncate":
        os.truncate(last / "optimizer.pt", 3)
    elif harm == "delete":
        (last / "optimizer.pt").unlink()
    elif harm == "unseal":
        checkpoints.unseal(last)
    else:
        os.truncate(last / checkpoints.SEAL, 5)
    with pytest.raises(ValueError, match=r"NL161.*checkpoint-10 is not a whole.*: checkpoint-9\."):
        checkpoints.resume_from(two, last)
    assert last.is_dir()
    assert checkpoints.resume_from(two, True) == two / "checkpoint-9"
    assert "checkpoint-10 is not whole" in caplog.text
    assert not last.exists()


def test_a_run_is_not_mixed_with_another(two: Path, tmp_path: Path):
    foreign = two / "checkpoint-9"
    assert checkpoints.resume_from(tmp_path / "new", foreign) == foreign
    mine = shutil.copytree(two, tmp_path / "mine")
    with pytest.raises(FileExistsError, match=f"NL062.*{mine}.*another output"):
        checkpoints.resume_from(mine, foreign)
    assert checkpoints.resume_from(mine, mine / "checkpoint-9") == mine / "checkpoint-9"


def test_resuming_without_a_checkpoint_begins(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert checkpoints.resume_from(tmp_path / "new", False) is None
    assert not caplog.text
    assert checkpoints.resume_from(tmp_path / "new", True) is None
    assert "[NLW164]" in caplog.text


def test_a_loss_that_is_no_number_stops_the_run_and_names_its_texts(corpus: Path, tiny_base: Path):
    settings = {**HARD, "training__learning_rate": 1e30, "training__save_steps": 1, "training__keep": "last"}
    with pytest.raises(ValueError, match=r"NL160.*loss of step \d+ is nan") as error:
        finetune(*recipe_of(corpus, tiny_base, **settings), corpus / "adapter")
    last = checkpoints.last_whole(corpus / "adapter" / "checkpoints")
    assert f"Last good checkpoint: {last}." in str(error.value)
    *_, text = str(error.value).splitlines()
    assert " has " in text
    assert "disease" in text
    assert not (corpus / "adapter" / "adapter_model.safetensors").exists()


def test_a_gradient_that_is_no_number_never_reaches_the_weights(
    corpus: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
):
    with_adapter, seen = train.with_adapter, []

    def spoiled(*args):
        model = with_adapter(*args)
        weight = next(p for name, p in model.named_parameters() if "lora_B" in name)

        def overflow(gradient):
            seen.append(1)
            return gradient * torch.inf if len(seen) == 5 else gradient

        weight.register_hook(overflow)
        return model

    monkeypatch.setattr(train, "with_adapter", spoiled)
    settings = {**HARD, "training__save_steps": 1}
    with pytest.raises(ValueError, match="NL160.*gradient of step 3 is") as error:
        finetune(*recipe_of(corpus, tiny_base, **settings), corpus / "adapter")
    last = checkpoints.last_whole(corpus / "adapter" / "checkpoints")
    assert last is not None
    assert last.name == "checkpoint-2"
    assert all(tensor.isfinite().all() for tensor in weights(last).values())
    texts = str(error.value).splitlines()[1:]
    assert len(texts) > 2  # of both batches of the step


def test_the_best_adapter_is_kept_and_scores_as_the_component_decodes_it(corpus: Path, tiny_base: Path):
    from spacy_nerllama.evaluation import score
    from spacy_nerllama.finetune.data import devel_examples
    from spacy_nerllama.finetune.devel import GREEDY

    settings = {"training__epochs": 3, "training__save_steps": 1, "training__learning_rate": 0.03}
    recipe, config = recipe_of(corpus, tiny_base, thresholds__limit=0, **settings)
    folder = finetune(recipe, config, corpus / "adapter")
    scores, losses = history(folder, "eval_f1"), history(folder, "eval_loss")
    best = max(scores, key=lambda step: (scores[step], -losses[step]))
    assert 0 < scores[best] != scores[1]
    assert meta(folder)["kept"] == {"step": best, "steps": max(scores), "devel_f1": scores[best]}
    examples = list(devel_examples(recipe))
    model = Llama(adapter=str(folder), **recipe.base.model_dump())
    votes = model.vote((request for request, _ in examples), recipe.prompt, GREEDY, 4096)
    counts = score((vote.spans, gold) for vote, (_, gold) in zip(votes, examples, strict=True))
    assert counts.f1 == scores[best]


@pytest.mark.parametrize(("quantization", "checkpointing"), [("null", True), ('"nf4"', False)])
def test_measuring_devel_f1_does_not_change_the_training(
    corpus: Path, tiny_base: Path, wide_base: Path, quantization: str, checkpointing: bool
):
    base = wide_base if quantization != "null" else tiny_base
    settings = {**HARD, "training__gradient_checkpointing": checkpointing, "training__max_steps": 4}
    last = []
    for keep in ("best", "last"):
        recipe = recipe_of(corpus, base, quantization, training__keep=keep, **settings)
        folder = finetune(*recipe, corpus / keep)
        assert bool(history(folder, "eval_f1")) is (keep == "best")
        last.append(folder / "checkpoints" / "checkpoint-4")
    assert same(*last)


def test_a_run_that_gets_no_better_is_stopped_and_stays_so(corpus: Path, tiny_base: Path):
    still = {**HARD, "training__learning_rate": 1e-30, "training__patience": 2}
    recipe = recipe_of(corpus, tiny_base, **still)
    folder = finetune(*recipe, corpus / "adapter")
    assert meta(folder)["kept"]["step"] == 2
    assert meta(folder)["kept"]["steps"] == 6
    first = weights(folder)
    finetune(*recipe, corpus / "adapter", resume=True)
    assert meta(folder)["kept"]["step"] == 2
    assert all(first[name].equal(tensor) for name, tensor in weights(folder).items())


def test_a_run_that_goes_on_saves_as_often_as_it_is_told(
    corpus: Path, tiny_base: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
):
    finetune(*recipe_of(corpus, tiny_base, **HARD), corpus / "whole")
    monkeypatch.undo()
    more = recipe_of(corpus, tiny_base, **{**HARD, "training__save_steps": 1})
    folder = finetune(*more, corpus / "again", resume=kept / "checkpoint-6")
    assert sorted(history(folder, "eval_f1")) == [2, 4, 6, 7, 8, 9]


def test_the_revision_of_a_base_need_not_be_known_again(tmp_path: Path):
    checkpoints.save_settings(tmp_path, {"base.revision": "a1", "base.config_sha256": "x"})
    checkpoints.check_settings(tmp_path, {"base.revision": None, "base.config_sha256": "x"})
    for other in ({"base.revision": "b2", "base.config_sha256": "x"}, {"base.config_sha256": "y"}):
        with pytest.raises(ValueError, match="NL230"):
            checkpoints.check_settings(tmp_path, other)


def test_an_adapter_that_is_cut_short_does_not_pass_for_the_one_before(
    corpus: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = {**HARD, "training__max_steps": 2}
    folder = finetune(*recipe_of(corpus, tiny_base, **settings), corpus / "adapter")
    shutil.rmtree(folder / "checkpoints")

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("spacy_nerllama.finetune.output._write_meta", full)
    with pytest.raises(OSError, match="No space left"):
        finetune(*recipe_of(corpus, tiny_base, **{**settings, "training__learning_rate": 0.5}), folder)
    assert Adapter.from_folder(folder).meta == {}


def test_patience_needs_a_devel_split(corpus: Path, tiny_base: Path):
    recipe, config = recipe_of(corpus, tiny_base, training__patience=1)
    recipe.corpora["ours"].devel = None
    with pytest.raises(ValueError, match="NL163"):
        finetune(recipe, config, corpus / "adapter")


def test_of_equal_scores_the_lower_loss_is_better(tmp_path: Path):
    one, other = Snapshot(4, 0.5, 1.25, {"w": torch.ones(2)}), Snapshot(6, 0.5, 1.0, {})
    assert other.rank > one.rank
    one.to_file(tmp_path / BEST)
    keep = KeepBest(None)
    keep.load(tmp_path)
    assert keep.best is not None
    assert (keep.best.step, keep.best.rank) == (4, (0.5, -1.25))
    assert keep.best.weights["w"].equal(torch.ones(2))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_for_a_checkpoint_and_the_second_is_as_ever(number: signal.Signals):
    before = signal.getsignal(number)
    with SaveOnInterrupt() as interrupt:
        signal.raise_signal(number)
        assert signal.getsignal(number) is before
        control = interrupt.on_step_end(None, None, TrainerControl())
    assert control.should_save
    assert control.should_training_stop


def test_a_reporter_that_is_not_installed_is_named(corpus: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="NL162.*pip install wandb"):
        finetune(*recipe_of(corpus, tiny_base, training__report_to=["wandb"]), corpus / "adapter")


@pytest.mark.parametrize("device", ["cuda:99", "mps:99", "xpu:99", "cudo", "cuda:first", ""])
def test_a_device_that_is_not_there_is_named(corpus: Path, tiny_base: Path, device: str):
    """By `finetune` before it reads anything, and by all that loads a base."""
    from spacy_nerllama.models.loading import load_base

    with pytest.raises(ValueError, match=f"NL168.* device {device} is not there"):
        load_base(str(tiny_base), device=device)
    with pytest.raises(ValueError, match=f"NL168.* device {device} is not there"):
        Llama(str(tiny_base), device=device).load()
    (corpus / "train.spacy").unlink()
    with pytest.raises(ValueError, match=f"NL168.* device {device} is not there"):
        finetune(*recipe_of(corpus, tiny_base, base__device=device), corpus / "adapter")


def test_the_trainer_takes_one_gpu_and_one_batch_at_a_time(monkeypatch: pytest.MonkeyPatch):
    """It would take an item for each GPU of the machine, of which all but the first would be lost."""
    with pytest.raises(ValueError, match="too many values"):
        train._only([[], []])
    train._check_index("cpu")
    train._check_index("cuda:0")
    with pytest.raises(ValueError, match=r"NL238.*CUDA_VISIBLE_DEVICES=1"):
        train._check_index("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "1")  # of several processes
    train._check_index("cuda:1")
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: vars(self).get("_n_gpu") or 2))
    assert train._arguments(TrainingSection(), Path("checkpoints"), False, "cpu").n_gpu == 1


def test_fsdp_is_refused_before_anything_is_read(corpus: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch):
    """As `accelerate launch` asks for it."""
    (corpus / "train.spacy").unlink()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match=r"NL236.*accelerate launch --multi_gpu"):
        finetune(*recipe_of(corpus, tiny_base), corpus / "adapter")


def test_what_is_known_not_to_work_is_refused(corpus: Path, tiny_base: Path):
    from spacy_nerllama.models.loading import check_device

    check_device("cpu", "nf4")
    with pytest.raises(ValueError, match="NL169.*nf4.*vulkan"):
        check_device("vulkan", "nf4")
    recipe = recipe_of(corpus, tiny_base, base__device="mps", training__optimizer="paged_adamw_8bit")
    with pytest.raises(ValueError, match="NL169.*paged_adamw_8bit.*mps"):
        finetune(*recipe, corpus / "adapter")


def test_a_run_can_be_followed_in_tensorboard(corpus: Path, tiny_base: Path):
    pytest.importorskip("tensorboard")
    settings = {**HARD, "training__max_steps": 2, "training__report_to": ["tensorboard"]}
    folder = finetune(*recipe_of(corpus, tiny_base, **settings), corpus / "adapter")
    assert list(folder.rglob("events.out.tfevents.*"))


HISTORY = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "eval_loss": 1.5, "eval_f1": 0.5}]


@pytest.mark.parametrize("entries", [HISTORY, HISTORY[:2], []])
def test_the_training_curve_is_a_png(tmp_path: Path, entries: list[dict]):
    pytest.importorskip("matplotlib")
    assert curve.save_curve(entries, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_no_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(curve, "find_spec", lambda name: None)
    assert not curve.save_curve(HISTORY, tmp_path / "curve.png")
    assert not list(tmp_path.iterdir())


def test_the_folder_says_what_was_trained_on_what(corpus: Path, tiny_base: Path):
    from huggingface_hub import ModelCard

    (tiny_base / "README.md").write_text("---\nlicense: apache-2.0\n---\n", "utf8")
    settings = {**HARD, "training__max_steps": 2, "thresholds__limit": 2}
    folder = finetune(*recipe_of(corpus, tiny_base, **settings), corpus / "adapter")
    (tiny_base / "README.md").unlink()
    facts = meta(folder)
    assert facts["data"]["ours"]["train"] == {
        "file": "train.spacy",
        "sha256": sha256((corpus / "train.spacy").read_bytes()).hexdigest(),
    }
    assert len(facts["base"]["config_sha256"]) == 64
    assert facts["recipe"]["training"]["max_grad_norm"] == 1.0  # a default too
    assert facts["recipe"]["adapter"]["dropout"] == 0.2
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "peft")
    assert card.data.datasets is None, "the recipe's names of corpora are no names on the hub"
    assert card.data.base_model is None  # a folder is no name on the hub
    assert "cannot generate text" in card.text
    assert "strict, on the base as it is stored, at thresholds" in card.text
    quantised = adapter_card({**facts, "recipe": {**facts["recipe"], "base": {"quantization": "nf4"}}})
    assert "'quantization': 'nf4', 'adapter': " in quantised, "the scores are of that"
    assert "strict, on the base in nf4, at thresholds" in quantised
    assert f"| DISEASE | {facts['thresholds']['DISEASE']} |" in card.text
    umask = os.umask(0)
    os.umask(umask)
    published = [path for path in folder.iterdir() if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in published} == {0o666 & ~umask}
    assert not [path.name for path in published if path.suffix in (".pt", ".pth", ".bin", ".pkl")]

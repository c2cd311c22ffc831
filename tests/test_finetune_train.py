"""`finetune` from a recipe to an adapter folder, with the real Trainer, PEFT and NF4, on a tiny base."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import spacy
import torch
from safetensors.torch import load_file
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab
from training import recipe_of

from spacy_nerllama.finetune.data import read_split
from spacy_nerllama.finetune.recipe import read_recipe
from spacy_nerllama.finetune.train import finetune


def test_all_labels_can_be_taught_in_one_reading(corpus: Path, tiny_base: Path) -> None:
    recipe_of(corpus, tiny_base)
    path = corpus / "recipe.cfg"
    text = path.read_text("utf8").replace("CompactPrompt.v1", "MultiTaskPrompt.v1")
    names = '\n[prompt.names]\nDISEASE = "disease"\nGENE = "gene"\n\n[training]'
    path.write_text(text.replace("[training]", names), "utf8")
    labelled(corpus / "train.spacy", lambda doc: [Span(doc, 0, 1, "GENE"), Span(doc, 2, 3, "DISEASE")])
    recipe, config = read_recipe(path, {"training.max_steps": 2, "corpora.ours.labels.GENE": "gene"})
    folder = finetune(recipe, config, corpus / "adapter")
    assert json.loads((folder / "meta.json").read_text())["labels"] == {"DISEASE": "disease", "GENE": "gene"}
    snippet = (folder / "README.md").read_text("utf8").split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(snippet.replace("FOLDER OR HUB NAME OF THIS", str(folder)), names)
    ner = names["nlp"].get_pipe("nerllama_ner")
    assert (ner.prompt, ner.labels) == (recipe.prompt, ("DISEASE", "GENE")), "the card tells how to use it"


def labelled(path: Path, entities: Callable[[Doc], list[Span]]) -> None:
    """Annotate the docs of a file anew."""
    docs = list(DocBin().from_disk(path).get_docs(Vocab()))
    for doc in docs:
        doc.set_ents(entities(doc))
    DocBin(docs=docs).to_disk(path)


def weights(folder: Path) -> dict:
    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize("quantization", ["null", '"nf4"'])
def test_a_recipe_gives_an_adapter_that_the_component_takes(corpus: Path, tiny_base: Path, quantization: str):
    folder = finetune(*recipe_of(corpus, tiny_base, quantization), corpus / "adapter")
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["kept"]["devel_f1"] >= 0.8
    assert meta["labels"] == {"DISEASE": "disease"}
    assert meta["generates_text"] is False
    assert set(meta["thresholds"]) == {"DISEASE"}
    nlp = spacy.blank("en")
    model = {"@llm_models": "nerllama.Llama.v1", "name": str(tiny_base), "adapter": str(folder)}
    nlp.add_pipe("nerllama_ner", config={"model": model})
    doc = nlp("Anna has gout.")
    assert ("gout", "DISEASE") in [(span.text, span.label_) for span in doc.spans["nerllama"]]


@pytest.mark.parametrize("loss", ["response", "both", "full"])
def test_text_losses_give_adapters_that_say_they_generate_text(corpus: Path, tiny_base: Path, loss: str):
    recipe = recipe_of(corpus, tiny_base, training__loss=loss, training__epochs=1, thresholds__limit=0)
    folder = finetune(*recipe, corpus / "adapter")
    assert json.loads((folder / "meta.json").read_text())["generates_text"] is True


def test_a_resumed_run_gives_the_adapter_of_an_uninterrupted_one(corpus: Path, tiny_base: Path):
    once = recipe_of(corpus, tiny_base, thresholds__limit=0)
    whole = finetune(*once, corpus / "whole")
    checkpoints = (corpus / "whole" / "checkpoints").iterdir()
    checkpoint = min(checkpoints, key=lambda path: int(path.name.split("-")[1]))
    resumed = corpus / "resumed" / "checkpoints"
    resumed.mkdir(parents=True)
    checkpoint.rename(resumed / checkpoint.name)
    again = finetune(*once, corpus / "resumed", resume=True)
    mine, theirs = weights(again), weights(whole)
    assert mine.keys() == theirs.keys()
    assert all(mine[name].equal(theirs[name]) for name in mine)


def test_checkpoints_are_not_overwritten_by_chance(corpus: Path, tiny_base: Path):
    recipe = recipe_of(corpus, tiny_base, thresholds__limit=0, training__epochs=1)
    finetune(*recipe, corpus / "adapter")
    with pytest.raises(FileExistsError, match="--resume"):
        finetune(*recipe, corpus / "adapter")


@pytest.fixture
def listening() -> Iterator[None]:
    """Ctrl-C interrupts, also where the tests run in the background and a shell has switched that off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(corpus: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch):
    from spacy_nerllama.finetune import loss

    collate = loss.make_batch
    batches = []

    def interrupting(*args, **kwargs):
        batches.append(1)
        if len(batches) == 2:
            signal.raise_signal(signal.SIGINT)
        return collate(*args, **kwargs)

    monkeypatch.setattr(loss, "make_batch", interrupting)
    recipe = recipe_of(corpus, tiny_base, thresholds__limit=0)
    with pytest.raises(KeyboardInterrupt):
        finetune(*recipe, corpus / "adapter")
    assert list((corpus / "adapter" / "checkpoints").glob("checkpoint-*"))
    assert not (corpus / "adapter" / "adapter_model.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finetune(*recipe, corpus / "adapter", resume=True)
    assert (corpus / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.usefixtures("listening")
def test_a_run_that_fails_gives_ctrl_c_back(corpus: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch):
    from spacy_nerllama.finetune import loss

    def failing(*args, **kwargs):
        raise RuntimeError("no memory")

    monkeypatch.setattr(loss, "make_batch", failing)
    with pytest.raises(RuntimeError, match="no memory"):
        finetune(*recipe_of(corpus, tiny_base, thresholds__limit=0), corpus / "adapter")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_evaluation_does_not_cut_the_gradients_of_a_4_bit_base(corpus: Path, wide_base: Path):
    """bitsandbytes packs layers in evaluation mode, on CPUs with bfloat16; those give no gradient afterwards."""
    from spacy_nerllama.finetune.train import with_adapter
    from spacy_nerllama.models.loading import load_base

    base, _ = load_base(str(wide_base), "nf4", "bfloat16", "cpu")
    recipe, _ = recipe_of(corpus, wide_base, '"nf4"')
    model, ids = with_adapter(base, recipe), torch.tensor([[1, 2, 3, 4]])

    def gradients() -> list[torch.Tensor]:
        model.train()
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.requires_grad]

    before = gradients()
    with torch.no_grad():
        model.eval()(input_ids=ids)
    assert all(torch.equal(one, other) for one, other in zip(before, gradients(), strict=True))


def test_a_missing_corpus_file_names_the_command_that_makes_it(corpus: Path, tiny_base: Path):
    (corpus / "train.spacy").unlink()
    with pytest.raises(FileNotFoundError, match="nerllama convert"):
        finetune(*recipe_of(corpus, tiny_base), corpus / "adapter")


def test_a_corpus_file_that_is_none_of_spacys_is_named(corpus: Path, tiny_base: Path):
    (corpus / "train.spacy").write_text("Anna has gout.", "utf8")
    with pytest.raises(ValueError, match=r"^\[NL090\] .*train\.spacy"):
        finetune(*recipe_of(corpus, tiny_base), corpus / "adapter")


@pytest.mark.parametrize(
    ("has", "said"),
    [
        ("Disease", "Other labels in .*train.spacy: Disease. Did you mean Disease\\?"),
        ("GENE", "Other labels in .*: GENE. Name only labels that the corpus annotates."),
    ],
)
def test_a_label_that_a_train_split_does_not_have_is_no_label_to_teach(
    corpus: Path, tiny_base: Path, has: str, said: str
):
    """It would be taught as absent, and the adapter would mark nothing."""
    labelled(corpus / "train.spacy", lambda doc: [Span(doc, 2, 3, has)])
    with pytest.raises(ValueError, match=rf"NL234.*train split of ours, .* has no DISEASE.*{said}"):
        finetune(*recipe_of(corpus, tiny_base), corpus / "adapter")


def test_devel_splits_without_a_mention_measure_nothing(
    corpus: Path, tiny_base: Path, encoder, caplog: pytest.LogCaptureFixture
):
    """But one of several labels may well be missing in a small one."""
    labelled(corpus / "devel.spacy", lambda doc: [])
    spared = {"training__keep": "last", "thresholds__limit": 0}
    read_split(recipe_of(corpus, tiny_base, **spared)[0], encoder, "devel")
    for needed in spared:
        settings = {key: value for key, value in spared.items() if key != needed}
        with pytest.raises(ValueError, match=r'NL235.*no DISEASE.*keep = "last".*thresholds.limit = 0'):
            read_split(recipe_of(corpus, tiny_base, **settings)[0], encoder, "devel")
    labelled(corpus / "devel.spacy", lambda doc: [Span(doc, 2, 3, "DISEASE")])
    caplog.set_level("INFO")
    read_split(recipe_of(corpus, tiny_base, corpora__ours__labels__GENE="gene")[0], encoder, "devel")
    assert "mentions: 2 DISEASE, 0 GENE" in caplog.text
    assert "devel split of ours has no GENE" in caplog.text


def test_each_corpus_with_a_devel_split_is_measured(corpus: Path, tiny_base: Path, encoder):
    recipe, _ = recipe_of(corpus, tiny_base, training__limit_devel=2)
    ours = recipe.corpora["ours"]
    recipe.corpora["undivided"] = ours.model_copy(update={"devel": None})
    assert len(read_split(recipe, encoder, "devel")) == 2
    recipe.corpora |= {"more": ours, "still more": ours}
    assert len(read_split(recipe, encoder, "devel")) == 3, "fewer than corpora is one of each"


@pytest.mark.slow
def test_two_processes_give_the_adapter_of_one_that_accumulates(corpus: Path, tiny_base: Path):
    """Decisions count alike, wherever they are: batches of different processes hold different numbers of them.

    Plain gradient descent, since Adam makes steps of one size of any gradient.
    """
    settings = {"loss": "both", "max_steps": 4, "optimizer": "sgd", "learning_rate": 0.3, "keep": "last"}
    common = {"thresholds.limit": 0, **{f"training.{key}": value for key, value in settings.items()}}

    def alone(name: str, **more: float) -> dict[str, torch.Tensor]:
        training = {f"training.{key}": value for key, value in more.items()}
        return weights(finetune(*recipe_of(corpus, tiny_base, **{**common, **training}), corpus / name))

    def alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        """To the precision of what is published."""
        assert one.keys() == other.keys()
        return all(torch.allclose(one[name].float(), other[name].float(), atol=1e-5, rtol=0.01) for name in one)

    expected = alone("alone", accumulate=2)
    assert not alike(alone("begun", accumulate=2, learning_rate=1e-30), expected), "it has learnt"
    assert not alike(alone("half", accumulate=1), expected), "from all batches of a step"
    run = (
        "import json, sys; from pathlib import Path; from spacy_nerllama.finetune import recipe, train\n"
        "path, output, settings = sys.argv[1:]\n"
        "train.finetune(*recipe.read_recipe(Path(path), json.loads(settings)), Path(output))\n"
    )
    script = corpus / "run.py"
    script.write_text(run, "utf8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    command = [*launch, str(corpus / "recipe.cfg"), str(corpus / "two"), json.dumps(common)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert alike(weights(corpus / "two"), expected)

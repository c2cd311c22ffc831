"""`nerllama_ner` in spaCy's own training loop, with a tiny base: what it learns, keeps and leaves alone."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from spacy.cli.train import train
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from spacy.util import registry
from thinc.api import Adam, RAdam

from spacy_nerllama.finetune.loss import make_batch, use_loss
from spacy_nerllama.finetune.sequences import doc_examples, training_sequence
from spacy_nerllama.finetune.updating import example_requests
from spacy_nerllama.marking import SINGLE
from spacy_nerllama.models.adapter import Adapter
from spacy_nerllama.pipe import NerLlama
from spacy_nerllama.prompts import CompactPrompt, InstructPrompt, MultiTaskPrompt, PaperPrompt
from spacy_nerllama.updating import Updating, make_lora

CONFIG = Path(__file__).parents[1] / "configs" / "spacy-train.cfg"
LORA = {"lora": make_lora(r=4, alpha=8)}
PEOPLE, ILLS = ("Anna", "Bert", "Carla"), ("gout", "asthma", "measles")


def ill(nlp: Language, who: str, what: str) -> Example:
    """The word after "has" is a disease."""
    words, spaces = [who, "has", what, "."], [True, True, False, False]
    return Example.from_dict(
        Doc(nlp.vocab, words=words, spaces=spaces), {"entities": ["O", "O", "U-DISEASE", "O"]}
    )


def examples(nlp: Language) -> list[Example]:
    return [ill(nlp, who, what) for who in PEOPLE for what in ILLS]


@pytest.fixture
def nlp(tiny_base: Path) -> Language:
    """A pipeline to be trained; nothing is configured but the base."""
    nlp = spacy.blank("en")
    model = {"name": str(tiny_base), "dtype": "float32", "device": "cpu"}
    nlp.add_pipe("nerllama_ner", config={"model": model, "voting": {"samples": 1}})
    return nlp


@pytest.fixture
def begun(nlp: Language) -> Language:
    """The same, initialized from the examples, with a new adapter."""
    torch.manual_seed(0)
    nlp.config["initialize"]["components"]["nerllama_ner"] = LORA
    component(nlp).initialize(lambda: examples(nlp), nlp=nlp, **LORA)
    return nlp


def component(nlp: Language) -> NerLlama:
    ner = nlp.get_pipe("nerllama_ner")
    assert isinstance(ner, NerLlama)
    return ner


def optimizer(rate: float = 0.02) -> Any:
    return Adam(rate, L2=0.0, grad_clip=1.0, use_averages=False)


def weights(nlp: Language) -> bytes:
    adapter = component(nlp).model.adapter
    assert adapter is not None
    return adapter.weights


def found(nlp: Language) -> list[list[tuple[str, str]]]:
    texts = [example.text for example in examples(nlp)]
    return [[(ent.text, ent.label_) for ent in doc.ents] for doc in nlp.pipe(texts)]


# What is learnt


def test_it_learns_a_few_sentences_by_heart(begun: Language) -> None:
    before = begun.evaluate(examples(begun))["ents_f"] or 0.0
    sgd, history = optimizer(), []
    for _ in range(30):
        losses: dict[str, float] = {}
        begun.update(examples(begun), sgd=sgd, losses=losses)
        history.append(losses["nerllama_ner"])
    assert history[-1] < 0.2 * history[0]
    assert begun.evaluate(examples(begun))["ents_f"] > max(before, 0.9), "it decodes with what it has learnt"
    assert component(begun).model.meta["labels"] == {"DISEASE": "disease"}


def test_the_loss_is_that_of_finetune(begun: Language) -> None:
    """On the same sentences: one implementation of sequences and losses."""
    losses = begun.update(examples(begun), sgd=False)
    model = component(begun).model
    encoder, engine, *_ = copy.deepcopy(model).load(trainable=True)
    use_loss(engine.model.get_base_model())
    docs = [example.reference for example in examples(begun)]
    sequences = [
        training_sequence(request, spans, CompactPrompt(), SINGLE, encoder)
        for request, spans in doc_examples(docs, {"DISEASE": "disease"})
    ]
    with torch.no_grad():
        expected = engine.model(**make_batch(sequences, "decision", 0, 0)).loss.item()
    assert losses["nerllama_ner"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", ["response", "both", "full"])
def test_losses_on_text(begun: Language, loss: Any) -> None:
    component(begun).updating = Updating(loss=loss)
    sgd = optimizer(0.005)
    first = begun.update(examples(begun), sgd=sgd)["nerllama_ner"]
    for _ in range(5):
        last = begun.update(examples(begun), sgd=sgd)["nerllama_ner"]
    assert last < first
    assert component(begun).model.meta["generates_text"] is True


def test_a_step_is_the_same_however_its_batch_is_cut(begun: Language) -> None:
    """In three slices, as `accumulate_gradient` cuts it, and in passes of a few tokens."""
    other = copy.deepcopy(component(begun))
    other.updating = Updating(batch_tokens=1)
    mine = component(begun)
    batch = examples(begun)
    mine.update(batch)
    for i in range(0, 9, 3):
        other.update(batch[i : i + 3])
    for ner in (mine, other):
        ner.finish_update(optimizer())
    for one, two in zip(trained(mine), trained(other), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-3)


def test_with_gradient_checkpointing_a_step_is_the_same(begun: Language) -> None:
    """And each layer is read a second time, for the backward pass; not when it decodes."""
    mine, other = component(begun), copy.deepcopy(component(begun))
    other.updating = Updating(gradient_checkpointing=True)
    reads = []
    for ner in (mine, other):
        ner.update(examples(begun)[:1])
        layer = ner.model.load(trainable=True).engine.model.get_base_model().model.layers[0]
        layer.mlp.register_forward_pre_hook(lambda *_, ner=ner: reads.append(ner))
    assert all(parameter.grad is not None for parameter in trained(other))
    for ner in (mine, other):
        ner.update(examples(begun)[1:])
        ner.finish_update(optimizer())
    assert (reads.count(mine), reads.count(other)) == (1, 2)
    for one, two in zip(trained(mine), trained(other), strict=True):
        torch.testing.assert_close(one, two)
    reads.clear()
    docs = [ner(begun.make_doc("Anna has gout.")) for ner in (mine, other)]
    assert reads.count(mine) == reads.count(other)
    one, two = (doc.spans["nerllama"].attrs["scores"] for doc in docs)
    assert list(one) == list(two)


def trained(ner: NerLlama) -> list[torch.Tensor]:
    parameters = ner.model.load(trainable=True).engine.model.parameters()
    return [parameter for parameter in parameters if parameter.requires_grad]


def test_only_the_adapter_changes(begun: Language) -> None:
    model = component(begun).model.load(trainable=True).engine.model
    before = {name: p.clone() for name, p in model.named_parameters()}
    begun.update(examples(begun), sgd=optimizer())
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    assert not model.training


def test_the_optimizers_settings_hold(begun: Language) -> None:
    before = weights(begun)
    begun.update(examples(begun), sgd=optimizer(0.0))
    assert weights(begun) == before, "a learn rate of nothing"
    begun.update(examples(begun), sgd=optimizer())
    assert weights(begun) != before


def test_another_optimizer_is_refused(begun: Language) -> None:
    with pytest.raises(ValueError, match=r"^\[NL171\] .*use_radam.*nerllama_ner"):
        begun.update(examples(begun), sgd=RAdam(0.1))


def test_a_gradient_that_is_no_number_never_reaches_the_weights(begun: Language) -> None:
    weight = trained(component(begun))[0]
    weight.register_hook(lambda gradient: gradient * torch.nan)
    begun.update(examples(begun), sgd=False)
    before = [parameter.detach().clone() for parameter in trained(component(begun))]
    with pytest.raises(ValueError, match=r"^\[NL233\] The gradient of nerllama_ner is nan.*learn_rate"):
        begun.update(examples(begun), sgd=optimizer())
    assert all(torch.equal(one, two) for one, two in zip(before, trained(component(begun)), strict=True))


def test_dropout_is_that_of_the_loop(begun: Language) -> None:
    """It changes the loss of an adapter that does something, and not the decoding."""
    begun.update(examples(begun), sgd=optimizer())
    losses = {begun.update(examples(begun), sgd=False, drop=0.5)["nerllama_ner"] for _ in range(3)}
    assert len(losses) == 3
    assert found(begun) == found(begun)


# Labels and missing annotations


def test_labels_are_those_of_the_examples(nlp: Language) -> None:
    def two() -> list[Example]:
        doc = nlp.make_doc("HeLa has gout")
        return [Example.from_dict(doc, {"entities": ["U-CELL_LINE", "O", "U-DISEASE"]})]

    component(nlp).initialize(two, nlp=nlp)
    assert component(nlp).label_data == {"CELL_LINE": "cell line", "DISEASE": "disease"}


def test_labels_that_are_given_stay(nlp: Language) -> None:
    given = {"DISEASE": "ill", "GENE": "gene or protein"}
    with pytest.warns(UserWarning, match=r"^\[NLW171\] No example annotates GENE .*annotate DISEASE"):
        component(nlp).initialize(lambda: examples(nlp), nlp=nlp, labels=given)
    assert component(nlp).label_data == given


def test_labels_of_which_the_examples_have_none_are_refused(nlp: Language) -> None:
    """Nothing would be taught, without a word."""
    with pytest.raises(ValueError, match=r"^\[NL174\] .*labels are Disease, .* annotate DISEASE"):
        component(nlp).initialize(lambda: examples(nlp), nlp=nlp, labels={"Disease": "disease"})


def test_a_label_that_no_example_annotates_is_not_taught(begun: Language) -> None:
    """Asked for a second label, it would learn that there is none: the loss would be another."""
    alone = begun.update(examples(begun), sgd=False)
    component(begun).add_label("GENE", "gene")
    assert begun.update(examples(begun), sgd=False) == alone


def test_what_is_not_annotated_is_not_taught(begun: Language) -> None:
    vocab = begun.vocab
    unknown = Example(Doc(vocab, words=["Anna", "has", "gout"]), Doc(vocab, words=["Anna", "has", "gout"]))
    before = weights(begun)
    assert begun.update([unknown], sgd=optimizer()) == {"nerllama_ner": 0.0}
    assert weights(begun) == before


def test_sentences_with_missing_tokens_are_left_out(nlp: Language) -> None:
    words = "Anna has gout . Bert may have it .".split()
    doc = Doc(nlp.vocab, words=words, sent_starts=[i in (0, 4) for i in range(9)])
    reference = Doc(nlp.vocab, words=words)
    reference.set_ents([Span(reference, 2, 3, "DISEASE")], missing=[reference[6:8]])
    (request, spans), *rest = example_requests(Example(doc, reference), {"DISEASE": "disease"}, False)
    assert (request.sentence.text, [tuple(span) for span in spans]) == ("Anna has gout .", [(2, 3, "DISEASE")])
    assert not rest


def test_spans_are_aligned_to_the_tokens_that_are_read(nlp: Language) -> None:
    predicted = Doc(nlp.vocab, words=["Anna", "has", "non", "-", "gout"], spaces=[True, True, False, False, False])
    reference = Doc(nlp.vocab, words=["Anna", "has", "non-gout"], spaces=[True, True, False])
    reference.set_ents([Span(reference, 2, 3, "DISEASE")])
    ((_, spans),) = example_requests(Example(predicted, reference), {"DISEASE": "disease"}, False)
    assert [tuple(span) for span in spans] == [(2, 5, "DISEASE")]


def test_sentences_that_are_too_long_are_left_out_and_told_of_once(begun: Language) -> None:
    component(begun).updating = Updating(max_tokens=5)
    with pytest.warns(UserWarning, match=r"^\[NLW170\] 9 of 9 sentences .* 5 tokens"):
        assert begun.update(examples(begun), sgd=optimizer())["nerllama_ner"] == 0
    begun.update(examples(begun), sgd=optimizer())


# Components that learn nothing


def test_a_model_that_is_not_trained_here_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "responses.jsonl").write_text('{"text": "x", "label": "DISEASE", "response": "x"}\n')
    nlp = spacy.blank("en")
    model = {"@llm_models": "nerllama.Replay.v1", "path": str(tmp_path / "responses.jsonl")}
    ner = nlp.add_pipe("nerllama_ner", config={"model": model, "labels": {"DISEASE": "disease"}})
    assert not ner.is_trainable
    nlp.initialize(lambda: examples(nlp))
    assert nlp.update(examples(nlp), sgd=optimizer()) == {}
    with pytest.raises(ValueError, match=r"^\[NL172\] .*Replay"):
        ner.initialize(lambda: examples(nlp), **LORA)


def test_rehearsal_passes_it_by(begun: Language) -> None:
    assert begun.rehearse(examples(begun), sgd=optimizer()) == {}


def test_without_an_adapter_a_new_one_is_made(nlp: Language) -> None:
    assert component(nlp).model.adapter is None
    with pytest.raises(ValueError, match=r"^\[NL051\] "):
        nlp.update(examples(nlp), sgd=optimizer())
    component(nlp).add_label("DISEASE", "disease")
    nlp.update(examples(nlp), sgd=optimizer())
    assert component(nlp).model.adapter is not None


@pytest.mark.parametrize("settings", [{"loss": "mine"}, {"max_tokens": 0}, {"batch_tokens": 0}])
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^\[NL173\] "):
        Updating(**settings)


# Written, read, copied, gone on with


def test_it_goes_on_from_where_it_was_written(begun: Language, tmp_path: Path) -> None:
    for _ in range(3):
        begun.update(examples(begun), sgd=optimizer())
    begun.to_disk(tmp_path / "pipeline")
    again = spacy.load(tmp_path / "pipeline")
    assert found(again) == found(begun)
    assert weights(again) == weights(begun), "in full precision"
    sgd = again.resume_training(sgd=optimizer())
    assert again.update(examples(again), sgd=sgd) == pytest.approx(
        begun.update(examples(begun), sgd=False), rel=1e-4
    )
    assert weights(again) != weights(begun)


@pytest.mark.parametrize("copied", [lambda ner: pickle.loads(pickle.dumps(ner)), copy.deepcopy])
def test_a_copy_has_what_was_learnt_and_goes_its_own_way(begun: Language, copied: Any) -> None:
    begun.update(examples(begun), sgd=optimizer())
    expected = weights(begun)
    assert len(pickle.dumps(component(begun).model)) < 200_000, "weights of the base are not in it"
    other = copied(component(begun))
    assert other.model.adapter.weights == expected
    other.update(examples(begun), sgd=optimizer())
    assert other.model.adapter.weights != expected
    assert weights(begun) == expected


def test_what_was_learnt_survives_unloading(begun: Language) -> None:
    begun.update(examples(begun), sgd=optimizer())
    expected = component(begun).model.load().engine
    state = {name: p.clone() for name, p in expected.model.named_parameters() if "lora_" in name}
    component(begun).unload()
    again = dict(component(begun).model.load(trainable=True).engine.model.named_parameters())
    assert all(torch.equal(again[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    "prompt",
    [CompactPrompt(), MultiTaskPrompt({"DISEASE": "disease"}), InstructPrompt(seed=3), PaperPrompt(n_examples=5)],
    ids=lambda prompt: type(prompt).__name__,
)
def test_the_adapter_says_with_which_prompt_it_was_trained(begun: Language, prompt: Any) -> None:
    """`merge` reads with it."""
    component(begun).prompt = prompt
    begun.update(examples(begun)[:1], sgd=optimizer())
    config = component(begun).model.meta["prompt"]
    assert registry.resolve({"prompt": config})["prompt"] == prompt


def test_of_a_prompt_of_ones_own_the_adapter_does_not_say_another(begun: Language) -> None:
    begun.update(examples(begun)[:1], sgd=optimizer())
    assert "prompt" in component(begun).model.meta
    component(begun).prompt = lambda request: CompactPrompt()(request)
    begun.update(examples(begun)[:1], sgd=optimizer())
    assert "prompt" not in component(begun).model.meta


def test_a_4_bit_base_learns_before_and_after_it_is_decoded_with(wide_base: Path) -> None:
    """bitsandbytes packs layers in evaluation mode, on CPUs with bfloat16; packed ones pass no gradient."""
    nlp = spacy.blank("en")
    model = {"name": str(wide_base), "quantization": "nf4", "dtype": "bfloat16", "device": "cpu"}
    ner = nlp.add_pipe("nerllama_ner", config={"model": model, "voting": {"samples": 1}})
    ner.initialize(lambda: examples(nlp), **LORA)
    for _ in range(2):
        before = weights(nlp)
        nlp.update(examples(nlp), sgd=optimizer())
        assert weights(nlp) != before
        found(nlp)
    assert ner.model.adapter.meta["recipe"] == {"base": {"quantization": "nf4"}}, "merge compares with that"


# The whole of `spacy train`


@pytest.fixture
def files(tmp_path: Path) -> Path:
    nlp = spacy.blank("en")
    for name in ("train", "dev"):
        DocBin(docs=[example.reference for example in examples(nlp)]).to_disk(tmp_path / f"{name}.spacy")
    return tmp_path


def overrides(files: Path, base: Path, **more: Any) -> dict[str, Any]:
    return {
        "paths.train": str(files / "train.spacy"),
        "paths.dev": str(files / "dev.spacy"),
        "components.nerllama_ner.model.name": str(base),
        "components.nerllama_ner.model.device": "cpu",
        "training.max_epochs": 0,
        "training.max_steps": 20,
        "training.eval_frequency": 10,
        "training.optimizer.learn_rate.initial_rate": 0.02,
        "training.optimizer.learn_rate.warmup_steps": 1,
        **more,
    }


@pytest.mark.parametrize("checkpointing", [False, True])
def test_spacy_train(
    files: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str], checkpointing: bool
) -> None:
    setting = {"components.nerllama_ner.updating.gradient_checkpointing": checkpointing}
    train(CONFIG, files / "out", overrides=overrides(files, tiny_base, **setting))
    assert "nerllama_ner" in capsys.readouterr().out
    for kind in ("model-best", "model-last"):
        folder = files / "out" / kind
        assert (folder / "nerllama_ner" / "adapter" / "adapter_model.safetensors").is_file()
        assert sum(path.stat().st_size for path in folder.rglob("*")) < 1_000_000, "the base does not travel"
    best = spacy.load(files / "out" / "model-best")
    assert best.meta["performance"]["ents_f"] > 0.9
    assert best.evaluate(examples(best))["ents_f"] == pytest.approx(best.meta["performance"]["ents_f"])
    assert "nerllama_ner_loss" in best.meta["performance"]


def test_spacy_train_goes_on_from_a_pipeline(files: Path, tiny_base: Path) -> None:
    """As docs/spacy-train.md says: the component is sourced, and then resumed, not initialized."""
    train(CONFIG, files / "first", overrides=overrides(files, tiny_base, **{"training.max_steps": 4}))
    config = spacy.util.load_config(CONFIG)
    config["components"]["nerllama_ner"] = {"source": str(files / "first" / "model-last")}
    config["initialize"]["components"] = {}
    config.to_disk(files / "second.cfg")
    settings = overrides(files, tiny_base, **{"training.max_steps": 1, "training.eval_frequency": 1})
    settings["training.optimizer.learn_rate.initial_rate"] = 0.0
    kept = {key: value for key, value in settings.items() if not key.startswith("components.")}
    train(files / "second.cfg", files / "second", overrides=kept)
    first, second = (spacy.load(files / run / "model-last") for run in ("first", "second"))
    assert weights(first) == weights(second), "nothing was learnt at a rate of 0, and nothing was begun anew"


def classified(nlp: Language) -> list[Example]:
    batch = examples(nlp)
    for i, example in enumerate(batch):
        example.reference.cats = {"A": i % 2, "B": 1 - i % 2}
    return batch


def test_beside_another_trainable_component(nlp: Language) -> None:
    nlp.add_pipe("textcat")
    nlp.initialize(lambda: classified(nlp))
    losses: dict[str, float] = {}
    for _ in range(3):
        nlp.update(classified(nlp), sgd=optimizer(), losses=losses, annotates=["nerllama_ner"])
    assert losses["nerllama_ner"] > 0
    assert losses["textcat"] > 0


def test_frozen_it_is_not_touched(nlp: Language, tiny_adapter: Path) -> None:
    ner, textcat = component(nlp), nlp.add_pipe("textcat")
    ner.model.set_adapter(Adapter.from_folder(tiny_adapter))
    before, labels = weights(nlp), ner.label_data
    with nlp.select_pipes(disable=["nerllama_ner"]):
        nlp.initialize(lambda: classified(nlp))
    losses = nlp.update(classified(nlp), sgd=optimizer(), exclude=["nerllama_ner"])
    assert set(losses) == {textcat.name}
    assert (weights(nlp), ner.label_data) == (before, labels)

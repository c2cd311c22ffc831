"""The local model: what is loaded, when, and what is said where it cannot be."""

import copy
import gc
import os
import pickle
import shutil
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from recorder import DISEASE, GENE, sentence
from safetensors.torch import load_file, save_file
from spacy_llm.registry import registry

from spacy_nerllama.models import Llama, loading
from spacy_nerllama.models.adapter import Adapter
from spacy_nerllama.models.loading import load_base, resolve_device, resolve_dtype
from spacy_nerllama.prompts import CompactPrompt
from spacy_nerllama.requests import Request
from spacy_nerllama.voting import Votes, Voting

REQUESTS = [
    Request(sentence(text), labels)
    for text in ("The ATM gene causes ataxia.", "No lithium (2 mg)")
    for labels in (DISEASE, GENE)
]


def votes(model: Llama, voting: Voting | None = None) -> list[Votes]:
    return list(model.vote(REQUESTS, CompactPrompt(), voting or Voting(), 4096))


def tiny_llama(tiny_base: Path, **settings: Any) -> Llama:
    return Llama(str(tiny_base), **{"dtype": "float32", "device": "cpu", **settings})


@pytest.fixture
def own_base(tiny_base: Path, tmp_path: Path) -> Path:
    """A base that no other test has in memory."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def test_it_is_registered() -> None:
    model = registry.llm_models.get("nerllama.Llama.v1")(name="some/where")
    assert isinstance(model, Llama)
    assert model.adapter is None


def test_nothing_is_loaded_before_the_first_vote(own_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    monkeypatch.setattr(loading, "load_base", lambda **base: loads.append(base) or load_base(**base))
    model = tiny_llama(own_base)
    assert (model.adapter, model.meta, loads) == (None, {}, [])
    first = votes(model)
    assert votes(model) == first
    assert len(loads) == 1
    assert len(first) == len(REQUESTS)
    assert any(answer.spans for answer in first)


def test_threads_load_it_once(own_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    monkeypatch.setattr(loading, "load_base", lambda **base: loads.append(base) or load_base(**base))
    model, found = tiny_llama(own_base), []
    threads = [threading.Thread(target=lambda: found.append(votes(model))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert found == [found[0]] * 3


def test_threads_share_it(tiny: Llama) -> None:
    """As those of a web server do: batches take turns, and each thread gets its own answers."""
    expected = votes(tiny)
    found: dict[int, list[list[Votes]]] = {}

    def serve(i: int) -> None:
        found[i] = [votes(tiny) for _ in range(5)]

    threads = [threading.Thread(target=serve, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: [expected] * 5 for i in range(4)}


def test_it_is_warmed_up_and_unloaded(own_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    monkeypatch.setattr(loading, "load_base", lambda **base: loads.append(base) or load_base(**base))
    model = tiny_llama(own_base)
    model.warm_up()
    assert len(loads) == 1
    first = votes(model)
    assert len(loads) == 1
    engine = weakref.ref(model.load().engine)
    going_on = model.vote(REQUESTS, CompactPrompt(), Voting(), 4096)
    model.unload()
    assert list(going_on) == first, "what was begun is finished"
    del going_on
    gc.collect()
    assert engine() is None, "its memory is free"
    assert votes(model) == first
    assert len(loads) == 2


def test_an_adapter_changes_the_votes(tiny: Llama, tiny_base: Path, tiny_adapter: Path) -> None:
    model = tiny_llama(tiny_base, adapter=str(tiny_adapter))
    assert model.meta["labels"] == {"DISEASE": "disease", "GENE": "gene or protein"}
    with_adapter = votes(model)
    assert with_adapter != votes(tiny)
    model.set_adapter(None)
    assert model.meta == {}
    assert votes(model) == votes(tiny)
    model.set_adapter(Adapter.from_folder(tiny_adapter))
    assert votes(model) == with_adapter


def test_its_settings_are_those_of_voting(tiny: Llama) -> None:
    greedy = votes(tiny, Voting(samples=1))
    assert {vote for answer in greedy for vote in answer.spans.values()} == {1.0}
    assert votes(tiny, Voting(samples=10)) == votes(tiny, Voting(samples=10))
    assert votes(tiny, Voting(samples=10)) != votes(tiny, Voting(samples=10, seed=1))
    sharp = votes(tiny, Voting(temperature=1e-4))  # then all readings are the greedy one
    for one, other in zip(sharp, greedy, strict=True):
        assert one.spans == pytest.approx(other.spans, abs=1e-6)


def test_nf4(tiny_base: Path) -> None:
    """The linear layers in 4 bits, the embeddings and the output head as they are; it reads as ever."""
    from bitsandbytes.nn import Linear4bit

    model = tiny_llama(tiny_base, quantization="nf4", dtype="bfloat16")
    engine = model.load().engine
    layers = [name.rsplit(".")[-1] for name, part in engine.model.named_modules() if isinstance(part, Linear4bit)]
    assert set(layers) == {f"{x}_proj" for x in ("q", "k", "v", "o", "gate", "up", "down")}
    answers = votes(model)
    assert any(answer.spans for answer in answers)
    assert all(0 < vote <= 1 for answer in answers for vote in answer.spans.values())


def test_nf4_with_an_adapter(tiny_base: Path, tiny_adapter: Path) -> None:
    settings = {"quantization": "nf4", "dtype": "bfloat16"}
    adapted = tiny_llama(tiny_base, adapter=str(tiny_adapter), **settings)
    assert votes(adapted) != votes(tiny_llama(tiny_base, **settings))


def test_a_missing_base_says_how_to_fetch_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERLLAMA_HOME", str(tmp_path))
    model = Llama()
    model.set_adapter(None)
    with pytest.raises(FileNotFoundError) as error:
        votes(model)
    assert str(error.value).startswith("[NL001] ")
    assert str(error.value).endswith(" with: python -m spacy nerllama download")


@pytest.mark.parametrize("name", ["/no/such/folder", "./no-such-folder", "~/no-such-folder", "no-such-file.gguf"])
def test_a_base_that_is_not_there(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"^\[NL042\] .*no-such|^\[NL042\] .*/no/such"):
        votes(Llama(name))


def test_what_is_no_base_is_named(tmp_path: Path) -> None:
    for name in ("", " "):
        with pytest.raises(OSError, match=r"\[NL(042|177)\]"):
            load_base(name)
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(ValueError, match=rf"\[NL177\] .*{tmp_path.name}"):
        load_base(str(tmp_path))


def test_a_device_that_is_not_there_is_its_own_models_fault(own_base: Path) -> None:
    absent = tiny_llama(own_base, device="gpu")
    with pytest.raises(ValueError, match=r"\[NL168\]"):
        votes(absent)
    assert votes(tiny_llama(own_base))
    del absent


@pytest.mark.parametrize("name", ["/no/such/adapter", "./no-such-adapter", "no-such-adapter"])
def test_an_adapter_that_is_not_there(tiny_base: Path, name: str) -> None:
    model = tiny_llama(tiny_base, adapter=name)
    missing = r"^\[NL049\] There is no adapter folder .*no[-/]such.* hub name"
    with pytest.raises(FileNotFoundError, match=missing):
        _ = model.adapter
    with pytest.raises(FileNotFoundError, match=missing):
        votes(model)


def test_of_an_adapter_that_is_being_written_nothing_is_known(tiny_base: Path, tmp_path: Path) -> None:
    """A pipeline that brings its own is read all the same."""
    model = tiny_llama(tiny_base, adapter=str(tmp_path))
    assert model.meta == {}
    with pytest.raises(FileNotFoundError, match="NL043"):
        votes(model)


def test_an_adapter_of_another_base(tiny_base: Path, tiny_adapter: Path) -> None:
    model = tiny_llama(tiny_base, adapter=str(tiny_adapter))
    adapter = Adapter.from_folder(tiny_adapter)
    base = {**adapter.meta["base"], "tokenizer": "another"}
    model.set_adapter(Adapter(adapter.config, adapter.weights, {**adapter.meta, "base": base}))
    for _ in range(2):  # nothing of the first try is kept
        with pytest.raises(ValueError, match=r"^\[NL044\] "):
            votes(model)


@pytest.mark.parametrize("copied", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy])
def test_a_copy_loads_for_itself(tiny_base: Path, tiny_adapter: Path, copied: Any) -> None:
    model = tiny_llama(tiny_base, adapter=str(tiny_adapter))
    expected = votes(model)
    assert len(pickle.dumps(model)) < 200_000, "weights of the base are not in it"
    again = copied(model)
    assert again.adapter == model.adapter
    assert votes(again) == expected


def test_a_gpu_is_not_used_in_a_forked_process(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU in the tests: what PyTorch says after a fork is said for it."""
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    threads = torch.get_num_threads()
    model = tiny_llama(tiny_base, device="auto")
    model._process = os.getpid() + 1
    try:
        with pytest.raises(RuntimeError, match=r"^\[NL046\] .*n_process=1"):
            votes(model)
        on_cpu = tiny_llama(tiny_base)
        on_cpu._process = os.getpid() + 1
        assert len(votes(on_cpu)) == len(REQUESTS)
        assert torch.get_num_threads() == 1, "the threads of the parent are gone"
    finally:
        torch.set_num_threads(threads)


def test_devices_and_dtypes(tiny_base: Path) -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda:0" if torch.cuda.is_available() else "cpu")
    assert resolve_dtype("float16", "cpu") is torch.float16
    assert resolve_dtype("auto", "cpu") in (torch.float32, torch.bfloat16)
    for dtype in (torch.float32, torch.bfloat16):
        base, _ = load_base(str(tiny_base), dtype=str(dtype).removeprefix("torch."), device="cpu")
        assert base.dtype is dtype
        assert not base.training
        assert not any(parameter.requires_grad for parameter in base.parameters())


def test_votes_in_bfloat16_are_near(tiny: Llama, tiny_base: Path) -> None:
    near = votes(tiny_llama(tiny_base, dtype="bfloat16"), Voting(min_mass=0.0))
    for one, other in zip(near, votes(tiny, Voting(min_mass=0.0)), strict=True):
        assert one.spans == pytest.approx(other.spans, abs=0.1)


# Several models on one base


@pytest.fixture
def second_adapter(own_base: Path, encoder, tmp_path: Path) -> Path:
    """Another adapter than `tiny_adapter`."""
    base, _ = load_base(str(own_base), dtype="float32", device="cpu")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
        get_peft_model(base, config).save_pretrained(str(tmp_path / "second"))
    return tmp_path / "second"


def storages(*models: Llama) -> dict[int, int]:
    """What the models have in memory, adapters aside: each storage with its size."""
    parameters = (
        parameter
        for model in models
        for name, parameter in model.load().engine.model.named_parameters()
        if "lora_" not in name
    )
    found = [parameter.untyped_storage() for parameter in parameters]
    return {storage.data_ptr(): storage.nbytes() for storage in found}


def merged(model: Llama) -> bool:
    return not any("lora_" in name for name, _ in model.load().engine.model.named_parameters())


@pytest.mark.parametrize("settings", [{}, {"quantization": "nf4", "dtype": "bfloat16"}], ids=["float32", "nf4"])
def test_models_share_one_base(
    own_base: Path, tiny_adapter: Path, second_adapter: Path, settings: dict[str, Any]
) -> None:
    """And give what each gives alone: alone means loaded when the others are gone."""
    adapters = [None, str(tiny_adapter), str(second_adapter)]
    alone = []
    for adapter in adapters:
        model = tiny_llama(own_base, adapter=adapter, **settings)
        alone.append((votes(model), sum(storages(model).values())))
        del model
    assert alone[1][0] != alone[2][0] != alone[0][0]
    models = [tiny_llama(own_base, adapter=adapter, **settings) for adapter in adapters]
    for model, (expected, _) in zip(models, alone, strict=True):
        for one, other in zip(votes(model), expected, strict=True):
            assert one.spans == pytest.approx(other.spans, abs=1e-4 if not settings else 0.05)
    assert sum(storages(*models).values()) <= alone[0][1]
    assert storages(models[0]) == storages(models[1]) == storages(models[2])


def test_models_that_share_answer_in_threads(own_base: Path, tiny_adapter: Path, second_adapter: Path) -> None:
    models = [tiny_llama(own_base, adapter=adapter) for adapter in (None, str(tiny_adapter), str(second_adapter))]
    expected = [votes(model) for model in models]
    found: dict[int, list[list[Votes]]] = {}

    def serve(i: int) -> None:
        found[i] = [votes(models[i]) for _ in range(3)]

    threads = [threading.Thread(target=serve, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: [expected[i]] * 3 for i in range(3)}


def test_a_lone_adapter_is_merged_and_makes_way(own_base: Path, tiny_adapter: Path, second_adapter: Path) -> None:
    first = tiny_llama(own_base, adapter=str(tiny_adapter))
    alone = votes(first)
    assert merged(first)
    second = tiny_llama(own_base, adapter=str(second_adapter))
    _ = second.adapter
    assert merged(first), "nothing has changed before the second is used"
    votes(second)
    assert not merged(second)
    assert not merged(first)
    assert storages(first) == storages(second)
    for one, other in zip(votes(first), alone, strict=True):
        assert one.spans == pytest.approx(other.spans, abs=1e-4)
    del second
    first.unload()
    votes(first)
    assert merged(first), "alone again"


def test_models_with_the_same_adapter_share_it_merged(own_base: Path, tiny_adapter: Path) -> None:
    """As a pipeline does that is loaded twice, or copied: the votes are the very same."""
    first = tiny_llama(own_base, adapter=str(tiny_adapter))
    expected = votes(first)
    for second in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert votes(second) == votes(first) == expected
        assert merged(first)
        assert merged(second)
        assert storages(first) == storages(second)


def test_other_settings_are_another_base(own_base: Path, tiny_adapter: Path) -> None:
    one, other = tiny_llama(own_base), tiny_llama(own_base, dtype="bfloat16")
    same = Llama(f"{own_base}/../{own_base.name}", dtype="float32", device="cpu")
    assert storages(one) == storages(same)
    assert storages(one).keys().isdisjoint(storages(other))


def test_a_base_whose_files_were_replaced_is_another(own_base: Path) -> None:
    old = tiny_llama(own_base)
    before, fingerprint = votes(old), old.fingerprint()
    weights = own_base / "model.safetensors"
    state = {name: tensor * 1.5 for name, tensor in load_file(weights).items()}
    weights.unlink()
    save_file(state, weights, {"format": "pt"})
    new = tiny_llama(own_base)
    assert new.fingerprint() != fingerprint
    assert votes(new) != before
    assert votes(old) == before, "as long as it is loaded"


def test_the_memory_of_a_base_that_nobody_uses_is_free(own_base: Path) -> None:
    models = [tiny_llama(own_base), tiny_llama(own_base)]
    base = weakref.ref(models[0].load().base)
    votes(models[1])
    for model in models:
        model.unload()
    assert base() is None


@pytest.mark.parametrize("name", ["owner/not-on-this-machine", "a b/c d"])
def test_an_adapter_that_the_hub_does_not_give(name: str) -> None:
    model = Llama("some/where", adapter=name)
    assert model.meta == {}, "asking fetches nothing"
    with pytest.raises(FileNotFoundError, match=rf"^\[NL170\] .*{name}.*Check the setting `adapter`"):
        _ = model.adapter

"""Adapters: folders that PEFT reads too, and clear errors where one does not fit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from spacy_nerllama.models.adapter import CONFIG, META, WEIGHTS, Adapter, base_facts

READ = torch.tensor([[1, 300, 17, 4000, 8]])


def base_of(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(READ).logits


@pytest.fixture
def adapter(tiny_adapter: Path) -> Adapter:
    return Adapter.from_folder(tiny_adapter)


def test_a_folder_comes_back(adapter: Adapter, tmp_path: Path) -> None:
    adapter.to_folder(tmp_path / "new" / "adapter")
    assert Adapter.from_folder(tmp_path / "new" / "adapter") == adapter
    assert sorted(path.name for path in (tmp_path / "new" / "adapter").iterdir()) == [CONFIG, WEIGHTS, META]
    assert adapter.meta["labels"] == {"DISEASE": "disease", "GENE": "gene or protein"}


def test_a_folder_is_overwritten_as_a_whole(adapter: Adapter, tmp_path: Path) -> None:
    """What was known of another adapter does not stay behind."""
    adapter.to_folder(tmp_path)
    bare = Adapter(adapter.config, adapter.weights)
    bare.to_folder(tmp_path)
    assert Adapter.from_folder(tmp_path) == bare


def test_a_dict_comes_back(adapter: Adapter) -> None:
    assert Adapter(**adapter.to_dict()) == adapter


def test_an_adapter_from_elsewhere_has_no_meta(tiny_adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_adapter, tmp_path / "plain")
    (tmp_path / "plain" / META).unlink()
    assert Adapter.from_folder(tmp_path / "plain").meta == {}


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_missing_file(tiny_adapter: Path, tmp_path: Path, file: str) -> None:
    shutil.copytree(tiny_adapter, tmp_path / "part")
    (tmp_path / "part" / file).unlink()
    with pytest.raises(FileNotFoundError, match=rf"^\[NL043\] .*part has no {file}\. Check the setting `adapter`"):
        Adapter.from_folder(tmp_path / "part")


def test_the_same_as_peft_itself(adapter: Adapter, tiny_base: Path, tiny_adapter: Path, encoder) -> None:
    plain = logits(base_of(tiny_base))
    expected = logits(PeftModel.from_pretrained(base_of(tiny_base), str(tiny_adapter)))
    assert (expected - plain).abs().max() > 0.1, "the adapter matters"
    torch.testing.assert_close(logits(adapter.put_on(base_of(tiny_base), encoder)), expected)


def test_peft_reads_what_was_written(adapter: Adapter, tiny_base: Path, encoder, tmp_path: Path) -> None:
    adapter.to_folder(tmp_path)
    expected = logits(adapter.put_on(base_of(tiny_base), encoder))
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base_of(tiny_base), str(tmp_path))), expected)


def test_nothing_of_it_is_trained(adapter: Adapter, tiny_base: Path, encoder) -> None:
    base = base_of(tiny_base).requires_grad_(False)
    model = adapter.put_on(base, encoder)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def put(adapter: Adapter, model: Any, encoder, **meta: Any) -> None:
    Adapter(adapter.config, adapter.weights, meta).put_on(model, encoder)


@pytest.mark.parametrize("fact", ["hidden_size", "num_hidden_layers", "tokenizer"])
def test_another_base_than_it_was_trained_on(adapter: Adapter, tiny_base: Path, encoder, fact: str) -> None:
    facts = {**adapter.meta["base"], "name": "owner/other", fact: "another"}
    message = rf"^\[NL044\] .*another base \(owner/other\): its {fact} is another, .*Set `name`"
    with pytest.raises(ValueError, match=message):
        put(adapter, base_of(tiny_base), encoder, base=facts)


@pytest.mark.parametrize("change", [{"hidden_size": 64}, {"num_hidden_layers": 3}, {"num_hidden_layers": 1}])
def test_other_shapes_where_nothing_is_known_of_its_base(
    adapter: Adapter, tiny_base: Path, encoder, change: dict[str, int]
) -> None:
    config = LlamaConfig.from_pretrained(tiny_base, **change)
    with pytest.raises(ValueError, match=r"^\[NL045\] The adapter does not fit this base .*Set `name`"):
        put(adapter, LlamaForCausalLM(config), encoder)


def test_a_base_without_the_layers(adapter: Adapter, tiny_base: Path, encoder) -> None:
    config = {**adapter.config, "target_modules": ["c_attn"]}
    with pytest.raises(ValueError, match=r"^\[NL045\] .*c_attn"):
        put(Adapter(config, adapter.weights), base_of(tiny_base), encoder)


def test_weights_that_are_none(adapter: Adapter, tiny_base: Path, encoder) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    with pytest.raises(ValueError, match=r"^\[NL055\] .*git lfs pull"):
        put(Adapter(adapter.config, pointer), base_of(tiny_base), encoder)


def test_only_lora(tiny_base: Path, tmp_path: Path, encoder) -> None:
    """Of prompt tuning, for example, a decoder's hidden states would show nothing."""
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(base_of(tiny_base), prompts).save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=r"^\[NL056\] .*PROMPT_TUNING"):
        Adapter.from_folder(tmp_path).put_on(base_of(tiny_base), encoder)


def test_settings_of_a_later_peft_are_left_out(adapter: Adapter, tiny_base: Path, encoder) -> None:
    later = Adapter({**adapter.config, "not_yet_known": True}, adapter.weights, adapter.meta)
    with pytest.warns(UserWarning, match="not_yet_known"):
        model = later.put_on(base_of(tiny_base), encoder)
    torch.testing.assert_close(logits(model), logits(adapter.put_on(base_of(tiny_base), encoder)))


def test_what_must_agree(tiny_base: Path, encoder) -> None:
    facts = base_facts(LlamaConfig.from_pretrained(tiny_base), encoder)
    assert facts == {"hidden_size": 32, "num_hidden_layers": 2, "tokenizer": encoder.fingerprint()}
    json.dumps(facts)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_an_adapter_that_changes_the_output_head(tiny_base: Path, tmp_path: Path, encoder) -> None:
    """It is refused by the engine, which would leave the change out."""
    from spacy_nerllama.models.engine import Engine

    config = LoraConfig(r=2, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM")
    get_peft_model(base_of(tiny_base), config).save_pretrained(str(tmp_path), save_embedding_layers=False)
    model = Adapter.from_folder(tmp_path).put_on(base_of(tiny_base), encoder)
    with pytest.raises(ValueError, match=r"^\[NL054\]"):
        Engine(model)

"""`merge`: a model folder that answers as base and adapter do, and says how nearly."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from spacy_nerllama.cards import base_licence
from spacy_nerllama.cli import app_entry
from spacy_nerllama.models.adapter import CONFIG, META, Adapter
from spacy_nerllama.models.loading import keep_unpacked, load_base
from spacy_nerllama.models.merging import SENTENCES, _unquantised, merge
from spacy_nerllama.models.tokens import TextEncoder

IDS = torch.tensor([[1, 300, 17, 4000, 8]])


def read(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


@pytest.fixture
def adapter(tiny_adapter: Path, tmp_path: Path) -> Path:
    """The tiny adapter in a folder that a test may change."""
    return Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf8")), **values}), "utf8")


def test_a_base_whose_card_cannot_be_read_has_no_known_licence(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: a: b\n---\n")
    assert base_licence(str(tmp_path)) is None


def test_the_merged_model_answers_as_base_and_adapter_do(adapter: Path, tmp_path: Path):
    meta = merge(str(adapter), tmp_path / "out" / "merged", dtype="float32", device="cpu")
    (difference,) = meta["merged"]["differences"]
    assert difference["max"] < 1e-3  # of logits with a spread of tens
    assert 0 < difference["mean"] <= difference["max"]
    assert (difference["sentences"], difference["readings"]) == (len(SENTENCES), 2 * len(SENTENCES))
    assert difference["readings_differing"] == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged", dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "merged")
    base, _ = load_base(meta["base"]["name"], dtype="float32", device="cpu")
    assert not torch.allclose(read(base), read(merged), atol=1.0)  # the adapter does something
    unmerged = Adapter.from_folder(adapter).put_on(base, TextEncoder(tokenizer))
    assert torch.allclose(read(unmerged), read(merged), atol=1e-3)


def test_the_folder_is_whole_readable_and_says_what_it_is(adapter: Path, tmp_path: Path):
    from huggingface_hub import ModelCard

    change(adapter / META, generates_text=False)
    (tmp_path / "merged").mkdir()
    meta = merge(str(adapter), tmp_path / "merged", device="cpu")
    folder = tmp_path / "merged"
    assert json.loads((folder / META).read_text("utf8")) == meta
    assert meta["labels"] == {"DISEASE": "disease", "GENE": "gene or protein"}
    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert not [name for name in weights if "lora" in name]
    assert "nerllama" not in (folder / "config.json").read_text("utf8")
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~umask}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "transformers"
    assert "cannot generate text" in card.text
    assert "greedy readings differ" in card.text


def test_an_adapter_trained_on_a_quantised_base_is_compared_with_that_too(
    wide_base: Path, tmp_path: Path, encoder
):
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(wide_base, dtype=torch.float32)
        get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)).save_pretrained(
            tmp_path / "adapter"
        )
    meta = {"base": {"name": str(wide_base)}, "recipe": {"base": {"quantization": "nf4"}}}
    (tmp_path / "adapter" / META).write_text(json.dumps(meta), "utf8")
    merged = merge(str(tmp_path / "adapter"), tmp_path / "merged", dtype="float32", device="cpu")["merged"]
    quantised, same = merged["differences"]
    assert "quantised to nf4" in quantised["what"]
    assert quantised["mean"] > 10 * same["mean"]
    assert merged["note"] is None


def test_a_base_that_is_stored_quantised_is_dequantised(wide_base: Path, tmp_path: Path, encoder):
    from peft import LoraConfig, get_peft_model

    stored, tokenizer = load_base(str(wide_base), "nf4", "float32", "cpu")
    keep_unpacked(stored, fitting=True)  # packed layers compute in bfloat16
    stored.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(wide_base, dtype=torch.float32)
    get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    meta = merge(str(tmp_path / "adapter"), tmp_path / "merged", str(tmp_path / "base"), "float32", "cpu")
    assert "dequantised" in meta["merged"]["note"]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="float32")
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text("utf8"))
    assert torch.allclose(read(stored), read(merged), atol=1e-3)  # a new adapter does nothing yet


def test_a_quantisation_that_cannot_be_undone_is_named(wide_base: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(self, dtype=None):
        raise NotImplementedError

    stored, _ = load_base(str(wide_base), "nf4", "float32", "cpu")
    monkeypatch.setattr(type(stored), "dequantize", refuse)
    with pytest.raises(ValueError, match=r"NL167.*base our/base is stored quantised \(bitsandbytes\).*--base"):
        _unquantised(stored, "our/base", "float32")


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app_entry, ["merge", *map(str, arguments)])
    return result.exit_code, re.sub(r"\s+", " ", result.output)


@pytest.mark.parametrize(
    ("generates", "said"), [(True, "can generate marked"), (False, "cannot generate"), (None, "is not known")]
)
def test_the_command_says_how_far_it_is_and_what_it_is_good_for(
    adapter: Path, tmp_path: Path, generates: bool | None, said: str
):
    change(adapter / META, generates_text=generates)
    code, printed = run(adapter, tmp_path / "merged", "--device", "cpu", "--dtype", "float32")
    assert code == 0
    assert "Logits differ by" in printed
    assert "0 of 24 greedy readings differ" in printed
    assert "does not say what prompt it was trained with: nerllama.CompactPrompt.v1 was assumed" in printed
    assert said in printed


def test_what_cannot_be_merged_is_said_and_nothing_is_left(adapter: Path, tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine", "utf8")
    assert "NL165" in run(adapter, tmp_path / "full")[1]
    assert "NL049" in run(tmp_path / "nothing", tmp_path / "merged")[1]
    assert "NL042" in run(adapter, tmp_path / "merged", "--base", tmp_path / "nothing")[1]
    (adapter / META).unlink()
    change(adapter / CONFIG, base_model_name_or_path=None)
    code, printed = run(adapter, tmp_path / "merged")
    assert code == 1
    assert "NL166" in printed
    assert "--base" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "full"]

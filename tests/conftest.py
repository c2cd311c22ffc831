import json
import os
from pathlib import Path
from typing import Any

# Before any import of a Hugging Face library: the tests reach no network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from hypothesis import settings

from spacy_nerllama.base import bundled_base

# The same examples on every run, and no deadline that a busy machine would miss.
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")


@pytest.fixture(scope="session")
def base_path() -> Path:
    """The real base model; without it a test is skipped, or fails under CI, which has fetched it."""
    try:
        return bundled_base()
    except FileNotFoundError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def encoder(base_path: Path):
    """The text encoder of the real base model; its weights are not loaded."""
    from transformers import AutoTokenizer

    from spacy_nerllama.models.loading import _converted
    from spacy_nerllama.models.tokens import TextEncoder

    return TextEncoder(AutoTokenizer.from_pretrained(_converted(base_path)))


@pytest.fixture(scope="session")
def tiny_base(encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama with random weights, and the real tokenizer.

    Its weights are large enough that every choice depends on all that was read, and none is sure.
    """
    return random_base(tmp_path_factory.mktemp("tiny") / "base", encoder, 32)


@pytest.fixture(scope="session")
def wide_base(encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, wide enough for what bitsandbytes does to layers of ordinary shapes only."""
    return random_base(tmp_path_factory.mktemp("wide") / "base", encoder, 64)


def random_base(folder: Path, encoder, width: int) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(encoder.tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.25,
        tie_word_embeddings=True,
        bos_token_id=encoder.tokenizer.bos_token_id,
        eos_token_id=encoder.tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(tiny_base: Path, encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter of the tiny base, random too, as `finetune` writes one."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from spacy_nerllama.models.adapter import META, base_facts

    folder = tmp_path_factory.mktemp("tiny") / "adapter"
    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        lora = LoraConfig(r=4, target_modules=linear, init_lora_weights=False, task_type="CAUSAL_LM")
        model = get_peft_model(base, lora)
    model.save_pretrained(str(folder))
    meta = {
        "base": {"name": str(tiny_base), **base_facts(base.config, encoder)},
        "labels": {"DISEASE": "disease", "GENE": "gene or protein"},
        "thresholds": {"DISEASE": 0.2},
    }
    (folder / META).write_text(json.dumps(meta), encoding="utf8")
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_base: Path):
    """The tiny base as a model, loaded."""
    from spacy_nerllama.models import Llama

    model = Llama(str(tiny_base), dtype="float32", device="cpu")
    model.load()
    return model


@pytest.fixture(scope="session")
def real(base_path: Path):
    """The real base model in float32, with the bundled adapter."""
    from spacy_nerllama.models import Llama

    model = Llama(dtype="float32", device="cpu")
    model.load()
    return model


@pytest.fixture(scope="session")
def tiny_config(tiny_base: Path) -> dict[str, Any]:
    """A config of the component with the tiny base, and a threshold that some of its arbitrary votes reach."""
    return {
        "labels": {"DISEASE": "disease", "GENE": "gene or protein"},
        "model": {"name": str(tiny_base), "dtype": "float32", "device": "cpu"},
        "voting": {"threshold": 0.2},
    }


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with train.spacy and devel.spacy, for recipes of `training.recipe_of`."""
    from training import write_corpus

    write_corpus(tmp_path)
    return tmp_path

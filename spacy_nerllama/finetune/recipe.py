"""Recipes: what to fine-tune, on what, and how; a `.cfg` file in the way of `spacy train`."""

from pathlib import Path
from typing import Any, Literal

from confection import Config
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from spacy.util import registry

from ..errors import Errors
from ..marking import SINGLE, MarkingScheme
from .loss import Loss


class Section(BaseModel):
    """A section of a recipe: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class BaseSection(Section):
    """Which base to train on, as the model `nerllama.Llama.v1` takes it."""

    name: str | None = None
    quantization: Literal["nf4"] | None = "nf4"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"


class AdapterSection(Section):
    """The LoRA adapter (Hu et al., arXiv:2106.09685). `init` is the folder of an adapter to go on from."""

    r: int = Field(default=16, gt=0)
    alpha: int = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: list[str] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    init: str | None = None


class CorpusSection(Section):
    """A corpus: `.spacy` files, and what the prompt calls each label that the corpus annotates.

    limit: Take at most so many training sequences of it, drawn at random. None: all.
    """

    train: str
    devel: str | None = None
    labels: dict[str, str]
    limit: int | None = Field(default=None, gt=0)


class TrainingSection(Section):
    """How to train. Lengths and batches are in tokens of the language model, padding included.

    loss: "decision" compares only what marked decoding compares; "response" also teaches to copy and to stop,
        so that the adapter can generate text; "full" is the paper's, on the prompt too.
    limit_devel: Measure the devel loss on at most so many sequences, drawn at random.
    """

    loss: Loss = "decision"
    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    batch_tokens: int = Field(default=1536, gt=0)
    accumulate: int = Field(default=1, gt=0)
    max_tokens: int = Field(default=512, gt=0)
    gradient_checkpointing: bool = False
    optimizer: str = "adamw_torch"
    save_steps: int = Field(default=100, gt=0)
    limit_devel: int = Field(default=500, gt=0)
    seed: int = 0


class Recipe(Section):
    """A whole recipe, its prompt made."""

    base: BaseSection = BaseSection()
    adapter: AdapterSection = AdapterSection()
    corpora: dict[str, CorpusSection]
    prompt: Any
    training: TrainingSection = TrainingSection()

    @property
    def labels(self) -> dict[str, str]:
        """All labels that the corpora annotate, with what the prompt calls them."""
        return {label: words for corpus in self.corpora.values() for label, words in corpus.labels.items()}

    @property
    def scheme(self) -> MarkingScheme:
        """The marking scheme that goes with the prompt."""
        return getattr(self.prompt, "scheme", SINGLE)


def read_recipe(path: Path, overrides: dict[str, Any] | None = None) -> tuple[Recipe, Config]:
    """Read a recipe.

    path: The `.cfg` file. A `[paths]` section may hold variables.
    overrides: Values by dotted key, such as {"training.epochs": 3}.
    RETURNS: The recipe, and its config as written, with overrides and variables put in.
    RAISES: ValueError, naming each wrong key, if the recipe is not valid; FileNotFoundError.
    """
    if not path.is_file():
        raise FileNotFoundError(Errors.E060.format(path=path))
    try:
        config = Config().from_disk(path, overrides=overrides or {})
        sections = {key: value for key, value in config.items() if key != "paths"}
        prompt = sections.get("prompt") or {"@misc": "nerllama.CompactPrompt.v1"}
        return Recipe(**{**sections, **registry.resolve({"prompt": prompt})}), config
    except ValidationError as error:
        problems = "\n".join(f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(Errors.E061.format(path=path, problems=problems)) from error
    except ValueError as error:  # confection's, spaCy's, the prompt's
        raise ValueError(Errors.E061.format(path=path, problems=str(error).strip())) from error

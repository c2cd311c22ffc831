"""Recipes: what to fine-tune, on what, and how; a `.cfg` file in the way of `spacy train`."""

import configparser
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from confection import Config
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
)
from spacy.util import registry

from ..errors import Errors
from ..marking import MarkingScheme
from ..models.adapter import Adapter
from ..models.llama import bundled_adapter
from ..prompts import DEFAULT_PROMPT, scheme_of
from ..updating import Loss

Share = Annotated[float, Field(ge=0, lt=1)]
Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Optimizer = Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit", "sgd"]


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
    """The LoRA adapter (Hu et al., arXiv:2106.09685).

    init: The folder of an adapter to go on from, or "bundled" for the one that comes with the package. Its own
        `r`, `alpha` and `target_modules` then hold.
    """

    r: PositiveInt = 16
    alpha: PositiveInt = 32
    dropout: Share = 0.0
    target_modules: Annotated[list[Projection], Field(min_length=1)] = list(get_args(Projection))
    init: str | None = None


class CorpusSection(Section):
    """A corpus: `.spacy` files, and what the prompt calls each label that the corpus annotates.

    limit: Take at most so many training sequences of it, drawn at random. None: all.
    """

    train: str
    devel: str | None = None
    labels: dict[str, str]
    limit: PositiveInt | None = None


class TrainingSection(Section):
    """How to train. Lengths and batches are in tokens of the language model, padding included.

    loss: "decision" compares only what marked decoding compares; "response" also teaches to copy and to stop,
        so that the adapter can generate text; "both" adds the two; "full" is the paper's, on the prompt too.
    response_weight: What a token of the response counts next to a decision, in the loss "both".
    limit_devel: Measure devel loss and F1 on at most so many sequences, drawn at random.
    keep: "best" decodes the devel sequences at each checkpoint, and the adapter with the best F1 is what is left
        in the end; "last" spares that.
    patience: Stop after so many checkpoints without a better devel F1. None: do not.
    report_to: Where to send the log while training.
    """

    loss: Loss = "decision"
    response_weight: PositiveFloat = 0.5
    epochs: PositiveFloat = 1.0
    max_steps: PositiveInt | None = None
    learning_rate: PositiveFloat = 1e-3
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: Share = 0.05
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    batch_tokens: PositiveInt = 1536
    accumulate: PositiveInt = 1
    max_tokens: PositiveInt = 512
    gradient_checkpointing: bool = False
    optimizer: Optimizer = "adamw_torch"
    save_steps: PositiveInt = 100
    limit_devel: PositiveInt = 500
    keep: Literal["best", "last"] = "best"
    patience: PositiveInt | None = None
    report_to: list[Literal["tensorboard", "wandb", "mlflow"]] = []
    seed: int = 0

    @property
    def decode_tokens(self) -> int:
        """The most tokens in a batch that is decoded: as in a step, and no more than the component takes."""
        return min(4096, max(self.batch_tokens, self.max_tokens))


class ThresholdsSection(Section):
    """Tune the thresholds of the vote after training, on at most `limit` devel requests a label. 0: do not."""

    limit: NonNegativeInt = 300


_FREE: Any = {
    "base": {"name", "device"},
    "adapter": {"init"},
    "corpora": True,  # they and the prompt make the training sequences
    "prompt": True,
    "training": {"gradient_checkpointing", "keep", "patience", "report_to", "save_steps"},
    "thresholds": True,
}
"""What may differ between a run and one that goes on with it: where files lie, and what is only watched."""


class Recipe(Section):
    """A whole recipe, its prompt made."""

    base: BaseSection = BaseSection()
    adapter: AdapterSection = AdapterSection()
    corpora: dict[str, CorpusSection]
    prompt: Any
    training: TrainingSection = TrainingSection()
    thresholds: ThresholdsSection = ThresholdsSection()

    @field_validator("corpora")
    @classmethod
    def _agree(cls, corpora: dict[str, CorpusSection]) -> dict[str, CorpusSection]:
        """Check that the prompt calls a label the same in all corpora: the component knows one name of it."""
        names: dict[str, str] = {}
        for corpus in corpora.values():
            for label, words in corpus.labels.items():
                if names.setdefault(label, words) != words:
                    raise ValueError(
                        f"{label} is called {names[label]!r} and {words!r}. Choose one for all corpora."
                    )
        return corpora

    @property
    def labels(self) -> dict[str, str]:
        """All labels that the corpora annotate, with what the prompt calls them."""
        return {label: words for corpus in self.corpora.values() for label, words in corpus.labels.items()}

    @property
    def settings(self) -> dict[str, Any]:
        """What the weights of a run depend on, by dotted key, beside the training sequences."""
        sections = self.model_dump(mode="json", exclude=_FREE)
        return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}

    @property
    def scheme(self) -> MarkingScheme:
        """The marking scheme that goes with the prompt."""
        return scheme_of(self.prompt)


def read_recipe(
    path: Path, overrides: dict[str, Any] | None = None, examples: bool = True
) -> tuple[Recipe, Config]:
    """Read a recipe.

    path: The `.cfg` file. A `[paths]` section may hold variables.
    overrides: Values by dotted key, such as {"training.epochs": 3}.
    examples: Whether the prompt reads its in-context examples. Without, no file but the recipe need be there.
    RETURNS: The recipe, and its config as written, with overrides and variables put in.
    RAISES: ValueError, naming each wrong key, if the recipe is not valid; FileNotFoundError.
    """
    if not path.is_file():
        raise FileNotFoundError(Errors.E060.format(path=path))
    try:
        config = _overridden(Config().from_str(path.read_text("utf-8-sig"), interpolate=False), overrides or {})
        sections = {key: value for key, value in config.items() if key != "paths"}
        prompt = sections.get("prompt") or DEFAULT_PROMPT
        if not examples and "examples" in prompt:
            prompt = {**prompt, "examples": None}
        recipe = Recipe(**{**sections, **registry.resolve({"prompt": prompt})})
        for label in recipe.labels:
            _ = recipe.scheme[label]  # raises for a label without markers
        return recipe, config
    except ValidationError as error:
        problems = "\n".join(f"  {'.'.join(map(str, e['loc']))}: {_message(e)}" for e in error.errors())
        raise ValueError(Errors.E061.format(path=path, problems=problems)) from error
    except (ValueError, KeyError, configparser.Error) as error:  # confection's, spaCy's, the prompt's, a scheme's
        problems = str(error.args[0] if isinstance(error, KeyError) else error).strip()
        raise ValueError(Errors.E061.format(path=path, problems=problems)) from error


def init_folder(adapter: AdapterSection) -> Path | None:
    """Give the folder of the adapter to go on from. None: a new one is made."""
    if adapter.init == "bundled":
        return bundled_adapter()
    return Path(adapter.init).expanduser() if adapter.init else None


def with_init(recipe: Recipe) -> Recipe:
    """Put into a recipe what holds of the adapter that it goes on from, if it does.

    RAISES: FileNotFoundError if there is no such adapter; ValueError if it is no LoRA adapter.
    """
    folder = init_folder(recipe.adapter)
    if folder is None:
        return recipe
    begun = Adapter.from_folder(folder).config
    if (kind := begun.get("peft_type", "LORA")) != "LORA":
        raise ValueError(Errors.E056.format(type=kind))
    targets = begun["target_modules"]
    own = {
        "r": begun["r"],
        "alpha": begun["lora_alpha"],
        "target_modules": [targets] if isinstance(targets, str) else sorted(targets),
    }
    return recipe.model_copy(update={"adapter": recipe.adapter.model_copy(update=own)})


def _overridden(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Put overrides into a config, and then variables.

    Not as confection does, which refuses a section that the file leaves to its defaults: here an override is what
    a line in the file would be, and told of as that is if there is no such setting.
    """
    for key, value in overrides.items():
        section: dict[str, Any] = config
        *outer, name = key.split(".")
        for each in outer:
            if not isinstance(section.get(each), dict):
                section[each] = {}
            section = section[each]
        section[name] = value
    return config.interpolate()


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Give the name that may be meant by one that does not exist, None if none is like it."""
    by_letters = {each.casefold(): each for each in names}
    near = difflib.get_close_matches(name.casefold(), by_letters, 1)
    return by_letters[near[0]] if near else None


def _message(error: Any) -> str:
    """Say what is wrong with a value; of a key or value that does not exist, which one may be meant."""
    if error["type"] == "literal_error":
        near = nearest(str(error["input"]), error["ctx"]["expected"].split("'")[1::2])
        return f"{error['msg']}. Did you mean {near}?" if near else str(error["msg"])
    if error["type"] != "extra_forbidden":
        return str(error["msg"])
    *outer, name = error["loc"]
    valid = _settings(outer)
    near = nearest(name, valid)
    return (
        f"There is no such setting. Did you mean {near}?" if near else f"There is none. Use: {', '.join(valid)}."
    )


def _settings(outer: list[str]) -> Iterable[str]:
    """Give the keys that a section may have. The recipe itself has no name."""
    if not outer:
        return ["paths", *Recipe.model_fields]
    section = CorpusSection if outer[0] == "corpora" else type(Recipe.model_fields[outer[0]].default)
    return section.model_fields.keys()

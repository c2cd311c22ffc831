"""Recipes: what may be in them, and what is said when something is wrong."""

from pathlib import Path

import pytest

from spacy_nerllama.finetune.recipe import Recipe, read_recipe
from spacy_nerllama.marking import SINGLE
from spacy_nerllama.prompts import CompactPrompt, PaperPrompt

CONFIGS = Path(__file__).parents[1] / "configs"
# A spaCy pipeline's config, which has a section [nlp], is no recipe.
SHIPPED = sorted(path for path in CONFIGS.glob("*.cfg") if "[nlp]" not in path.read_text("utf8"))

CORPORA = """
[paths]
corpus = "corpus"

[corpora]

[corpora.genes]
train = ${paths.corpus}/genes.spacy

[corpora.genes.labels]
GENE = "gene"

[corpora.both]
train = "both.spacy"
devel = "devel.spacy"
limit = 100

[corpora.both.labels]
GENE = "gene"
DISEASE = "disease"
"""


def read(folder: Path, text: str, **overrides: object) -> Recipe:
    path = folder / "recipe.cfg"
    path.write_text(text, encoding="utf8")
    return read_recipe(path, {key.replace("__", "."): value for key, value in overrides.items()})[0]


def test_a_recipe_needs_only_its_corpora(tmp_path: Path) -> None:
    recipe = read(tmp_path, CORPORA)
    assert recipe.corpora["genes"].train == "corpus/genes.spacy"
    assert recipe.corpora["genes"].devel is None
    assert recipe.corpora["both"].limit == 100
    assert recipe.labels == {"GENE": "gene", "DISEASE": "disease"}
    assert recipe.prompt == CompactPrompt()
    assert recipe.scheme == SINGLE
    assert recipe.base.name is None
    assert recipe.training.loss == "decision"
    assert read(tmp_path, f"\ufeff{CORPORA}").labels == recipe.labels, "a byte order mark is no text"
    with pytest.raises(ValueError, match=r"^\[NL061\] [^\n]*recipe.cfg is not valid:\n  corpora: Field required"):
        read(tmp_path, "[training]\nepochs = 2\n")


def test_the_scheme_is_that_of_the_prompt(tmp_path: Path) -> None:
    recipe = read(tmp_path, CORPORA + '[prompt]\n@misc = "nerllama.PaperPrompt.v1"\nn_examples = 5\n')
    assert isinstance(recipe.prompt, PaperPrompt)
    assert recipe.prompt.n_examples == 5
    assert recipe.scheme is recipe.prompt.scheme


def test_overrides(tmp_path: Path) -> None:
    text = CORPORA + "[training]\nepochs = 1\n"
    overrides = {"training__epochs": 3, "training__seed": 7, "paths__corpus": "/data", "corpora__both__limit": 5}
    recipe = read(tmp_path, text, **overrides)
    assert (recipe.training.epochs, recipe.training.seed) == (3.0, 7)
    assert recipe.corpora["genes"].train == "/data/genes.spacy"
    assert recipe.corpora["both"].limit == 5


def test_the_config_is_kept_as_it_was_run(tmp_path: Path) -> None:
    path = tmp_path / "recipe.cfg"
    path.write_text(CORPORA, encoding="utf8")
    recipe, config = read_recipe(path, {"paths.corpus": "/data", "corpora.both.limit": 5})
    config.to_disk(tmp_path / "kept.cfg")
    assert read_recipe(tmp_path / "kept.cfg")[0] == recipe


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[training]\nepochz = 1\n", "  training.epochz: There is no such setting. Did you mean epochs?"),
        ("[trainin]\nepochs = 1\n", "  trainin: There is no such setting. Did you mean training?"),
        ("[adapter]\nx = 1\n", "  adapter.x: There is none. Use: r, alpha, dropout, target_modules, init."),
        ("[corpora.more]\ntrian = 1\n", "  corpora.more.trian: There is no such setting. Did you mean train?"),
        ("[corpora.more]\ntrain = 1\n", "  corpora.more.train: Input should be a valid string\n"),
        ("[corpora.more]\ntrain = 1\n", "  corpora.more.labels: Field required"),
        (
            '[corpora.more]\ntrain = "x"\n\n[corpora.more.labels]\nGENE = "protein"\n',
            "  corpora: Value error, GENE is called 'gene' and 'protein'. Choose one for all corpora.",
        ),
        ("[adapter]\nr = 0\n", "  adapter.r: Input should be greater than 0"),
        ('[base]\nquantization = "int8"\n', "  base.quantization: Input should be 'nf4'"),
        (
            '[training]\nloss = "all"\n',
            "  training.loss: Input should be 'decision', 'response', 'both' or 'full'",
        ),
        (
            '[adapter]\ntarget_modules = ["v_proj", "q_prj"]\n',
            "'up_proj' or 'down_proj'. Did you mean q_proj?",
        ),
        ('[adapter]\ntarget_modules = ["lm_head"]\n', "  adapter.target_modules.0: Input should be 'q_proj', "),
        ("[adapter]\ntarget_modules = []\n", "  adapter.target_modules: List should have at least 1 item"),
        (
            '[training]\noptimizer = "adamw_8bitt"\n',
            "  training.optimizer: Input should be 'adamw_torch', 'adamw_8bit', 'paged_adamw_8bit' or 'sgd'. "
            "Did you mean adamw_8bit?",
        ),
        ('[prompt]\n@misc = "nerllama.CompactPrompt.v1"\nn = 1\n', "prompt -> n"),
        ('[prompt]\n@misc = "nerllama.CompactPrompt.v9"\n', "nerllama.CompactPrompt.v9"),
        (
            '[prompt]\n@misc = "nerllama.MultiTaskPrompt.v1"\n\n[prompt.names]\nDISEASE = "disease"\n',
            "[NL032] The marking scheme has no markers for the label GENE, only for DISEASE.",
        ),
        ("[corpora.more]\ntrain = ${paths.nothing}/x\n", "paths.nothing"),
        ("[corpora.genes]\ntrain = x\n", "corpora.genes"),  # twice
        ("[training\n", "[training"),
    ],
)
def test_problems_are_named(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^\[NL061\] [^\n]*recipe.cfg is not valid:\n") as error:
        read(tmp_path, CORPORA + text)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("training.epochs", "  training.epochs: Input should be greater than 0"),
        ("training.epocs", "  training.epocs: There is no such setting. Did you mean epochs?"),
        ("trainng.epochs", "  trainng: There is no such setting. Did you mean training?"),
        ("training.epochs.most", "  training.epochs: Input should be a valid number"),
        ("corpora.both.label.GENE", "  corpora.both.label: There is no such setting. Did you mean labels?"),
    ],
)
def test_overrides_are_checked_as_the_file_is(tmp_path: Path, key: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^\[NL061\] ") as error:
        read(tmp_path, CORPORA, **{key: -1})
    assert problem in str(error.value)


def test_sections_that_the_file_leaves_out_can_be_overridden(tmp_path: Path) -> None:
    overrides = {"training.epochs": 3, "corpora.genes.labels.RNA": "RNA", "paths.corpus": "/data"}
    recipe = read(tmp_path, CORPORA, **overrides)
    assert recipe.training.epochs == 3
    assert recipe.corpora["genes"].labels == {"GENE": "gene", "RNA": "RNA"}
    assert recipe.corpora["genes"].train == "/data/genes.spacy"


def test_there_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"\[NL060\] .*none\.cfg"):
        read_recipe(tmp_path / "none.cfg")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_recipes_are_valid(path: Path) -> None:
    recipe, config = read_recipe(path, examples=False)
    assert recipe.corpora
    assert recipe.labels
    assert callable(recipe.prompt)
    for section in ("base", "adapter", "training"):
        defaults = Recipe.model_fields[section].default
        assert type(getattr(recipe, section)) is type(defaults)
        assert set(config.get(section, {})) <= set(type(defaults).model_fields)


def test_the_papers_recipe_has_the_papers_settings() -> None:
    """As the released code has them; the rank is that of the released adapters."""
    recipe, _ = read_recipe(CONFIGS / "llama3.1-8b-paper.cfg", examples=False)
    adapter, training = recipe.adapter, recipe.training
    assert (recipe.base.quantization, recipe.base.dtype) == ("nf4", "bfloat16")
    assert (adapter.r, adapter.alpha, adapter.dropout) == (64, 16, 0.1)
    assert adapter.target_modules == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert (training.loss, training.epochs, training.max_steps) == ("full", 5, None)
    assert (training.learning_rate, training.schedule, training.warmup) == (2e-5, "cosine", 0)
    assert (training.batch_tokens, training.max_tokens, training.accumulate) == (2048, 2048, 1)
    assert training.gradient_checkpointing
    assert (training.keep, training.patience, training.seed) == ("last", None, 42)
    assert isinstance(recipe.prompt, PaperPrompt)
    assert recipe.prompt.n_examples == 5


def test_there_are_shipped_recipes() -> None:
    assert SHIPPED

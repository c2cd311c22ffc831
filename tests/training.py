"""A small corpus and a recipe for it, for tests that train on a tiny base."""

from pathlib import Path

from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab

from spacy_nerllama.finetune.recipe import Recipe, read_recipe

RECIPE = """
[base]
name = "{base}"
quantization = {quantization}
dtype = "float32"
device = "cpu"

[adapter]
r = 4

[corpora]

[corpora.ours]
train = "{train}"
devel = "{devel}"

[corpora.ours.labels]
DISEASE = "disease"

[prompt]
@misc = "nerllama.CompactPrompt.v1"

[training]
loss = "decision"
epochs = 4
learning_rate = 0.02
batch_tokens = 128
save_steps = 4

[thresholds]
limit = 8
"""


def write_corpus(folder: Path) -> None:
    """Write sentences in which the word after "has" is a disease."""
    docs = DocBin()
    for who in ("Anna", "Bert", "Carla", "David", "Emma", "Felix"):
        for what in ("gout", "asthma", "measles"):
            doc = Doc(Vocab(), words=[who, "has", what, "."], spaces=[True, True, False, False])
            doc.set_ents([Span(doc, 2, 3, "DISEASE")])
            docs.add(doc)
    docs.to_disk(folder / "train.spacy")
    devel = DocBin()
    for what in ("cholera", "gout"):
        doc = Doc(Vocab(), words=["Gina", "has", what, "."], spaces=[True, True, False, False])
        doc.set_ents([Span(doc, 2, 3, "DISEASE")])
        devel.add(doc)
    devel.to_disk(folder / "devel.spacy")


def recipe_of(corpus: Path, base: Path, quantization: str = "null", **overrides) -> tuple[Recipe, object]:
    path = corpus / "recipe.cfg"
    text = RECIPE.format(
        base=base, quantization=quantization, train=corpus / "train.spacy", devel=corpus / "devel.spacy"
    )
    path.write_text(text, "utf8")
    return read_recipe(path, {key.replace("__", "."): value for key, value in overrides.items()})

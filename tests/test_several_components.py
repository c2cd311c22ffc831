"""Several components on one base in one process, one in training: each votes as in a process of its own."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import spacy
import torch
from spacy.language import Language
from test_updating import examples, optimizer

from spacy_nerllama.updating import make_lora

TEXTS = ["Anna has gout.", "The ATM gene causes ataxia in Bert."]
NAMES = ("read", "trained")


def votes(nlp: Language, name: str) -> list[dict[tuple[int, int, str], float]]:
    found = []
    for doc in nlp.pipe(TEXTS):
        group = doc.spans[name]
        keys = [(span.start, span.end, span.label_) for span in group]
        found.append(dict(zip(keys, map(float, group.attrs["scores"]), strict=True)))
    return found


def votes_alone(folder: Path, name: str) -> list[dict[tuple[int, int, str], float]]:
    """In a process of its own: the other component is never made."""
    return votes(spacy.load(folder, exclude=[other for other in NAMES if other != name]), name)


def test_each_votes_as_in_a_process_of_its_own(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    model = {"name": str(tiny_base), "dtype": "float32", "device": "cpu"}
    for name, adapter in (("read", str(tiny_adapter)), ("trained", None)):
        config = {"model": {**model, "adapter": adapter}, "spans_key": name, "overwrite_ents": False}
        nlp.add_pipe("nerllama_ner", name=name, config=config)
    torch.manual_seed(0)
    nlp.get_pipe("trained").initialize(lambda: examples(nlp), nlp=nlp, lora=make_lora(r=4, alpha=8))
    before = votes(nlp, "read")
    for _ in range(3):
        nlp.update(examples(nlp), sgd=optimizer(), exclude=["read"])
    together = {name: votes(nlp, name) for name in NAMES}
    assert together["read"] == before, "the other's training is its own"
    assert together["read"] != together["trained"]
    nlp.to_disk(tmp_path)
    for name in NAMES:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            alone = pool.submit(votes_alone, tmp_path, name).result()
        assert all(alone)
        for one, other in zip(together[name], alone, strict=True):
            assert one == pytest.approx(other, abs=1e-4)

"""A pipeline's predictions for a `.spacy` file, made and scored as `spacy evaluate` does."""

import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.scorer import Scorer
from spacy.training import Corpus, Example
from thinc.api import fix_random_seed
from tqdm import tqdm

from ..annotations import settle_votes
from ..docbin import read_docs
from ..errors import Errors


@dataclass(frozen=True)
class Run:
    """A pipeline's predictions.

    examples: The predicted docs with their gold docs.
    scores: spaCy's scores, as `spacy evaluate` gives them.
    speed: Documents, words and seconds, and the most memory that the process has had, in bytes (None on Windows).
    """

    examples: list[Example]
    scores: dict[str, Any]
    speed: dict[str, float | int | None]


def read_examples(
    path: Path, nlp: Language, *, gold_preproc: bool = False, limit: int | None = None, seed: int = 0
) -> list[Example]:
    """Read gold docs, each with a doc to predict: of its text, or of its tokens where its spaces are unknown.

    path: As `read_docs` takes it.
    nlp: The pipeline whose tokenizer is used.
    gold_preproc: Make an example of each gold sentence and its tokens, as spaCy's option --gold-preproc.
    limit, seed: Take at most so many docs, drawn at random, in their order. None: all.
    RAISES: As `read_docs`.
    """
    docs = read_docs(path, nlp.vocab)
    if limit is not None and limit < len(docs):
        docs = [docs[i] for i in sorted(random.Random(seed).sample(range(len(docs)), limit))]
    corpus = Corpus(path)
    return list((corpus.make_examples_gold_preproc if gold_preproc else corpus.make_examples)(nlp, docs))


def predict(nlp: Language, examples: list[Example], name: str = "Evaluating") -> Run:
    """Annotate the docs of examples and score them with spaCy's scorer.

    nlp: The pipeline. Components that have a `warm_up` are loaded before the clock starts.
    examples: As `read_examples` gives them; their predicted docs are changed in place.
    name: What the progress bar says.
    RAISES: ValueError if the pipeline lost docs.
    """
    fix_random_seed()  # as spaCy's command does, so that figures are the same
    for _, component in nlp.pipeline:
        if hasattr(component, "warm_up"):
            component.warm_up()
    start = time.perf_counter()
    docs = list(tqdm(nlp.pipe(example.predicted for example in examples), name, total=len(examples)))
    seconds = time.perf_counter() - start
    if len(docs) != len(examples):
        raise ValueError(Errors.E095.format(given=len(examples), returned=len(docs)))
    for example, doc in zip(examples, docs, strict=True):
        settle_votes(doc)
        example.predicted = doc
    words = sum(map(len, docs))
    scores = Scorer(nlp=nlp).score(examples)
    speed = {
        "documents": len(docs),
        "words": words,
        "seconds": seconds,
        "documents_per_second": len(docs) / seconds,
        "words_per_second": words / seconds,
        "peak_memory": peak_memory(),
    }
    return Run(examples, scores, speed)


def peak_memory() -> int | None:
    """Give the most main memory that this process has had, in bytes; None on Windows."""
    if sys.platform == "win32":
        return None
    import resource

    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not `ru_maxrss`: on Linux that begins with what the parent process had.
    status = Path("/proc/self/status").read_text("utf8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))

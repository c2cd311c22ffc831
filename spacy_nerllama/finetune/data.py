"""The corpora of a recipe as what is taught and what is measured."""

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from spacy.tokens import Doc
from spacy.vocab import Vocab

from ..docbin import read_docs
from ..errors import Errors, Warnings
from ..models.tokens import TextEncoder
from ..requests import doc_sentences
from .recipe import CorpusSection, Recipe, TrainingSection, nearest
from .sequences import Batch, Example, TrainingSequence, doc_examples, in_batches, training_sequences

logger = logging.getLogger(__name__)


def read_split(
    recipe: Recipe, encoder: TextEncoder, split: Literal["train", "devel"]
) -> list[tuple[Example, TrainingSequence]]:
    """Build the sequences of all corpora for a split, as many of each as the recipe takes, each with its request.

    Corpora overlap: a sentence of one's devel split may be in another's train split, where it is left out.

    RAISES: FileNotFoundError; ValueError for a file that is not one of docs, a train split without a mention of a
        label that it is to teach, or devel splits without any mention, where something is to be measured on them.
    """
    training, mentions = recipe.training, 0
    found: list[tuple[Example, TrainingSequence]] = []
    held_out: frozenset[str] = frozenset()
    if split == "train":
        devel = (doc for corpus in recipe.corpora.values() for doc in _docs(corpus.devel))
        held_out = frozenset(sentence.squashed for doc in devel for _, sentence in doc_sentences(doc))
    measured = sum(corpus.devel is not None for corpus in recipe.corpora.values())
    for name, corpus in recipe.corpora.items():
        docs = _docs(corpus.train if split == "train" else corpus.devel)
        examples = list(doc_examples(docs, corpus.labels, held_out, recipe.scheme.tells_labels))
        counts = Counter(dict.fromkeys(corpus.labels, 0))
        counts.update(span.label for _, spans in examples for span in spans)
        mentions += counts.total()
        missing = [label for label, n in counts.items() if not n] if examples else []
        if missing and split == "train":
            raise ValueError(_untaught(missing[0], name, corpus, docs))
        if missing:
            logger.warning(Warnings.W161.format(corpus=name, labels=", ".join(missing)))
        random.Random(training.seed).shuffle(examples)
        limit = corpus.limit if split == "train" else max(1, training.limit_devel // max(1, measured))
        taken = examples[:limit]
        sequences = training_sequences(taken, recipe.prompt, encoder, training.max_tokens)
        found += sequences
        taught = Counter(dict.fromkeys(corpus.labels, 0))
        taught.update(span.label for (_, spans), _ in sequences for span in spans)
        untaught = [label for label, n in taught.items() if not n and label not in missing]
        if untaught and split == "train":
            logger.warning(Warnings.W163.format(corpus=name, n=len(sequences), labels=", ".join(untaught)))
        logger.info(
            "%s, %s: %d sequences of %d; left out %d too long or not markable; mentions: %s",
            name,
            split,
            len(sequences),
            len(examples),
            len(taken) - len(sequences),
            ", ".join(f"{n} {label}" for label, n in taught.items()),
        )
    measures = training.keep == "best" or training.patience or recipe.thresholds.limit
    if split == "devel" and found and measures and not mentions:
        raise ValueError(Errors.E235.format(labels=", ".join(recipe.labels)))
    return found


def _untaught(label: str, name: str, corpus: CorpusSection, docs: Sequence[Doc]) -> str:
    """Say that a corpus has no mention of a label: asked for it, it would teach that there never is one."""
    others = sorted({ent.label_ for doc in docs for ent in doc.ents} - set(corpus.labels))
    near = nearest(label, others)
    advice = f"Did you mean {near}?" if near else "Name only labels that the corpus annotates."
    has = ", ".join(others) or "none"
    return Errors.E234.format(label=label, corpus=name, path=corpus.train, has=has, advice=advice)


def devel_examples(recipe: Recipe) -> Iterator[Example]:
    """Give all devel requests of a recipe's corpora, with their gold spans."""
    for corpus in recipe.corpora.values():
        yield from doc_examples(_docs(corpus.devel), corpus.labels, together=recipe.scheme.tells_labels)


def recipe_batches(data: Sequence[tuple[Example, TrainingSequence]], training: TrainingSection) -> list[Batch]:
    """Put sequences into batches, as the recipe says.

    A batch is one item of the data set, so that the Trainer shuffles, resumes and spreads batches by itself.
    """
    sequences = [sequence for _, sequence in data]
    random.Random(training.seed).shuffle(sequences)  # among the same length, no corpus comes first
    return in_batches(sequences, training.batch_tokens)


def fingerprint(batches: Sequence[Batch]) -> str:
    """Give a hash of all that is in batches, and of their order."""
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(repr(batch).encode())
    return digest.hexdigest()[:12]


def _docs(path: str | None) -> list[Doc]:
    if path is None:
        return []
    if not Path(path).is_file():
        raise FileNotFoundError(Errors.E064.format(path=path))
    return read_docs(Path(path), Vocab())

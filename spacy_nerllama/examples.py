"""In-context examples: sentences with gold spans, and which of them a prompt shows."""

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heapify, heappop
from itertools import chain, islice
from pathlib import Path
from typing import Literal

from spacy.vocab import Vocab

from .docbin import stream_docs
from .errors import Errors
from .gold import gold_spans, inner_entities
from .requests import Sentence, TokenSpan, doc_sentences, squash

Selection = Literal["random", "similar"]

_WORD = re.compile(r"\w+")
_K1, _B = 1.2, 0.75  # as usual for BM25: how soon a word that comes again counts no more, and that of length


@dataclass(frozen=True)
class Example:
    """An in-context example.

    sentence: The sentence.
    spans: Its gold spans, in order.
    doc: The text of the document it is from, without white space; empty if it is not known.
    """

    sentence: Sentence
    spans: tuple[TokenSpan, ...]
    doc: str = field(default="", repr=False, compare=False)

    def is_near(self, sentence: Sentence) -> bool:
        """Whether the example is a sentence itself or part of it, or from a document that holds it.

        Documents are told by their texts, so one that comes with and one that comes without sentence boundaries or
        spaces are the same.
        """
        return sentence.squashed in (self.doc or self.sentence.squashed) or (
            self.sentence.squashed in sentence.squashed
        )


class Examples:
    """Examples to choose from.

    examples: The examples.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def choose(self, sentence: Sentence, label: str, n: int, selection: Selection, seed: int) -> list[Example]:
        """Choose examples for a request; none is from a document that holds its sentence.

        sentence, label: Of the request.
        n: How many.
        selection: "random": drawn, always the same for the same seed, sentence and label. "similar": those whose
            words are most like the sentence's, by BM25 (Robertson and Zaragoza 2009), the likest last (as Liu et
            al., arXiv:2101.06804), and random ones where too few share a word with it.
        seed: Seed of the draws.
        RETURNS: The examples, fewer than n if there are no more.
        """
        order = _shuffled(len(self._examples), random.Random(f"{seed}\0{sentence.text}\0{label}"))
        if selection == "similar":
            order = iter(dict.fromkeys(chain(self._most_similar(sentence), order)))
        far = (self._examples[i] for i in order if not self._examples[i].is_near(sentence))
        chosen = list(islice(far, n))
        return chosen[::-1] if selection == "similar" else chosen

    def _most_similar(self, sentence: Sentence) -> Iterator[int]:
        scores: defaultdict[int, float] = defaultdict(float)
        for word in _words(sentence):
            for i, weight in self._index.get(word, ()):
                scores[i] += weight
        ranked = [(-score, i) for i, score in scores.items()]
        heapify(ranked)  # few are taken
        while ranked:
            yield heappop(ranked)[1]

    @cached_property
    def _index(self) -> dict[str, list[tuple[int, float]]]:
        """The examples that hold each word, each with the BM25 weight of the word in it."""
        counts = [_words(example.sentence) for example in self._examples]
        mean = sum(count.total() for count in counts) / max(len(counts), 1)
        holding = Counter(word for count in counts for word in count)
        index: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        for i, count in enumerate(counts):
            norm = _K1 * (1 - _B + _B * count.total() / mean) if mean else _K1
            for word, n in count.items():
                rarity = math.log(1 + (len(counts) - holding[word] + 0.5) / (holding[word] + 0.5))
                index[word].append((i, rarity * n * (_K1 + 1) / (n + norm)))
        return dict(index)


def _words(sentence: Sentence) -> Counter[str]:
    return Counter(_WORD.findall(sentence.text.casefold()))


def _shuffled(n: int, draw: random.Random) -> Iterator[int]:
    """Give the numbers below n in random order (Fisher-Yates), shuffled only as far as they are asked for."""
    moved: dict[int, int] = {}
    for i in range(n):
        j = draw.randrange(i, n)
        yield moved.get(j, j)
        moved[j] = moved.get(i, i)


def read_examples(path: Path) -> list[Example]:
    """Read the sentences and entities of a `.spacy` file.

    RETURNS: The sentences, but for those whose edge cuts an entity: they would show what is left of it as none.
    RAISES: FileNotFoundError if there is no such file; ValueError if it is no `.spacy` file.
    """
    if not path.is_file():
        raise FileNotFoundError(Errors.E037.format(path=path))
    examples = []
    for doc in stream_docs(path, Vocab()):
        text = squash(doc.text)
        entities = inner_entities(doc, ((ent.start, ent.end, ent.label_) for ent in doc.ents))
        for start, sentence in doc_sentences(doc):
            spans = gold_spans(sentence, start, entities)
            if spans is not None:
                examples.append(Example(sentence, tuple(spans), text))
    return examples

"""Peers of the accuracy benchmark, trained on the same data: spaCy's `ner`, and an encoder with a tagging head.

Each learns from the train split, and the devel split says which step or epoch is kept. The settings are constants,
the same for every corpus: nobody's were searched for. What only the tagger needs is imported there, so that it
does not count as memory of spaCy's `ner`.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import spacy
from spacy.cli.init_config import init_config
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import biluo_tags_to_spans, iob_to_biluo
from spacy.training.initialize import init_nlp
from spacy.training.loop import train as train_loop
from spacy.util import minibatch
from tqdm import tqdm

from spacy_nerllama.evaluation import score
from spacy_nerllama.evaluation.spans import gold_spans
from spacy_nerllama.requests import doc_sentences

if TYPE_CHECKING:
    from torch import Tensor

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
NER = {"max_steps": 4000, "eval_frequency": 200}  # at most 20,000 by default; 1,600 without a gain are the last
EPOCHS, RATE, BATCH, WARMUP = 3, 3e-4, 32, 0.1  # of the tagger
LEAST_STEPS = 300  # of the tagger: more epochs where there are few sentences
IGNORED = -100  # the target that torch's loss leaves out

Train = Callable[[Sequence[Doc], Sequence[Doc], str], Language]  # train and devel split, encoder


def train_ner(train: Sequence[Doc], devel: Sequence[Doc], encoder: str) -> Language:
    """Train spaCy's `ner` as `spacy init config --pipeline ner --optimize efficiency` says. It has no encoder."""
    with TemporaryDirectory() as folder:
        paths = {"train": f"{folder}/train.spacy", "dev": f"{folder}/devel.spacy"}
        for path, docs in zip(paths.values(), (train, devel), strict=True):
            DocBin(docs=docs).to_disk(path)
        config = init_config(lang="en", pipeline=["ner"], optimize="efficiency")
        config["paths"].update(paths)
        config["training"].update(NER)
        train_loop(init_nlp(config), Path(folder))
        return spacy.load(f"{folder}/model-best")


def train_tagger(train: Sequence[Doc], devel: Sequence[Doc], encoder: str) -> Language:
    """Train an encoder with a tagging head, AdamW and a linear schedule.

    encoder: A folder or hub name.
    """
    import torch
    from transformers import get_linear_schedule_with_warmup

    torch.manual_seed(0)
    labels = sorted({ent.label_ for doc in train for ent in doc.ents})
    nlp = spacy.blank("en")
    tagger: Any = nlp.add_pipe("encoder_tagger")
    tags = ["O", *(f"{side}-{label}" for label in labels for side in "BI")]
    tagger.load(encoder, id2label=dict(enumerate(tags)))
    sentences = [sentence for doc in train for sentence in tagged(doc)]
    optimizer = torch.optim.AdamW(tagger.model.parameters(), lr=RATE, fused=True)
    steps_an_epoch = -(-len(sentences) // BATCH)
    epochs = max(EPOCHS, -(-LEAST_STEPS // steps_an_epoch))
    steps = epochs * steps_an_epoch
    schedule = get_linear_schedule_with_warmup(optimizer, int(WARMUP * steps), steps)
    best, weights = -1.0, {}
    for epoch in range(epochs):
        tagger.model.train()
        for batch in tqdm(in_turn(sentences, epoch), f"Epoch {epoch + 1}"):
            tagger.loss(batch).backward()
            torch.nn.utils.clip_grad_norm_(tagger.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        predicted = nlp.pipe(Doc(nlp.vocab, words=[token.text for token in doc]) for doc in devel)
        f1 = score((gold_spans(one), gold_spans(gold)) for one, gold in zip(predicted, devel, strict=True)).f1
        print(f"Epoch {epoch + 1}: devel F1 {f1:.4f}", flush=True)
        if f1 > best:
            best, weights = f1, {key: value.clone() for key, value in tagger.model.state_dict().items()}
    tagger.model.load_state_dict(weights)
    return nlp


PEERS: dict[str, Train] = {"spaCy ner": train_ner, "MiniLM tagger": train_tagger}

Tagged = tuple[list[str], list[str]]  # the words of a sentence and their IOB2 tags


def tagged(doc: Doc) -> Iterator[Tagged]:
    """Give the sentences of a gold doc."""
    for start, sentence in doc_sentences(doc):
        tokens = doc[start : start + len(sentence.words)]
        yield list(sentence.words), [f"{t.ent_iob_}-{t.ent_type_}" if t.ent_type_ else "O" for t in tokens]


def in_turn(sentences: Sequence[Tagged], epoch: int) -> list[list[Tagged]]:
    """Draw the batches of an epoch; sentences of one batch are of about the same length."""
    draw = random.Random(f"0 {epoch}")
    order = draw.sample(sentences, len(sentences))
    pools = (sorted(pool, key=lambda each: len(each[0])) for pool in minibatch(order, 50 * BATCH))
    batches = [batch for pool in pools for batch in minibatch(pool, BATCH)]
    return draw.sample(batches, len(batches))


@Language.factory("encoder_tagger", assigns=["doc.ents"])
class Tagger:
    """A component that tags the first piece of each token with IOB2 tags (Devlin et al. 2019, section 5.3).

    It reads the sentences that ours reads.
    """

    def __init__(self, nlp: Language, name: str) -> None:
        self.nlp = nlp

    def load(self, encoder: str | Path, **config: Any) -> None:
        """Load tokenizer and weights; a head that is not there yet is drawn.

        encoder: A folder or hub name.
        config: Settings of the model, such as `id2label`.
        """
        from transformers import AutoModelForTokenClassification, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(encoder)
        self.model = AutoModelForTokenClassification.from_pretrained(encoder, **config)
        self.tags: dict[int, str] = self.model.config.id2label
        self.limit: int = self.model.config.max_position_embeddings

    def loss(self, batch: Sequence[Tagged]) -> "Tensor":
        """Give the mean cross-entropy of a batch's tags."""
        import torch

        from spacy_nerllama.models.loading import resolve_dtype

        inputs, first = self._encode([words for words, _ in batch])
        ids = {tag: i for i, tag in self.tags.items()}
        targets = torch.full(inputs["input_ids"].shape, IGNORED)
        for row, places in enumerate(first):
            for word, place in places.items():
                targets[row, place] = ids[batch[row][1][word]]
        kind = resolve_dtype("auto", "cpu")
        with torch.autocast("cpu", kind, enabled=kind is not torch.float32):
            logits = self.model(**inputs).logits
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    def __call__(self, doc: Doc) -> Doc:
        return next(self.pipe([doc]))

    def pipe(self, docs: Iterable[Doc], *, batch_size: int = 1000) -> Iterator[Doc]:
        """Set the entities of docs."""
        import torch

        self.model.eval()
        for some in minibatch(docs, batch_size):
            tags = [["O"] * len(doc) for doc in some]
            sentences = [(i, *each) for i, doc in enumerate(some) for each in doc_sentences(doc)]
            sentences.sort(key=lambda each: len(each[2].words))
            for batch in minibatch(sentences, BATCH):
                inputs, first = self._encode([list(sentence.words) for _, _, sentence in batch])
                with torch.inference_mode():
                    best = self.model(**inputs).logits.argmax(-1).tolist()
                for (i, start, _), row, places in zip(batch, best, first, strict=True):
                    for word, place in places.items():
                        tags[i][start + word] = self.tags[row[place]]
            for doc, mine in zip(some, tags, strict=True):
                doc.set_ents(biluo_tags_to_spans(doc, iob_to_biluo(mine)))
                yield doc

    def _encode(self, sentences: list[list[str]]) -> tuple[dict[str, Any], list[dict[int, int]]]:
        """Give the inputs for some sentences, and for each the place of each word's first piece.

        Words beyond the model's longest input have none.
        """
        inputs = self.tokenizer(
            sentences,
            is_split_into_words=True,
            padding=True,
            truncation=True,
            max_length=self.limit,
            return_tensors="pt",
        )
        first: list[dict[int, int]] = []
        for row in range(len(sentences)):
            places = enumerate(inputs.word_ids(row))
            first.append({word: place for place, word in reversed([*places]) if word is not None})
        return dict(inputs), first

    def to_disk(self, path: Path, *, exclude: Iterable[str] = ()) -> None:
        """Save tokenizer and weights."""
        self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)

    def from_disk(self, path: Path, *, exclude: Iterable[str] = ()) -> "Tagger":
        """Load what `to_disk` has saved."""
        self.load(path)
        return self

"""What every corpus reader gives (documents with mentions), and how it becomes a spaCy `Doc`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import filter_spans

from ..errors import Errors
from ..sentences import sentence_starts

Misaligned = Literal["snap", "drop"]


@dataclass(frozen=True)
class Mention:
    """A mention at characters [start, end) of its document; `text` is what the corpus file gives for it."""

    start: int
    end: int
    label: str
    text: str


@dataclass(frozen=True)
class Document:
    """A text of a corpus with its mentions.

    words: The tokens of a tokenised corpus, which single spaces join to `text`. None for natural text.
    is_sentence: Whether the corpus gives one sentence a document, which is then never cut.
    corrected: How many mentions were believed against their offsets (see the reader).
    """

    id: str
    text: str
    mentions: tuple[Mention, ...]
    words: tuple[str, ...] | None = None
    is_sentence: bool = False
    corrected: int = 0


@dataclass
class Report:
    """What became of a corpus: everything that was counted while its documents became docs.

    mentions: The entities that were set, by their label in the docs.
    corrected: Mentions whose offsets the reader corrected by their text.
    snapped, dropped: Mentions that did not fall on token boundaries and were widened to tokens or left out.
    overlapping: Mentions left out because they lie in or across a longer one.
    cut_boundaries: Sentence boundaries left out because they would have cut a mention.
    skipped: Mentions left out because no label was asked for theirs, by the label in the corpus.
    """

    documents: int = 0
    sentences: int = 0
    mentions: Counter[str] = field(default_factory=Counter)
    corrected: int = 0
    snapped: int = 0
    dropped: int = 0
    overlapping: int = 0
    cut_boundaries: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def rows(self) -> list[tuple[str, int]]:
        """Give the report as rows of (what, count), for a table."""
        return [
            ("documents", self.documents),
            ("sentences", self.sentences),
            *((f"mentions {label}", self.mentions[label]) for label in sorted(self.mentions)),
            ("wrong offsets, corrected", self.corrected),
            ("not on token boundaries, snapped", self.snapped),
            ("not on token boundaries, dropped", self.dropped),
            ("overlapping, left out", self.overlapping),
            ("sentence boundaries left out (in a mention)", self.cut_boundaries),
            *((f"skipped label {label}", self.skipped[label]) for label in sorted(self.skipped)),
        ]


def check_mention(text: str, mention: Mention, path: Path, line: int) -> Mention:
    """Return the mention if its offsets give its text.

    RAISES: ValueError, naming file and line, if they do not.
    """
    found = text[mention.start : mention.end] if 0 <= mention.start < mention.end <= len(text) else None
    if found != mention.text or not mention.text.strip():
        raise ValueError(
            Errors.E102.format(
                path=path, line=line, start=mention.start, end=mention.end, mention=mention.text, found=found
            )
        )
    return mention


def to_doc(
    document: Document,
    nlp: Language,
    *,
    labels: Mapping[str, str] | None = None,
    misaligned: Misaligned = "snap",
    report: Report,
) -> Doc:
    """Make a `Doc` with entities and sentence boundaries of a document.

    document: The document.
    nlp: The pipeline whose tokenizer is used (its vocab only, where the document brings its words).
    labels: Our label for each label of the corpus; mentions of others are skipped. None: all as they are.
    misaligned: What to do with a mention that does not fall on token boundaries: "snap" it to the tokens it
        touches, or "drop" it.
    report: Counts what was done; changed in place.
    RETURNS: The doc, the document's id in `doc.user_data["nerllama_id"]`.
    """
    words = document.words
    doc = nlp.make_doc(document.text) if words is None else Doc(nlp.vocab, words=list(words))
    doc.user_data["nerllama_id"] = document.id
    spans = []
    for mention in document.mentions:
        if labels is not None and mention.label not in labels:
            report.skipped[mention.label] += 1
            continue
        label = mention.label if labels is None else labels[mention.label]
        span = _aligned(doc, mention, label)
        if span is None and misaligned == "drop":
            report.dropped += 1
            continue
        if span is None:
            report.snapped += 1
            span = _snapped(doc, mention, label)
        spans.append(span)
    entities = filter_spans(spans)
    report.overlapping += len(spans) - len(entities)
    doc.set_ents(entities)
    report.mentions.update(entity.label_ for entity in entities)
    _set_sentences(doc, [0] if document.is_sentence else sentence_starts(doc), report)
    report.documents += 1
    report.corrected += document.corrected
    return doc


def _aligned(doc: Doc, mention: Mention, label: str) -> Span | None:
    span = doc.char_span(mention.start, mention.end, label=label)
    return None if span is None or span[0].is_space or span[-1].is_space else span


def _snapped(doc: Doc, mention: Mention, label: str) -> Span:
    # White space at its edges is not the mention's: widening from there would take in a neighbour.
    start = mention.end - len(mention.text.lstrip())
    end = mention.start + len(mention.text.rstrip())
    span = doc.char_span(start, end, label=label, alignment_mode="expand")
    assert span is not None  # start < end lie in the text, as the reader has checked
    return span


def _set_sentences(doc: Doc, starts: list[int], report: Report) -> None:
    inside = {i for entity in doc.ents for i in range(entity.start + 1, entity.end)}
    kept = set(starts) - inside
    for token in doc:
        token.is_sent_start = token.i in kept
    report.sentences += len(kept)
    report.cut_boundaries += len(starts) - len(kept)

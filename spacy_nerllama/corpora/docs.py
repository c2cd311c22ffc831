"""Documents to spaCy `Doc`s, with a report of what did not fit, and back."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import filter_spans

from ..sentences import sentence_starts
from .documents import ID, OFFSET, PASSAGES, Document, Mention, Passage

Misaligned = Literal["snap", "drop"]
Misplaced = Literal["error", "drop"]


@dataclass
class Report:
    """What became of a corpus: everything that was counted while its documents became docs.

    documents: The documents that became docs; empty ones among them.
    empty: Documents without text.
    duplicate_ids: Documents whose id an earlier one has.
    not_accepted: Documents left out because their answer was not "accept", by their answer.
    mentions: The entities that were set, by their label in the docs.
    corrected: Mentions whose offsets were corrected by their text.
    snapped, dropped: Mentions that did not fall on token boundaries and were widened to tokens or left out.
    nested, overlapping: Mentions left out because they lie in a longer one that was kept, or across it; by
        both labels ("Disease in Chemical"). Of mentions of the same length the first is kept.
    duplicates: Mentions left out because an earlier one has the same place and label.
    discontinuous: Mentions in several pieces, left out.
    unplaced: Annotations without a place in the text, left out.
    misplaced: Mentions whose offsets give another text, or none, left out.
    cut_boundaries: Sentence boundaries left out because they would have cut a mention.
    skipped: Mentions left out because no label was asked for theirs, by the label in the corpus.
    """

    documents: int = 0
    empty: int = 0
    duplicate_ids: int = 0
    not_accepted: Counter[str] = field(default_factory=Counter)
    sentences: int = 0
    mentions: Counter[str] = field(default_factory=Counter)
    corrected: int = 0
    snapped: int = 0
    dropped: int = 0
    nested: Counter[str] = field(default_factory=Counter)
    overlapping: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    discontinuous: int = 0
    unplaced: int = 0
    misplaced: int = 0
    cut_boundaries: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def rows(self) -> list[tuple[str, int]]:
        """Give the report as rows of (what, count), for a table."""
        counts: list[tuple[str, int | Counter[str]]] = [
            ("documents", self.documents),
            ("documents without text", self.empty),
            ("documents with an id that was there before", self.duplicate_ids),
            ("documents left out, answer", self.not_accepted),
            ("sentences", self.sentences),
            ("mentions", self.mentions),
            ("wrong offsets, corrected", self.corrected),
            ("not on token boundaries, snapped", self.snapped),
            ("not on token boundaries, dropped", self.dropped),
            ("nested, the longer kept:", self.nested),
            ("overlapping, the longer kept:", self.overlapping),
            ("given twice, kept once", self.duplicates),
            ("discontinuous, left out", self.discontinuous),
            ("without a place in the text, left out", self.unplaced),
            ("offsets give another text, left out", self.misplaced),
            ("sentence boundaries left out (in a mention)", self.cut_boundaries),
            ("skipped label", self.skipped),
        ]
        rows = list[tuple[str, int]]()
        for what, count in counts:
            named = {what: count} if isinstance(count, int) else {f"{what} {k}": count[k] for k in sorted(count)}
            rows.extend(named.items())
        return rows

    def to_json(self) -> dict[str, Any]:
        """Give the report as JSON has it: its attributes, counters as objects."""
        return {name: dict(count) if isinstance(count, Counter) else count for name, count in vars(self).items()}


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
    misaligned: What to do with a mention that, without white space at its edges, does not fall on token
        boundaries: "snap" it to the tokens it touches, or "drop" it.
    report: Counts what was done; changed in place.
    RETURNS: The doc, the document's id in `doc.user_data["nerllama_id"]`, and its passages, where it has them,
        in `doc.user_data["nerllama_passages"]`, as lists of the attributes of `Passage`.
    """
    words = document.words
    doc = nlp.make_doc(document.text) if words is None else Doc(nlp.vocab, words=list(words))
    doc.user_data.update(document.user_data)
    spans, seen = list[Span](), set[tuple[int, int, str]]()
    for mention in document.mentions:
        if labels is not None and mention.label not in labels:
            report.skipped[mention.label] += 1
            continue
        label = mention.label if labels is None else labels[mention.label]
        start, end = _without_edges(mention)
        if (start, end, label) in seen:
            report.duplicates += 1
            continue
        seen.add((start, end, label))
        span = doc.char_span(start, end, label=label)
        if span is None and misaligned == "drop":
            report.dropped += 1
            continue
        if span is None:
            report.snapped += 1
            span = doc.char_span(start, end, label=label, alignment_mode="expand")
            assert span is not None  # start < end lie in the text, as the reader has checked
        spans.append(span)
    _set_entities(doc, spans, report)
    _set_sentences(doc, document, report)
    report.documents += 1
    report.empty += not document.text.strip()
    report.corrected += document.corrected
    report.discontinuous += document.discontinuous
    report.unplaced += document.unplaced
    report.misplaced += len(document.misplaced)
    return doc


def sentence_docs(doc: Doc) -> Iterator[Doc]:
    """Give each sentence of a doc as a doc of its own, with the document's id and passages.

    YIELDS: The sentences, each with the character where it begins in `doc.user_data["nerllama_offset"]`; a doc
        of one sentence, or of none, as it is.
    """
    sentences = list(doc.sents)
    if len(sentences) < 2:
        yield doc
        return
    for sentence in sentences:
        part = sentence.as_doc()
        part.user_data = {**doc.user_data, OFFSET: sentence.start_char}
        yield part


def to_documents(docs: Iterable[Doc]) -> Iterator[Document]:
    """Give the documents of docs with their entities as mentions: `to_doc` and `sentence_docs`, backwards.

    docs: Docs from a corpus or from a pipeline. Sentences of one document that follow each other are put
        together, each at its place; a missing one leaves spaces, so that offsets stay those of the document.
    YIELDS: The documents; one without an id gets its number, from 1.
    """
    number, parts = 0, list[Doc]()
    for doc in docs:
        if parts and not _continues(doc, parts[-1]):
            number += 1
            yield _document(parts, number)
            parts = []
        parts.append(doc)
    if parts:
        yield _document(parts, number + 1)


def _continues(doc: Doc, previous: Doc) -> bool:
    """Whether a doc is a later sentence of the document of another."""
    mine, theirs = doc.user_data, previous.user_data
    if OFFSET not in mine or OFFSET not in theirs or mine.get(ID) != theirs.get(ID):
        return False
    return bool(mine[OFFSET] >= theirs[OFFSET] + len(previous.text))


def _document(parts: Sequence[Doc], number: int) -> Document:
    data = parts[0].user_data
    passages = tuple(Passage(*passage) for passage in data.get(PASSAGES, ()))
    text, mentions = "", list[Mention]()
    for part in parts:
        offset = part.user_data.get(OFFSET, 0)
        text = text.ljust(offset) + part.text
        mentions += [_as_mention(ent, offset) for ent in part.ents]
    if parts[-1].has_unknown_spaces:  # the space after the last word is nobody's
        text = text.removesuffix(" ")
    text = text.ljust(passages[-1].end if passages else 0)
    return Document(str(data.get(ID) or number), text, tuple(mentions), passages=passages)


def _as_mention(ent: Span, offset: int) -> Mention:
    return Mention(offset + ent.start_char, offset + ent.end_char, ent.label_, ent.text, ent._.nerllama_vote)


def _without_edges(mention: Mention) -> tuple[int, int]:
    """Give start and end without the white space at the edges, which is not the mention's.

    With it a mention would seem to be off its tokens, and widening it would take in a neighbour.
    """
    return mention.end - len(mention.text.lstrip()), mention.start + len(mention.text.rstrip())


def _set_entities(doc: Doc, spans: list[Span], report: Report) -> None:
    kept = filter_spans(spans)
    doc.set_ents(kept)
    report.mentions.update(entity.label_ for entity in kept)
    kept_at = {token.i: entity for entity in kept for token in entity}
    left = Counter(spans) - Counter(kept)
    for span in left.elements():
        longer = next(kept_at[token.i] for token in span if token.i in kept_at)
        if longer.start <= span.start and span.end <= longer.end:
            report.nested[f"{span.label_} in {longer.label_}"] += 1
        else:
            report.overlapping[f"{span.label_} across {longer.label_}"] += 1


def _set_sentences(doc: Doc, document: Document, report: Report) -> None:
    if document.is_sentence:
        starts = {0} if len(doc) else set()
    else:
        text = document.text
        begins = {p.start for p in document.passages if text[p.start : p.end].strip() and text[: p.start].strip()}
        starts = {*sentence_starts(doc), *(token.i for token in doc if token.idx in begins)}
    kept = starts - {i for entity in doc.ents for i in range(entity.start + 1, entity.end)}
    for token in doc:
        token.is_sent_start = token.i in kept
    report.sentences += len(kept)
    report.cut_boundaries += len(starts) - len(kept)

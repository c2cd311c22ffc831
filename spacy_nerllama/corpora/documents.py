"""What every corpus reader gives and every writer takes: documents with mentions."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import Errors

Pieces = Sequence[tuple[int, int]]  # [start, end) of a mention, several if it is discontinuous
MAX_SHIFT = 5  # characters by which the offsets of a mention that is elsewhere are corrected

# Keys of `Doc.user_data`: the document's id, its passages, and where in the document a sentence's doc begins.
ID, PASSAGES, OFFSET = "nerllama_id", "nerllama_passages", "nerllama_offset"


@dataclass(frozen=True)
class Mention:
    """A mention at characters [start, end) of its document's text, which are `text`.

    vote: The vote that a pipeline gave it, in [0, 1]. None for what was read, or found by rule.
    """

    start: int
    end: int
    label: str
    text: str
    vote: float | None = None


@dataclass(frozen=True)
class Passage:
    """A part of a document at characters [start, end) of its text, such as its title.

    offset: Where the corpus file counts the passage's first character.
    kind: What the file calls it: "title", "abstract"; may be empty.
    """

    start: int
    end: int
    offset: int
    kind: str


@dataclass(frozen=True)
class Document:
    """A text of a corpus with its mentions.

    words: The tokens of a tokenised corpus, which single spaces join to `text`. None for natural text.
    is_sentence: Whether the corpus gives one sentence a document, which is then never cut.
    passages: The parts of the text that the corpus names, in order; no sentence goes on from one to the next.
    corrected: How many mentions were believed against their offsets (see `Annotations`).
    discontinuous: How many mentions in several pieces the reader left out.
    unplaced: How many annotations without a place in the text the reader left out.
    misplaced: For each mention whose offsets give another text, or none, and which was left out, what is wrong.
    answer: What the annotator said to the document as a whole: "accept", "reject" or "ignore".
    """

    id: str
    text: str
    mentions: tuple[Mention, ...]
    words: tuple[str, ...] | None = None
    is_sentence: bool = False
    passages: tuple[Passage, ...] = ()
    corrected: int = 0
    discontinuous: int = 0
    unplaced: int = 0
    misplaced: tuple[str, ...] = ()
    answer: str = "accept"

    @property
    def user_data(self) -> dict[str, Any]:
        """What a doc of the document keeps of its source: the id, and passages as lists of their attributes."""
        passages = [[p.start, p.end, p.offset, p.kind] for p in self.passages]
        return {ID: self.id, PASSAGES: passages} if passages else {ID: self.id}


def join_passages(parts: Iterable[tuple[str, int, str]]) -> tuple[str, tuple[Passage, ...]]:
    """Join the passages of a document with single spaces.

    parts: The kind, the offset in the corpus file, and the text of each.
    RETURNS: The text of the document, and its passages.
    """
    texts, passages, start = list[str](), list[Passage](), 0
    for kind, offset, text in parts:
        texts.append(text)
        passages.append(Passage(start, start + len(text), offset, kind))
        start += len(text) + 1
    return " ".join(texts), tuple(passages)


class Annotations:
    """The mentions of a document, while a reader adds what it finds.

    text, passages: The document's.
    """

    def __init__(self, text: str, passages: Sequence[Passage] = ()) -> None:
        self.text, self.passages = text, tuple(passages)
        self.mentions = list[Mention]()
        self.corrected = self.discontinuous = self.unplaced = 0
        self.misplaced = list[str]()

    def add(
        self, pieces: Pieces, label: str, mention: str | None, where: str, passage: Passage | None = None
    ) -> None:
        """Add a mention, if it is in one piece, and there.

        Several pieces with nothing but white space between them are one, and the mention may differ from the text
        in white space, as formats of lines must change it, in case and in Unicode form. Where offsets miss the
        mention, but it is there just once in or across them, or nearest to them by a shift of at most `MAX_SHIFT`,
        its text is believed, and it is counted as corrected.

        pieces: Where it is: characters [start, end) as the corpus file counts them; none counts as unplaced.
        mention: What the file gives as its text. None: nothing, offsets are believed.
        where: File and line, for the message.
        passage: The passage that the file has it in, if it says so.
        """
        if not pieces:
            self.unplaced += 1
            return
        pieces = self._in_text(sorted(pieces), passage)
        start, end = pieces[0][0], max(end for _, end in pieces)
        if any(self.text[i:j].strip() for (_, i), (j, _) in zip(pieces, pieces[1:], strict=False)):
            self.discontinuous += 1
            return
        found = self.text[start:end] if 0 <= start < end <= len(self.text) else ""
        if not found.strip() or (mention is not None and _form(found) != _form(mention)):
            place = self._place(mention or "", start, end)
            if place is None:
                facts = {"where": where, "start": start, "end": end, "label": label}
                if found.strip():
                    self.misplaced.append(Errors.E102.format(**facts, mention=mention, found=found))
                else:
                    self.misplaced.append(Errors.E130.format(**facts, n=len(self.text)))
                return
            start, end = place
            self.corrected += 1
        self.mentions.append(Mention(start, end, label, self.text[start:end]))

    def document(self, id_: str, is_sentence: bool = False) -> Document:
        """Make the document."""
        return Document(
            id_,
            self.text,
            tuple(self.mentions),
            is_sentence=is_sentence,
            passages=self.passages,
            corrected=self.corrected,
            discontinuous=self.discontinuous,
            unplaced=self.unplaced,
            misplaced=tuple(self.misplaced),
        )

    def _in_text(self, pieces: Pieces, passage: Passage | None) -> Pieces:
        """Turn offsets of the corpus file into those of the text, by the passage in which they lie."""
        first, last = pieces[0][0], pieces[-1][1]
        candidates = [*([passage] if passage else []), *self.passages, Passage(0, 0, 0, "")]
        holds = (p for p in candidates if p.offset <= first and last <= p.offset + p.end - p.start)
        found = next(holds, candidates[0])
        shift = found.start - found.offset
        return [(start + shift, end + shift) for start, end in pieces]

    def _place(self, mention: str, start: int, end: int) -> tuple[int, int] | None:
        """Find where a mention's text is that the characters [start, end) miss; None if that cannot be told."""
        pattern = re.compile(r"\s+".join(map(re.escape, mention.split())) or r"(?!)")
        around = max(len(mention), MAX_SHIFT)
        near = pattern.finditer(self.text, max(0, start - around), max(0, end) + around)
        places = [match.span() for match in near]
        if end - start == len(mention):
            shifts = sorted((abs(place[0] - start), place) for place in places)
            nearest = [place for shift, place in shifts if shift == shifts[0][0] <= MAX_SHIFT]
            if len(nearest) == 1:
                return nearest[0]
        across = [place for place in places if place[0] < end <= len(self.text) and start < place[1]]
        return across[0] if len(across) == 1 else None


def _form(text: str) -> list[str]:
    """Give the words of a text, whatever white space, case and Unicode form they are written with."""
    return unicodedata.normalize("NFC", text).casefold().split()

"""brat standoff: a text (.txt) and its annotations (.ann) for each document."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import Errors
from ..files import numbered_lines, read_text, replacing
from .documents import Annotations, Document, Mention

_TEXT_BOUND = re.compile(r"T[^\t]*\t(\S+) (\d{1,9} \d{1,9}(?:;\d{1,9} \d{1,9})*)\t(.*)", re.DOTALL)
_OTHER = re.compile(r"[REAMN]\d\S*\t|[#*]")
_UNSAFE = re.compile(r"[^\w.+-]|^\.")


def read_brat(path: str | Path, mentions: bool = True) -> Iterator[Document]:
    """Stream brat documents; the id of a document is the name of its files.

    Mentions in several pieces with more than white space between them are counted and left out, as are, without
    counting, all annotations that are not mentions (relations, events, attributes, notes).

    path: A folder of pairs of .txt and .ann files, in the order of their names, or one file of a pair. In a
        folder, a text without annotations (a README.txt) is no document. Where a text has CRLF, and offsets that
        take it for one character fit better, it is read with plain line ends.
    mentions: Whether to read annotations.
    RAISES: ValueError, naming file and line, for a broken line, or offsets that do not give the mention's text;
        FileNotFoundError for annotations without their text.
    """
    path = Path(path)
    annotations = sorted(path.glob("*.ann"), key=lambda p: p.stem) if path.is_dir() else [path.with_suffix(".ann")]
    for annotation in annotations:
        text = annotation.with_suffix(".txt")
        for needed in (annotation, text):
            if not needed.is_file():
                raise FileNotFoundError(Errors.E118.format(path=needed))
        yield _document(annotation, read_text(text), mentions)


def write_brat(documents: Iterable[Document], path: str | Path) -> None:
    """Write documents as a new folder of brat pairs.

    A document's files have its id as their name; characters that may not be in a name become `_`, and of
    documents with one id the second has `-2` at the end. A mention over a line break is written in pieces, as
    brat does.

    path: The folder, which appears whole or not at all; an empty one may be there.
    RAISES: FileExistsError if the folder is there and not empty.
    """
    path = Path(path)
    check_folder(path)
    names = set[str]()
    with replacing(path) as folder:
        folder.mkdir()
        for document in documents:
            name = _name(document.id, names)
            names.add(name.casefold())  # some file systems take A and a for one
            (folder / f"{name}.txt").write_bytes(document.text.encode())
            lines = [_line(i, mention) for i, mention in enumerate(document.mentions, start=1)]
            (folder / f"{name}.ann").write_bytes("".join(lines).encode())


def check_folder(path: Path) -> None:
    """Check that a folder can be written.

    RAISES: FileExistsError if it is there and not empty.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(Errors.E119.format(path=path))


def _document(path: Path, text: str, mentions: bool) -> Document:
    documents = (_annotated(path, each, mentions) for each in dict.fromkeys((text, text.replace("\r\n", "\n"))))
    return min(documents, key=lambda document: (len(document.misplaced), document.corrected))


def _annotated(path: Path, text: str, mentions: bool) -> Document:
    found = Annotations(text)
    for number, line in numbered_lines(path) if mentions else ():
        if not line.strip() or _OTHER.match(line):
            continue
        match = _TEXT_BOUND.fullmatch(line)
        if match is None:
            raise ValueError(Errors.E120.format(path=path, line=number, content=line[:80]))
        pieces = [(int(start), int(end)) for start, end in map(str.split, match[2].split(";"))]
        found.add(pieces, match[1], match[3], f"{path}, line {number}")
    return found.document(path.stem)


def _line(number: int, mention: Mention) -> str:
    pieces = re.finditer(r"[^\n]+", mention.text)
    places = ";".join(f"{mention.start + piece.start()} {mention.start + piece.end()}" for piece in pieces)
    label = "_".join(mention.label.split())
    return f"T{number}\t{label} {places}\t{' '.join(mention.text.split())}\n"


def _name(id_: str, names: set[str]) -> str:
    safe = _UNSAFE.sub("_", id_)[:60]  # at most 240 bytes
    name, number = safe, 1
    while name.casefold() in names:
        number += 1
        name = f"{safe}-{number}"
    return name

"""BioC, as XML and as JSON: documents of passages with annotations (BC5CDR, PubTator 3, PMC)."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat
from xml.sax.saxutils import escape

from ..errors import Errors
from ..files import as_id, as_offset, is_text, read_head, replacing, stream_json
from .documents import Annotations, Document, Passage, join_passages

_CHUNK = 1 << 16  # bytes
_LISTS = ("documents", "PubTator3")  # what PubTator 3 wraps around its documents
_MAX_DEPTH = 32  # BioC needs 7
# What XML 1.0 cannot hold; and a carriage return, which parsers turn into a line feed unless it is escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = {"\r": "&#13;"}
_HEAD = {"source": "spacy-nerllama", "date": "", "key": ""}


def read_bioc(path: str | Path, label: str | None = None, mentions: bool = True) -> Iterator[Document]:
    """Stream the documents of a BioC file: a collection or a single document, in XML or JSON.

    Passages (their sentences, where only those have text) are joined by a space, whatever the gap between their
    offsets. Relations are skipped. Mentions in several pieces with more than white space between them and
    annotations without a location are counted and left out.

    path: The file. Of JSON, a list of documents or collections and a document a line, as PubTator 3 and PubMed
        Central give them, are read, too.
    label: The label of annotations without an infon `type`.
    mentions: Whether to read annotations.
    RAISES: ValueError, naming file, document, line and annotation, for what is not XML, JSON or BioC, for XML
        that declares entities, or for offsets that do not give the mention's text.
    """
    path = Path(path)
    is_json = read_head(path).lstrip().startswith(("{", "["))
    documents = stream_json(path, _LISTS) if is_json else _stream_xml(path)
    for line, fields in documents:
        for each in _documents(fields):
            yield _document(each, path, line, label, mentions)


def write_bioc(documents: Iterable[Document], path: str | Path) -> None:
    """Write documents as a BioC collection, with the passages and the offsets that they have in their source.

    A document without passages becomes one; votes are infons `score`. Passages over which a mention runs are
    written as one, with a single space between them whatever was there.

    path: The file, which appears whole or not at all: JSON if its name ends in .json, else XML.
    """
    path = Path(path)
    as_json = path.suffix.lower() == ".json"
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        if as_json:
            file.write(json.dumps({**_HEAD, "infons": {}})[:-1] + ', "documents": [')
        else:
            file.write(
                '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE collection SYSTEM "BioC.dtd">\n<collection>'
            )
            file.write("".join(f"<{name}>{text}</{name}>" for name, text in _HEAD.items()) + "\n")
        separator = ""
        for document in documents:
            fields = _fields(document)
            file.write(f"{separator}\n{json.dumps(fields, ensure_ascii=False)}" if as_json else _xml(fields))
            separator = ","
        file.write("\n]}\n" if as_json else "</collection>\n")


def _documents(fields: Any) -> list[Any]:
    """Give the documents of a collection; what is none is a document itself."""
    if isinstance(fields, dict):
        for key in _LISTS:
            if isinstance(fields.get(key), list):
                return list(fields[key])
    return [fields]


def _document(fields: Any, path: Path, line: int, label: str | None, mentions: bool) -> Document:
    """Make a document of what JSON has for one; `_as_json` gives XML the same form."""
    where = f"{path}, document from line {line}"
    id_ = as_id(fields.get("id")) if isinstance(fields, dict) else None
    if id_ is None:
        raise _broken(where, "an id")
    where = f"{path}, document {id_} (from line {line})"
    parts, annotations = list[tuple[str, int, str]](), list[tuple[int | None, Any]]()
    for number, passage in enumerate(_list(fields, "passages", where), start=1):
        place = f"{where}, passage {number}"
        sentences = _list(passage, "sentences", place)
        units = sentences if sentences and not passage.get("text") else [passage]
        for unit in units:
            offset, text = as_offset(unit.get("offset")), unit.get("text") or ""
            if offset < 0 or not is_text(text):
                raise _broken(place, "an offset and a text")
            annotations += [(len(parts), annotation) for annotation in _list(unit, "annotations", place)]
            parts.append((_infon(unit, "type") or _infon(passage, "type") or "", offset, text))
        if units is sentences:
            annotations += [(None, annotation) for annotation in _list(passage, "annotations", place)]
        else:
            for sentence in sentences:
                annotations += [(len(parts) - 1, a) for a in _list(sentence, "annotations", place)]
    annotations += [(None, annotation) for annotation in _list(fields, "annotations", where)]
    found = Annotations(*join_passages(parts))
    for own, annotation in annotations if mentions else ():
        place = f"{where}, annotation {annotation.get('id')}"
        pieces, given, name = (
            _pieces(annotation, place),
            annotation.get("text"),
            _infon(annotation, "type") or label,
        )
        if pieces and name is None:
            infons = annotation.get("infons")
            has = ", ".join(map(str, infons)) if isinstance(infons, dict) else ""
            raise ValueError(Errors.E109.format(where=place, tag=f"{given!r} ({has})"))
        if given is not None and not is_text(given):
            raise _broken(place, "a text")
        found.add(pieces, name or "", given or None, place, None if own is None else found.passages[own])
    return found.document(id_)


def _list(fields: Any, key: str, where: str) -> list[Any]:
    """Give a list of objects; an empty one where there is none."""
    found = fields.get(key) or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise _broken(where, f"{key} that are a list of objects")
    return found


def _infon(fields: dict[str, Any], key: str) -> str | None:
    infons = fields.get("infons")
    found = infons.get(key) if isinstance(infons, dict) else None
    return found.strip() or None if is_text(found) else None


def _pieces(annotation: dict[str, Any], where: str) -> list[tuple[int, int]]:
    pieces = []
    for location in _list(annotation, "locations", where):
        start, length = as_offset(location.get("offset")), as_offset(location.get("length"))
        if start < 0 or length < 0:
            raise _broken(where, "locations with offset and length")
        pieces.append((start, start + length))
    return pieces


def _broken(where: str, expected: str) -> ValueError:
    return ValueError(Errors.E117.format(where=where, expected=expected))


def _stream_xml(path: Path) -> Iterator[tuple[int, Any]]:
    """Stream the documents of an XML file in the form that BioC JSON has, with their lines."""
    done = list[tuple[int, Any]]()
    parser = expat.ParserCreate()
    tree: TreeBuilder | None = None
    line = depth = 0
    root = ""

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal tree, line, depth, root
        root = root or name
        if root not in ("collection", "document"):
            raise ValueError(f"its root is <{root}>, not a <collection> of documents")
        if name == "document" and tree is None:
            tree, line = TreeBuilder(), parser.CurrentLineNumber
        if tree is not None:
            depth += 1
            if depth > _MAX_DEPTH:
                raise ValueError("elements lie too deep in one another")
            tree.start(name, attributes)

    def end(name: str) -> None:
        nonlocal tree, depth
        if tree is not None:
            depth -= 1
            tree.end(name)
            if depth == 0:
                done.append((line, _as_json(tree.close())))
                tree = None

    def data(text: str) -> None:
        if tree is not None:
            tree.data(text)

    def entity(*_: object) -> None:  # a few lines of them can expand to gigabytes
        raise ValueError("it declares entities")

    def skipped(name: str, _: bool) -> None:
        raise ValueError(f"it has an entity &{name}; that it does not declare")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.SkippedEntityHandler = skipped
    parser.CharacterDataHandler, parser.EntityDeclHandler = data, entity
    with path.open("rb") as file:
        chunk = b"-"
        while chunk:
            chunk = file.read(_CHUNK)
            try:
                parser.Parse(chunk, not chunk)
            except (expat.ExpatError, LookupError, ValueError) as error:  # LookupError: an unknown encoding
                raise ValueError(
                    Errors.E121.format(path=path, line=parser.CurrentLineNumber, reason=error)
                ) from None
            yield from done
            done.clear()


def _as_json(element: Element) -> dict[str, Any]:
    """Give an element the form that BioC JSON has for it."""
    fields: dict[str, Any] = dict(element.attrib)
    fields["infons"] = {infon.get("key"): infon.text for infon in element.findall("infon")}
    for name in ("id", "offset", "text"):
        child = element.find(name)
        if child is not None:
            fields[name] = "".join(child.itertext())
    for name in ("passage", "sentence", "annotation", "location"):
        fields[f"{name}s"] = [_as_json(child) for child in element.findall(name)]
    return fields


def _fields(document: Document) -> dict[str, Any]:
    """Give a document the form that BioC JSON has for it."""
    passages = list[dict[str, Any]]()
    number = 0
    for passage in _passages(document):
        annotations = []
        for m in document.mentions:
            if passage.start <= m.start < passage.end:
                number += 1
                place = {"offset": m.start - passage.start + passage.offset, "length": m.end - m.start}
                infons = {"type": m.label} if m.vote is None else {"type": m.label, "score": f"{m.vote:.4f}"}
                annotations.append({"id": str(number), "infons": infons, "text": m.text, "locations": [place]})
        passages.append(
            {
                "offset": passage.offset,
                "infons": {"type": passage.kind} if passage.kind else {},
                "text": document.text[passage.start : passage.end],
                "sentences": [],
                "annotations": annotations,
                "relations": [],
            }
        )
    return {"id": document.id, "infons": {}, "passages": passages, "annotations": [], "relations": []}


def _passages(document: Document) -> list[Passage]:
    """Give the passages to write, such that every mention lies in one."""
    end = len(document.text)
    merged = list[Passage]()
    for p in document.passages or (Passage(0, end, 0, ""),):
        before = merged[-1] if merged else None
        if before and any(m.start < p.start and m.end > before.end for m in document.mentions):
            merged[-1] = Passage(before.start, p.end, before.offset, before.kind)
        else:
            merged.append(p)
    return merged


def _xml(fields: dict[str, Any]) -> str:
    lines = ["<document>", f"<id>{_escaped(fields['id'])}</id>"]
    for passage in fields["passages"]:
        lines += ["<passage>", *_infons(passage), f"<offset>{passage['offset']}</offset>"]
        lines.append(f"<text>{_escaped(passage['text'])}</text>")
        for annotation in passage["annotations"]:
            (place,) = annotation["locations"]
            lines += [f'<annotation id="{annotation["id"]}">', *_infons(annotation)]
            lines.append(f'<location offset="{place["offset"]}" length="{place["length"]}"/>')
            lines += [f"<text>{_escaped(annotation['text'])}</text>", "</annotation>"]
        lines.append("</passage>")
    return "\n".join([*lines, "</document>\n"])


def _infons(fields: dict[str, Any]) -> list[str]:
    return [f'<infon key="{key}">{_escaped(value)}</infon>' for key, value in fields["infons"].items()]


def _escaped(text: str) -> str:
    """Write text as XML; what XML cannot hold becomes a space, one for one."""
    return escape(_NOT_XML.sub(" ", text), _ESCAPES)

"""JSON lines with `text` and `spans`, as Prodigy and many scripts write them, or a list of such objects."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import Errors
from ..files import as_id, as_offset, is_text, numbered_lines, parse_json, read_head, replacing, stream_json
from .documents import Annotations, Document, Mention

ANSWERS = ("accept", "reject", "ignore")
_LISTS = ("entities", "label", "labels")  # where others have what Prodigy has in `spans`, as [start, end, label]


def read_jsonl(path: str | Path, label: str | None = None, mentions: bool = True) -> Iterator[Document]:
    """Stream the documents of a file of JSON lines, or of a list of such objects.

    Of each object, `text`, `spans` (with `start`, `end` and `label`), `answer` and `id` are taken; there need be
    only a text. Where there are no `spans`, `entities`, `label` or `labels` may hold lists [start, end, label], as
    Doccano has them, or objects, in which `start_offset`, `end_offset` and `type` will do. A span with a `text` of
    its own is compared with it. Other keys, such as Prodigy's `tokens` and `meta`, are skipped.

    path: The file.
    label: The label of spans that have none.
    mentions: Whether to read spans.
    RAISES: ValueError, naming file and line, for what is not such an object, or a span outside of its text.
    """
    path = Path(path)
    if read_head(path).lstrip().startswith("["):
        for number, (line, fields) in enumerate(stream_json(path, ()), start=1):
            where = f"{path}, object {number} (line {line})"
            yield _document(fields, f"{path.stem}-{number}", label, where, mentions)
        return
    for number, text in numbered_lines(path):
        if text.strip():
            where = f"{path}, line {number}"
            yield _document(parse_json(text, path, number), f"{path.stem}-{number}", label, where, mentions)


def write_jsonl(documents: Iterable[Document], path: str | Path) -> None:
    """Write documents as JSON lines with `id`, `text` and `spans`; spans with a vote have it as `score`.

    path: The file; it appears whole or not at all.
    """
    with replacing(Path(path)) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for document in documents:
            spans = [_span(mention) for mention in document.mentions]
            json.dump({"id": document.id, "text": document.text, "spans": spans}, file, ensure_ascii=False)
            file.write("\n")


def _span(mention: Mention) -> dict[str, Any]:
    score = {} if mention.vote is None else {"score": round(mention.vote, 4)}
    return {"start": mention.start, "end": mention.end, "label": mention.label, **score}


def _document(fields: Any, id_: str, label: str | None, where: str, mentions: bool) -> Document:
    text = fields.get("text", fields.get("data")) if isinstance(fields, dict) else None
    if not is_text(text):
        raise ValueError(Errors.E117.format(where=where, expected="an object with a text"))
    spans, answer = _spans(fields, where) if mentions else [], fields.get("answer")
    answer = "accept" if answer is None else answer
    if answer not in ANSWERS:
        raise ValueError(Errors.E117.format(where=where, expected=f"an answer of {', '.join(ANSWERS)}"))
    if not isinstance(spans, list):
        raise ValueError(Errors.E117.format(where=where, expected="a list of spans"))
    found = Annotations(text)
    for span in spans:
        if not isinstance(span, dict):
            raise ValueError(Errors.E117.format(where=where, expected="spans that are objects"))
        start, end = (as_offset(span.get(key, span.get(f"{key}_offset"))) for key in ("start", "end"))
        name = span.get("label") or span.get("type") or label
        if name is None:
            has = ", ".join(map(str, span))
            raise ValueError(Errors.E109.format(where=where, tag=f"{start} to {end} ({has})"))
        if start < 0 or end < 0 or not is_text(name):
            raise ValueError(Errors.E117.format(where=where, expected="spans with start, end and label"))
        own = span.get("text")
        found.add([(start, end)], name, own if is_text(own) and own.strip() else None, where)
    return replace(found.document(as_id(fields.get("id")) or id_), answer=answer)


def _spans(fields: dict[str, Any], where: str) -> Any:
    """Give the spans of an object, be they in a key of another tool: else all of its mentions would be lost."""
    if fields.get("spans") is not None:
        return fields["spans"] or []
    for key in _LISTS:
        rows = fields.get(key)
        if not isinstance(rows, list) or not any(isinstance(row, (list, dict)) for row in rows):
            continue  # a class of the whole text
        if all(isinstance(row, dict) for row in rows):
            return rows
        if not all(isinstance(row, list) and len(row) == 3 for row in rows):
            expected = f"spans, be they empty, or {key!r} to be a list of [start, end, label] or of such objects"
            raise ValueError(Errors.E117.format(where=where, expected=expected))
        return [dict(zip(("start", "end", "label"), row, strict=True)) for row in rows]
    return []

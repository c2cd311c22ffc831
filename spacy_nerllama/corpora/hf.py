"""Hugging Face datasets in two schemas: BigBIO's `kb` (passages and entities), and tokens with their tags."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import Errors
from ..files import as_id, as_offset, is_text
from .documents import Annotations, Document, join_passages
from .iob import parse_tag, tagged_sentence

_BARE = ("O", "B", "I")  # what 0, 1 and 2 mean where the dataset does not say


def read_hf(
    path: str | Path, label: str | None = None, split: str | None = None, mentions: bool = True
) -> Iterator[Document]:
    """Stream the documents of a Hugging Face dataset.

    Its columns are `passages` and `entities`, as in BigBIO's kb schema (one document a row), or `tokens` and
    `ner_tags` (one sentence a row); tags are strings, class labels, or 0, 1 and 2 for O, B and I.

    path: What `save_to_disk` wrote, a folder of Parquet files or one such file; or else a dataset of the hub,
        as `owner/name` or `owner/name:config`.
    label: The label of mentions whose tags name no type.
    split: Which split to take; there is no need to say where there is only one.
    mentions: Whether to read entities of the kb schema.
    RAISES: ValueError, naming the dataset and, where it is one's fault, the row (from 0).
    """
    rows, names = _open(str(path), split)
    iterator = iter(rows)
    number = 0
    while True:
        try:
            row = next(iterator, None)
        except Exception as error:  # of many libraries: of files, of formats, of the network
            raise ValueError(Errors.E122.format(path=path, reason=error)) from error
        if row is None:
            return
        where, id_ = f"{path}, row {number}", f"{Path(path).stem}-{number + 1}"
        if "passages" in row and "entities" in row:
            yield _from_kb(row, label, where, id_, mentions)
        elif "tokens" in row and "ner_tags" in row:
            yield _from_tags(row, names, label, where, id_)
        else:
            raise ValueError(Errors.E123.format(path=path, columns=", ".join(row)))
        number += 1


def _open(path: str, split: str | None) -> tuple[Any, Sequence[str] | None]:
    """Open a split of a dataset.

    RETURNS: The rows, and the names of the tags, if the dataset has them.
    """
    import datasets

    try:
        found = _load(datasets, path)
    except Exception as error:  # of many libraries: of files, of formats, of the network
        raise ValueError(Errors.E122.format(path=path, reason=error)) from error
    if isinstance(found, dict):
        if split is None and len(found) == 1:
            split = next(iter(found))
        if split not in found:
            raise ValueError(Errors.E124.format(path=path, split=split, splits=", ".join(map(str, found))))
        found = found[split]
    feature = (found.features or {}).get("ner_tags")
    return found, getattr(getattr(feature, "feature", None), "names", None)


def _load(datasets: Any, path: str) -> Any:
    folder = Path(path)
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return datasets.load_from_disk(path)
    if folder.is_file():
        return datasets.load_dataset("parquet", data_files=path, streaming=True)
    if folder.is_dir():
        return datasets.load_dataset(path, streaming=True)
    name, _, config = folder.as_posix().partition(":")
    return datasets.load_dataset(name, config or None, streaming=True)


def _rows(value: Any) -> list[dict[str, Any]]:
    """Give a column of structs as a list of them; some versions of datasets have it as a dict of lists."""
    if isinstance(value, dict):
        return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    return list(value or [])


def _from_kb(row: dict[str, Any], label: str | None, where: str, id_: str, mentions: bool) -> Document:
    parts = []
    try:
        for passage in _rows(row["passages"]):
            parts.append((passage["type"] or "", as_offset(passage["offsets"][0][0]), " ".join(passage["text"])))
        entities = [
            (e["type"] or label, [(as_offset(a), as_offset(b)) for a, b in e["offsets"]], " ".join(e["text"]))
            for e in _rows(row["entities"] if mentions else [])
        ]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise ValueError(Errors.E117.format(where=where, expected="passages and entities of BigBIO")) from None
    found = Annotations(*join_passages(parts))
    for name, pieces, given in entities:
        if not name:
            raise ValueError(Errors.E109.format(where=where, tag=given))
        found.add(pieces, name, given, where)
    return found.document(as_id(row.get("document_id")) or as_id(row.get("id")) or id_)


def _from_tags(
    row: dict[str, Any], names: Sequence[str] | None, label: str | None, where: str, id_: str
) -> Document:
    words, tags = row["tokens"], row["ner_tags"]
    if not isinstance(words, list) or not isinstance(tags, list) or len(words) != len(tags):
        raise ValueError(Errors.E117.format(where=where, expected="as many ner_tags as tokens"))
    if not all(is_text(word) and word.strip(" \t") for word in words):
        raise ValueError(Errors.E117.format(where=where, expected="tokens that are not empty"))
    known = _BARE if names is None else names
    texts = [known[tag] if isinstance(tag, int) and 0 <= tag < len(known) else str(tag) for tag in tags]
    return tagged_sentence(as_id(row.get("id")) or id_, words, [parse_tag(tag, label, where) for tag in texts])

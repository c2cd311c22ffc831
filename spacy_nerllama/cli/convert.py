"""`python -m spacy nerllama convert`: a corpus file -> a `.spacy` file, and a report of what did not fit."""

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

from typer import Argument as Arg
from typer import Option as Opt

from ..errors import Errors

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, DocBin

    from ..corpora import Misaligned, Report

LABELS_HELP = (
    "Labels to keep and what to call them, such as Chemical=CHEMICAL,Disease=DISEASE; others are skipped and "
    "counted. Without it all are kept as they are"
)
MISALIGNED_HELP = (
    "What to do with mentions that do not fall on token boundaries: snap them to whole tokens, or drop them. "
    "Both are counted"
)


def convert_cli(
    input_path: Annotated[Path, Arg(metavar="INPUT", help="Corpus file (of BC2GM the .in file)")],
    output_path: Annotated[Path, Arg(metavar="OUTPUT.spacy", help="File to write; its folder is made")],
    format: Annotated[str, Opt("--format", "-f", help="Format of INPUT: pubtator, bc2gm or iob")],
    labels: Annotated[str | None, Opt("--labels", help=LABELS_HELP)] = None,
    label: Annotated[str | None, Opt("--label", help="Label of mentions whose IOB tags are bare B and I")] = None,
    misaligned: Annotated[str, Opt("--misaligned", help=MISALIGNED_HELP)] = "snap",
    lang: Annotated[str, Opt("--lang", "-l", help="Language whose tokenizer is used")] = "en",
    limit: Annotated[int | None, Opt("--limit", "-n", min=0, help="Convert at most so many documents")] = None,
    skip: Annotated[int, Opt("--skip", min=0, help="Leave out so many documents at the beginning")] = 0,
) -> None:
    """
    Convert a biomedical corpus to spaCy's binary format, with sentence boundaries, and report what did not
    fit. Documents are abstracts (pubtator) or sentences (bc2gm, iob). --skip and --limit hold a part out: of
    BC2GM's train file, --limit 12500 takes the first 12500 sentences and --skip 12500 the rest.
    """
    import spacy
    from wasabi import msg

    try:
        docs, report = convert(
            input_path,
            format,
            spacy.blank(lang),
            labels=None if labels is None else parse_labels(labels),
            label=label,
            misaligned=cast("Misaligned", misaligned),  # convert checks it
            limit=limit,
            skip=skip,
        )
        write_docs(docs, output_path)
    except (ValueError, OSError, ImportError) as error:
        msg.fail(f"Nothing was written to {output_path}", str(error), exits=1)
    msg.table(report.rows(), header=(input_path.name, "count"), aligns=("l", "r"), divider=True, max_col=60)
    if not report.documents:
        msg.warn(f"{input_path} holds no documents after the first {skip} and up to the limit")
    elif not report.mentions and report.skipped:
        msg.warn("All mentions were skipped: compare --labels with the labels above")
    msg.good(f"Wrote {report.documents} documents to {output_path}")


def convert(
    path: str | Path,
    format: str,
    nlp: "Language",
    *,
    labels: Mapping[str, str] | None = None,
    label: str | None = None,
    misaligned: "Misaligned" = "snap",
    limit: int | None = None,
    skip: int = 0,
) -> tuple[Iterator["Doc"], "Report"]:
    """Convert a corpus file to docs, as a stream.

    path, format, label: As `read_corpus` takes them.
    nlp: The pipeline whose tokenizer is used.
    labels, misaligned: As `to_doc` takes them.
    limit, skip: How many documents to convert at most, after leaving out how many.
    RETURNS: The docs, and the report, which is complete when the last doc has been taken.
    RAISES: ValueError for an unknown format or option, and while docs are taken for broken content;
        FileNotFoundError.
    """
    from ..corpora import Misaligned, Report, read_corpus, to_doc

    if misaligned not in get_args(Misaligned):
        raise ValueError(Errors.E113.format(misaligned=misaligned))
    documents = read_corpus(path, format, label=label)
    end = None if limit is None else skip + limit
    report = Report()
    docs = (
        to_doc(document, nlp, labels=labels, misaligned=misaligned, report=report)
        for document in islice(documents, skip, end)
    )
    return docs, report


def parse_labels(labels: str) -> dict[str, str]:
    """Read `Chemical=CHEMICAL,Disease=DISEASE` as a dict.

    RAISES: ValueError for anything else, or a label of the corpus that is there twice.
    """
    mapping: dict[str, str] = {}
    for pair in labels.split(","):
        theirs, _, ours = (side.strip() for side in pair.partition("="))
        if not theirs or not ours or "=" in ours or theirs in mapping:
            raise ValueError(Errors.E112.format(labels=labels))
        mapping[theirs] = ours
    return mapping


def write_docs(docs: Iterator["Doc"], path: Path) -> None:
    """Write docs to a `.spacy` file, whole or not at all: a file that is there is replaced at the end.

    RAISES: ValueError if the name does not end in `.spacy`.
    """
    from spacy.tokens import DocBin

    if path.suffix != ".spacy":
        raise ValueError(Errors.E114.format(path=path))
    doc_bin = DocBin(store_user_data=True)
    for doc in docs:
        doc_bin.add(doc)
    _replace(path, doc_bin)


def _replace(path: Path, doc_bin: "DocBin") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")  # in the same folder: replacing is atomic there
    try:
        doc_bin.to_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

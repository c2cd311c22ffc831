"""`python -m spacy nerllama convert`: a corpus -> a `.spacy` file, and a report of what did not fit."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

from typer import Argument as Arg
from typer import Option as Opt

from ..errors import Errors

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

    from ..corpora import Document, Misaligned, Misplaced, Report

FORMAT_HELP = "pubtator, bioc, bc2gm, iob, brat, mark, jsonl, hf (Hugging Face dataset), or auto: recognised"
LABELS_HELP = (
    "Labels to keep and what to call them, such as Chemical=CHEMICAL,Disease=DISEASE; others are skipped and "
    "counted. Without it all are kept as they are"
)
LABEL_HELP = "Label of mentions for which the file has none: bare B and I tags, marks, JSONL spans"
MISALIGNED_HELP = (
    "What to do with mentions that do not fall on token boundaries: snap them to whole tokens, or drop them. "
    "Both are counted"
)
MISPLACED_HELP = (
    "What to do with mentions whose offsets give another text, and do not miss it by little: error (nothing is "
    "written), or drop them; they are counted, and the first are shown"
)
TOKENIZER_HELP = "spacy: the tokenizer of the language; bio: nerllama.BioTokenizer.v1, which cuts biomedical words"
SENTENCES_HELP = "One doc a sentence, instead of one a document"
MAX_SHOWN = 3  # mentions that were left out
_SEPARATORS = {"tab": "\t", "space": None}
_TOKENIZERS: dict[str, dict[str, Any]] = {
    "spacy": {},
    "bio": {"nlp": {"tokenizer": {"@tokenizers": "nerllama.BioTokenizer.v1"}}},
}


def convert_cli(
    input_path: Annotated[Path, Arg(metavar="INPUT", help="Corpus file or folder (of BC2GM the .in file)")],
    output_path: Annotated[Path, Arg(metavar="OUTPUT.spacy", help="File to write; its folder is made")],
    format: Annotated[str, Opt("--format", "-f", help=FORMAT_HELP)] = "auto",
    labels: Annotated[str | None, Opt("--labels", help=LABELS_HELP)] = None,
    label: Annotated[str | None, Opt("--label", help=LABEL_HELP)] = None,
    misaligned: Annotated[str, Opt("--misaligned", help=MISALIGNED_HELP)] = "snap",
    misplaced: Annotated[str, Opt("--misplaced", help=MISPLACED_HELP)] = "error",
    split_sentences: Annotated[bool, Opt("--split-sentences", help=SENTENCES_HELP)] = False,
    lang: Annotated[str, Opt("--lang", "-l", help="Language whose tokenizer is used")] = "en",
    tokenizer: Annotated[str, Opt("--tokenizer", help=TOKENIZER_HELP)] = "spacy",
    token_column: Annotated[int, Opt("--token-column", help="iob: column of the token, from 1")] = 1,
    tag_column: Annotated[int, Opt("--tag-column", help="iob: column of the tag; -1 is the last")] = -1,
    separator: Annotated[str, Opt("--separator", help="iob: between columns, tab or space")] = "tab",
    split: Annotated[str | None, Opt("--split", help="hf: split to take")] = None,
    limit: Annotated[int | None, Opt("--limit", "-n", min=0, help="Convert at most so many documents")] = None,
    skip: Annotated[int, Opt("--skip", min=0, help="Leave out so many documents at the beginning")] = 0,
    report_path: Annotated[Path | None, Opt("--report", metavar="FILE.json", help="Write the report, too")] = None,
) -> None:
    """
    Convert a biomedical corpus to spaCy's binary format, with sentence boundaries, and report what did not
    fit. Documents are abstracts, or sentences in formats that have these (bc2gm, iob, mark). --skip and --limit
    hold a part out: of BC2GM's train file, --limit 12500 takes the first 12500 sentences and --skip 12500 the
    rest. With --format hf, INPUT may be a dataset of the Hugging Face hub, owner/name or owner/name:config.
    """
    import spacy
    from tqdm import tqdm
    from wasabi import msg

    from ..corpora import read_corpus
    from ..files import replacing

    try:
        if report_path is not None:
            report_path.parent.mkdir(parents=True, exist_ok=True)  # now, rather than after a long run
            if report_path.is_dir():
                raise FileExistsError(Errors.E073.format(path=report_path))
        documents = read_corpus(
            input_path,
            format,
            label=label,
            columns=(_column(token_column), _column(tag_column)),
            separator=_choice("--separator", separator, _SEPARATORS),
            split=split,
            misplaced=cast("Misplaced", misplaced),  # it checks it
        )
        wrong = list[str]()
        docs, report = convert(
            _noting(documents, wrong),
            spacy.blank(lang, config=_choice("--tokenizer", tokenizer, _TOKENIZERS)),
            labels=None if labels is None else parse_labels(labels),
            misaligned=cast("Misaligned", misaligned),  # convert checks it
            split_sentences=split_sentences,
            limit=limit,
            skip=skip,
        )
        write_docs(tqdm(docs, desc=input_path.name, unit=" docs", disable=None, leave=False), output_path)
        if report_path is not None:
            with replacing(report_path) as temporary:
                temporary.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    except (ValueError, OSError, ImportError) as error:
        msg.fail(f"Nothing was written to {output_path}", str(error), exits=1)
    msg.table(report.rows(), header=(input_path.name, "count"), aligns=("l", "r"), divider=True, max_col=60)
    for message in wrong:
        msg.warn("Left out", message)
    if not report.documents:
        left_out = f" after the first {skip}, which --skip leaves out" if skip else ""
        msg.warn(f"{input_path} holds no documents{left_out}")
    elif not report.mentions and report.skipped:
        msg.warn("All mentions were skipped: compare --labels with the labels above")
    elif not report.mentions:
        msg.warn(
            "There is no mention in any document: a model that is trained on them learns to mark nothing. Compare "
            "the file with what docs/corpora.md says is read of its format"
        )
    msg.good(f"Wrote {report.documents} documents to {output_path}")


def _noting(documents: Iterable["Document"], wrong: list[str]) -> Iterator["Document"]:
    """Pass documents on, and note what is wrong with mentions of them that were left out."""
    for document in documents:
        wrong += document.misplaced[: MAX_SHOWN - len(wrong)]  # none once there are enough
        yield document


def convert(
    documents: Iterable["Document"],
    nlp: "Language",
    *,
    labels: Mapping[str, str] | None = None,
    misaligned: "Misaligned" = "snap",
    split_sentences: bool = False,
    limit: int | None = None,
    skip: int = 0,
) -> tuple[Iterator["Doc"], "Report"]:
    """Convert the documents of a corpus to docs, as a stream. Those that were not accepted are left out.

    documents: As `read_corpus` gives them.
    nlp: The pipeline whose tokenizer is used.
    labels, misaligned: As `to_doc` takes them.
    split_sentences: Whether each sentence becomes a doc of its own, as `sentence_docs` gives it.
    limit, skip: How many documents to convert at most, after leaving out how many.
    RETURNS: The docs, and the report, which is complete when the last doc has been taken.
    RAISES: ValueError for an unknown option, and while docs are taken for broken content.
    """
    from ..corpora import Misaligned, Report, sentence_docs, to_doc

    if misaligned not in get_args(Misaligned):
        raise ValueError(Errors.E113.format(misaligned=misaligned))
    report = Report()

    def stream() -> Iterator["Doc"]:
        ids = set[str]()
        for document in islice(documents, skip, None if limit is None else skip + limit):
            if document.answer != "accept":
                report.not_accepted[document.answer] += 1
                continue
            report.duplicate_ids += document.id in ids
            ids.add(document.id)
            doc = to_doc(document, nlp, labels=labels, misaligned=misaligned, report=report)
            yield from sentence_docs(doc) if split_sentences else [doc]

    return stream(), report


def _choice(option: str, value: str, choices: Mapping[str, Any]) -> Any:
    if value not in choices:
        raise ValueError(Errors.E128.format(what=option, choices=" or ".join(choices), value=value))
    return choices[value]


def _column(number: int) -> int:
    """Turn a column's number from 1 (or -1, backwards) into its index."""
    if number == 0:
        raise ValueError(Errors.E129)
    return number - (number > 0)


def parse_labels(labels: str) -> dict[str, str]:
    """Read `Chemical=CHEMICAL,Disease=DISEASE` as a dict. A label of the corpus may hold commas: `T116,T123=GENE`.

    RAISES: ValueError for anything else, or a label of the corpus that is there twice.
    """
    first, *rest = labels.split("=")
    sides = [first, *(side for each in rest[:-1] for side in each.partition(",")[::2]), *rest[-1:]]
    theirs, ours = ([side.strip() for side in sides[i::2]] for i in (0, 1))
    if not rest or not all((*theirs, *ours)) or len({*theirs}) < len(theirs) or "," in ours[-1]:
        raise ValueError(Errors.E112.format(labels=labels))
    return dict(zip(theirs, ours, strict=True))


def write_docs(docs: Iterable["Doc"], path: Path) -> None:
    """Write docs to a `.spacy` file, whole or not at all: a file that is there is replaced at the end.

    RAISES: ValueError if the name does not end in `.spacy`.
    """
    from spacy.tokens import DocBin

    from ..files import replacing

    if path.suffix != ".spacy":
        raise ValueError(Errors.E114.format(path=path))
    doc_bin = DocBin(store_user_data=True)
    for doc in docs:
        doc_bin.add(doc)
    with replacing(path) as temporary:
        doc_bin.to_disk(temporary)

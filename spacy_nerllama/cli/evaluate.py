"""`python -m spacy nerllama evaluate`: a pipeline and gold docs -> scores, intervals, calibration, errors."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument as Arg
from typer import Context
from typer import Option as Opt

from ..errors import Errors, Warnings
from .overrides import config_overrides

if TYPE_CHECKING:
    from spacy.language import Language

    from ..evaluation.result import Result
    from ..evaluation.spans import DocSpans

VOTES_KEY = "nerllama"
TRAIN_HELP = "Training data (.spacy): tells recall on mentions that occur in it from recall on others"
COMPARE_HELP = "Another pipeline, or a result of this command (.json), on the same data: paired bootstrap"
LABELS_HELP = (
    "Judge only these labels, such as DISEASE,CHEMICAL, where the data do not annotate all that the pipeline "
    "predicts. nerllama_ner is asked for no others, where each label is a request of its own; spaCy's scores are "
    "of all that was predicted"
)
SPANS_KEY_HELP = "Group in doc.spans that holds the votes; by default that of the pipeline's nerllama_ner"
GOLD_HELP = "Give the pipeline gold sentences and tokens. Data of unknown spacing always give their tokens"


def evaluate_cli(
    ctx: Context,
    pipeline: Annotated[str, Arg(metavar="PIPELINE", help="Folder or package of the pipeline")],
    data_path: Annotated[Path, Arg(metavar="DATA.spacy", help="Gold docs, such as `convert` writes")],
    output: Annotated[Path | None, Opt("--output", "-o", help="Write all figures to this JSON file")] = None,
    html: Annotated[Path | None, Opt("--html", help="Write tables, plots and errors to this HTML file")] = None,
    train: Annotated[Path | None, Opt("--train", help=TRAIN_HELP)] = None,
    compare: Annotated[str | None, Opt("--compare", help=COMPARE_HELP)] = None,
    labels: Annotated[str | None, Opt("--labels", help=LABELS_HELP)] = None,
    spans_key: Annotated[str | None, Opt("--spans-key", help=SPANS_KEY_HELP)] = None,
    gold_preproc: Annotated[bool, Opt("--gold-preproc", "-G", help=GOLD_HELP)] = False,
    limit: Annotated[int | None, Opt("--limit", "-n", min=1, help="Take so many docs, drawn at random")] = None,
    seed: Annotated[int, Opt("--seed", help="Seed of --limit and of the bootstrap")] = 0,
    code_path: Annotated[Path | None, Opt("--code", "-c", help="Python file with components to import")] = None,
) -> None:
    """
    Evaluate the entities of a pipeline: what `spacy evaluate` gives, and strict and relaxed scores on characters
    with 95 % intervals, calibration and thresholds of votes, and errors by kind. Settings of PIPELINE can be
    overridden, for example --components.nerllama_ner.voting.samples 1. Each figure is defined in
    docs/evaluation.md. On which device a model runs is a setting of its component, not of this command.
    """
    from spacy.cli._util import import_code
    from wasabi import msg

    from ..evaluation.html import page
    from ..evaluation.result import to_json

    overrides = config_overrides(ctx)
    import_code(code_path)
    try:
        for path in (output, html):
            if path is not None:  # now, rather than after a long run
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.is_dir():
                    raise FileExistsError(Errors.E073.format(path=path))
        result, docs = evaluate(
            pipeline,
            data_path,
            overrides,
            train=train,
            compare=compare,
            labels=None if labels is None else [label.strip() for label in labels.split(",")],
            spans_key=spans_key,
            gold_preproc=gold_preproc,
            limit=limit,
            seed=seed,
        )
    except (ValueError, OSError, ImportError) as error:
        msg.fail("Nothing was evaluated", str(error), exits=1)
    _show(result)
    try:
        if output is not None:
            _write(output, to_json(result))
        if html is not None:
            _write(html, page(result, docs))
    except OSError as error:
        msg.fail("The result was not written", str(error), exits=1)


def evaluate(
    pipeline: str,
    data_path: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    train: Path | None = None,
    compare: str | None = None,
    labels: Collection[str] | None = None,
    spans_key: str | None = None,
    gold_preproc: bool = False,
    limit: int | None = None,
    seed: int = 0,
) -> tuple["Result", list["DocSpans"]]:
    """Evaluate a pipeline on a `.spacy` file.

    pipeline: Its folder or package.
    data_path: The gold docs.
    overrides: Settings of the pipeline by dotted key.
    train: Training data, to tell seen mentions from unseen ones.
    compare: Another pipeline, which gets no overrides, or a JSON file of this command.
    labels: As `doc_spans` takes them. Components that ask for each label alone ask for no others.
    spans_key: As `doc_spans` takes it. None: the group of the pipeline's `nerllama_ner`.
    gold_preproc, limit, seed: As `read_examples` takes them.
    RETURNS: The figures of `measure` and of the run, and what was judged of each doc.
    RAISES: ValueError, OSError or ImportError for bad data, settings or pipelines; before the pipeline runs,
        unless only its predictions can tell.
    """
    import spacy

    from .. import __version__
    from ..docbin import read_docs
    from ..evaluation.mentions import mentions
    from ..evaluation.predict import predict, read_examples
    from ..evaluation.result import check_comparable, compare_results, fingerprint, measure
    from ..evaluation.spans import doc_spans

    nlp = spacy.load(pipeline, config=dict(overrides or {}))
    if labels is not None:
        _ask_only(nlp, labels)
    examples = read_examples(data_path, nlp, gold_preproc=gold_preproc, limit=limit, seed=seed)
    gold = [example.reference for example in examples]
    annotated = {ent.label_ for doc in gold for ent in doc.ents}
    if annotated.isdisjoint(labels or annotated):
        among = f" of the labels {', '.join(labels)}" if labels else ""
        has = ", ".join(sorted(annotated)) or "none"
        raise ValueError(Errors.E092.format(path=data_path, among=among, has=has))
    absent = sorted(set(labels or ()) - annotated)
    known = None if train is None else mentions(read_docs(train, nlp.vocab))
    data = fingerprint(gold, labels)
    if compare is not None:
        if compare.endswith(".json"):
            other = _read_json(Path(compare))
        else:
            other, _ = evaluate(
                compare,
                data_path,
                labels=labels,
                spans_key=spans_key,
                gold_preproc=gold_preproc,
                limit=limit,
                seed=seed,
            )
        check_comparable(other, data, compare)

    key = spans_key or _votes_key(nlp)
    run = predict(nlp, examples, pipeline)
    docs = [doc_spans(example, labels, key) for example in run.examples]
    if not any(doc.predicted for doc in docs) and not _has_ner(nlp):
        raise ValueError(Errors.E093.format(pipeline=pipeline, pipes=", ".join(nlp.pipe_names) or "none"))
    figures = measure(docs, known, seed=seed)
    result = {
        "pipeline": pipeline,
        "overrides": dict(overrides or {}),
        "data": str(data_path),
        "labels": labels and sorted(labels),
        "fingerprint": data,
        "version": __version__,
        "own_tokens": gold_preproc or all(doc.has_unknown_spaces for doc in gold),
        "spacy": run.scores,
        "speed": run.speed,
        "warnings": [
            *(Warnings.W094.format(label=label, has=", ".join(sorted(annotated))) for label in absent),
            *_label_warnings(figures["strict"]["labels"]),
            *_vote_warnings(docs, key),
        ],
        **figures,
    }
    if compare is not None:
        result["warnings"] += [f"{compare}: {warning}" for warning in other.get("warnings", [])]
        result["comparison"] = {"other": compare, **compare_results(result, other, seed=seed)}
    return result, docs


def _ask_only(nlp: "Language", labels: Collection[str]) -> None:
    """Let components that ask for each label alone ask for some labels only, unless they have none of them."""
    from ..pipe import NerLlama
    from ..prompts import scheme_of

    for _, component in nlp.pipeline:
        if isinstance(component, NerLlama) and not scheme_of(component.prompt).tells_labels:
            asked = {label: words for label, words in component.label_data.items() if label in labels}
            if asked:
                component.initialize(labels=asked)


def _votes_key(nlp: "Language") -> str:
    """Give the group to which a pipeline writes votes."""
    from ..pipe import NerLlama

    return next((proc.spans_key for _, proc in nlp.pipeline if isinstance(proc, NerLlama)), VOTES_KEY)


def _has_ner(nlp: "Language") -> bool:
    """Whether a component says that it sets entities."""
    return any("doc.ents" in nlp.get_pipe_meta(name).assigns for name in nlp.pipe_names)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf8"))
    except (ValueError, OSError) as error:
        raise ValueError(Errors.E096.format(path=path)) from error


def _label_warnings(totals: Mapping[str, Any]) -> list[str]:
    """Say which labels of gold docs and pipeline do not meet, by the strict scores of each label."""
    gold = [label for label, each in totals.items() if each["gold"]]
    found = []
    for label, each in totals.items():
        if not each["gold"]:
            twin = next((other for other in gold if other.lower() == label.lower()), None)
            message = Warnings.W090 if twin else Warnings.W091
            found.append(message.format(label=label, n=each["predicted"], gold=",".join(gold), twin=twin))
    return found


def _vote_warnings(docs: Sequence["DocSpans"], spans_key: str) -> list[str]:
    """Say which docs cost all of them the calibration, where it was to be expected that they vote."""
    unread = [doc for doc in docs if doc.unread]
    without = [doc for doc in docs if doc.votes is None and not doc.unread]
    if len(without) == len(docs) and spans_key == VOTES_KEY:  # a pipeline that does not vote
        return []
    return [
        message.format(n=len(which), total=len(docs), text=which[0].text[:60], key=spans_key)
        for message, which in ((Warnings.W092, unread), (Warnings.W093, without))
        if which
    ]


def _show(result: "Result") -> None:
    from wasabi import msg

    from ..evaluation.tables import tables

    for table in tables(result):
        aligns = tuple("l" if i in table.left else "r" for i in range(len(table.header)))
        msg.table(table.rows, header=table.header, title=table.title, aligns=aligns, divider=True, max_col=80)
        if table.note:
            msg.text(table.note)
    speed = result["speed"]
    memory = "" if speed["peak_memory"] is None else f", at most {speed['peak_memory'] / 1e9:.2f} GB of memory"
    msg.text(
        f"{speed['documents']} documents in {speed['seconds']:.1f} s: {speed['documents_per_second']:.2f} "
        f"documents a second, {speed['words_per_second']:.0f} words a second{memory}"
    )
    for warning in result["warnings"]:
        msg.warn(warning)


def _write(path: Path, text: str) -> None:
    from wasabi import msg

    from ..files import replacing

    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf8")
    msg.good(f"Wrote {path}")

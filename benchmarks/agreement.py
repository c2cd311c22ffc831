"""Do the sentences of an abstract agree? F1 and calibration with and without, on natural text of devel splits.

    python benchmarks/agreement.py --corpora assets --limit 300 --cache agreement.cache --update docs/voting.md

The model reads each sentence once: its answers are kept in the cache, and a run that was stopped goes on from
there. What is compared is what becomes of them in the component. Whole abstracts are read, without sentence
boundaries.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import spacy
from accuracy import CORPORA, gold_docs, markdown, put, unannotated
from spacy.training import Example

from spacy_nerllama.evaluation import doc_spans
from spacy_nerllama.evaluation.predict import predict
from spacy_nerllama.evaluation.result import compare_results, measure

NATURAL = ("NCBI-disease, natural", "BC5CDR, natural")  # BC2GM is of single sentences
AGREEMENTS = (0.3, 0.5, 0.7)


def results(settings: argparse.Namespace, name: str) -> dict[float, dict[str, Any]]:
    """Score the component on the abstracts of a corpus, with each agreement."""
    nlp = spacy.blank("en")
    cache = {"@misc": "nerllama.Cache.v1", "path": str(settings.cache)}
    config: dict[str, Any] = {"labels": CORPORA[name][3], "cache": cache}
    if settings.base:
        config["model"] = {"name": settings.base, "adapter": settings.adapter}
    component: Any = nlp.add_pipe("nerllama_ner", config=config)
    gold, found = gold_docs(settings.corpora, name, nlp, settings.limit, settings.split), {}
    for agreement in dict.fromkeys([0.0, *settings.agreements]):
        component.voting = replace(component.voting, agreement=agreement)
        run = predict(nlp, [Example(unannotated(doc, nlp), doc) for doc in gold], f"{name}, {agreement}")
        found[agreement] = measure([doc_spans(example, CORPORA[name][3]) for example in run.examples])
    return found


def table(found: dict[str, dict[float, dict[str, Any]]]) -> str:
    """Write a line for each corpus and agreement."""
    lines = [["corpus", "abstracts", "agreement", "P", "R", "F1", "less 0 (95 %)", "ECE"]]
    lines += [["---", *["--:"] * (len(lines[0]) - 1)]]
    for name, by_agreement in found.items():
        for agreement, result in by_agreement.items():
            micro, less = result["strict"]["micro"], ""
            if agreement:
                compared = compare_results(result, by_agreement[0.0])["strict"]["micro"]
                less = "{difference:+.4f} ({low:+.4f} to {high:+.4f})".format(**compared)
            scores = [f"{micro[key]:.4f}" for key in ("precision", "recall", "f1")]
            ece = result["calibration"]["ece"] if result["calibration"] else None
            lines.append(
                [
                    name,
                    str(result["documents"]),
                    str(agreement),
                    *scores,
                    less,
                    "" if ece is None else f"{ece:.3f}",
                ]
            )
    return markdown(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True, help="the folder of the corpora")
    parser.add_argument("--split", default="devel", choices=("devel", "test"))
    parser.add_argument("--limit", type=int, help="so many sentences of each corpus, in whole abstracts")
    parser.add_argument("--cache", type=Path, required=True, help="keeps the answers of the model")
    parser.add_argument("--agreements", type=float, nargs="+", default=AGREEMENTS, help="to compare with none, 0")
    parser.add_argument("--base", help="another base")
    parser.add_argument("--adapter", help="another adapter, of that base")
    parser.add_argument("--update", type=Path, help="put the table into this file, between its markers")
    settings = parser.parse_args()
    text = table({name: results(settings, name) for name in NATURAL})
    print(text)
    if settings.update:
        put(settings.update, f"agreement, {settings.split}", text)


if __name__ == "__main__":
    main()

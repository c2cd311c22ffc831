"""Annotate a folder of texts on a cluster, or on the cores of one machine, with Ray Data.

    pip install 'spacy-nerllama[ray]'
    python examples/ray_annotate.py PIPELINE TEXTS OUTPUT --workers 4

PIPELINE is a saved pipeline or an installed package. With a local model each worker loads one; `--gpus 1` gives
each a GPU. With a served one (nerllama.VLLM.v1, nerllama.OpenAI.v1) the workers only send requests, and several
can share a server. On a cluster, PIPELINE and TEXTS must be readable from every node; start with `ray job submit`,
or set RAY_ADDRESS. Ray gives its workers way to all else that runs on a machine; where that starves them, set
RAY_worker_niceness=0.

OUTPUT gets JSON lines files, in any order: `id`, `text`, `spans` (`start`, `end`, `label`, `score`) and `error`,
null for all documents but those that could not be annotated. They are listed at the end, and make the exit
status 3.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray
import spacy
from spacy.tokens import Doc


class Annotator:
    """A worker: it loads the pipeline once, and annotates batches of texts."""

    def __init__(self, pipeline: str) -> None:
        self.nlp = spacy.load(pipeline)
        self.errors: dict[int, str] = {}
        self.nlp.set_error_handler(self.failed)

    def failed(self, name: str, proc: Any, docs: list[Doc], error: Exception) -> None:
        """Note why docs could not be annotated; they come out all the same."""
        self.errors.update((id(doc), f"{name}: {error}") for doc in docs)

    def doc(self, text: str) -> Doc:
        """Make a doc; of a text that is too long for the tokenizer an empty one, which counts as failed."""
        try:
            return self.nlp.make_doc(text)
        except ValueError as error:
            doc = Doc(self.nlp.vocab)
            self.errors[id(doc)] = str(error)
            return doc

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Annotate a batch of files, each its `path` and its content as `bytes`."""
        texts = [content.decode("utf8", "replace") for content in batch["bytes"]]
        self.errors.clear()
        docs = [self.doc(text) for text in texts]  # kept here, so that each id is a doc's own
        list(self.nlp.pipe(doc for doc in docs if id(doc) not in self.errors))
        return {
            "id": [Path(path).stem for path in batch["path"]],
            "text": texts,
            "spans": [[_span(ent) for ent in doc.ents if id(doc) not in self.errors] for doc in docs],
            "error": [self.errors.get(id(doc)) for doc in docs],
        }


def _span(ent: Any) -> dict[str, Any]:
    score = ent._.nerllama_vote if ent.has_extension("nerllama_vote") else None
    return {"start": ent.start_char, "end": ent.end_char, "label": ent.label_, "score": score}


def main() -> int:
    """Run the command line.

    RETURNS: The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", metavar="PIPELINE")
    parser.add_argument("texts", metavar="TEXTS", type=Path, help="a folder of .txt files, each a document")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="a folder, new or empty")
    parser.add_argument("--workers", type=int, default=2, help="how many processes annotate at a time")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs for each; 0.5 lets two share one")
    parser.add_argument("--batch-size", type=int, default=64, help="documents that a worker takes at a time")
    arguments = parser.parse_args()
    if not any(arguments.texts.glob("*.txt")):
        parser.error(f"there are no .txt files in {arguments.texts}")
    if arguments.output.exists() and any(arguments.output.iterdir()):
        parser.error(f"{arguments.output} is not empty: choose another folder")

    files = sorted(str(path.resolve()) for path in arguments.texts.glob("*.txt"))
    blocks = max(arguments.workers, len(files) // arguments.batch_size)
    # Reading and writing ask for no core: else as many workers as cores leave none for them, and wait for ever.
    read = ray.data.read_binary_files(
        files, include_paths=True, override_num_blocks=min(blocks, len(files)), num_cpus=0
    )
    annotated = read.map_batches(
        Annotator,
        fn_constructor_args=(arguments.pipeline,),
        batch_size=arguments.batch_size,
        compute=ray.data.ActorPoolStrategy(size=arguments.workers),
        num_gpus=arguments.gpus,
    )
    annotated.write_json(str(arguments.output.resolve()), ray_remote_args={"num_cpus": 0})

    rows = (json.loads(line) for path in arguments.output.glob("*.json") for line in path.open(encoding="utf8"))
    failed = [row for row in rows if row["error"] is not None]
    for row in failed:
        print(f"{row['id']}: {row['error']}", file=sys.stderr)
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

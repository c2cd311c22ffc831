"""`python -m spacy nerllama instruct`: a `.spacy` file -> instruction data for any trainer, as parquet."""

from pathlib import Path
from typing import Annotated

from typer import Argument as Arg
from typer import Option as Opt

from ..errors import Errors

PROMPTS = ("compact", "paper", "multi-task")

LABELS_HELP = (
    "Labels that CORPUS annotates and what the prompt calls them, such as DISEASE=disease,GENE=gene. Without it: "
    "the labels of its entities, in words (CELL_LINE: cell line)"
)
PROMPT_HELP = (
    "What a request looks like. compact: the sentence and what to mark, as the bundled adapter reads it; paper: "
    "the instruction of Liu et al. 2025, a chat; multi-task: all labels in one request, with markers of their own"
)
EXAMPLES_HELP = (
    "Draw the paper prompt's in-context examples from this .spacy file. Give the train split, for every split: a "
    "sentence is never among its own examples"
)


def instruct_cli(
    input_path: Annotated[
        Path, Arg(metavar="CORPUS.spacy", help="Docs with gold entities, such as convert makes")
    ],
    output_path: Annotated[Path, Arg(metavar="OUTPUT.parquet", help="File to write; its folder is made")],
    labels: Annotated[str | None, Opt("--labels", help=LABELS_HELP)] = None,
    prompt: Annotated[str, Opt("--prompt", "-p", help=PROMPT_HELP)] = "compact",
    examples: Annotated[Path | None, Opt("--examples", metavar="TRAIN.spacy", help=EXAMPLES_HELP)] = None,
    n_examples: Annotated[int, Opt("--n-examples", min=0, help="How many examples a request shows")] = 3,
    seed: Annotated[int, Opt("--seed", help="Seed of the draws")] = 0,
) -> None:
    """
    Write a corpus as instruction data: one row for each sentence and label, with the columns messages (a chat),
    request, response (the sentence with its mentions marked) and label. Any trainer that reads parquet or Hugging
    Face datasets can take it. Our own `finetune` needs none of this: it reads .spacy files.
    """
    from wasabi import msg

    try:
        count, unknown = write_instructions(input_path, output_path, labels, prompt, examples, n_examples, seed)
    except (ValueError, OSError, ImportError) as error:
        msg.fail(f"Nothing was written to {output_path}", str(error), exits=1)
    if not count:
        msg.warn(f"{input_path} has no sentences, or no entities and no --labels")
    if unknown:
        msg.warn(
            f"No entity of {input_path} has the label {' or '.join(unknown)}: all of its requests mark nothing"
        )
    msg.good(f"Wrote {count} instructions to {output_path}")


def write_instructions(
    input_path: Path,
    output_path: Path,
    labels: str | None = None,
    prompt: str = "compact",
    examples: Path | None = None,
    n_examples: int = 3,
    seed: int = 0,
) -> tuple[int, list[str]]:
    """Write instruction data to a parquet file, whole or not at all.

    input_path, output_path, labels, prompt, examples, n_examples, seed: As the command takes them.
    RETURNS: How many instructions were written, and the labels that were asked for and no entity has.
    RAISES: ValueError for an unknown prompt, labels that cannot be read, or a file that is not what it should be;
        FileNotFoundError.
    """
    from datasets import Dataset, Features, Value
    from spacy.vocab import Vocab
    from tqdm import tqdm

    from ..docbin import read_docs
    from ..files import replacing
    from ..finetune.instructions import instructions
    from ..labels import describe
    from ..prompts import CompactPrompt, MultiTaskPrompt, Prompt, make_paper_prompt
    from .convert import parse_labels

    if prompt not in PROMPTS:
        raise ValueError(Errors.E065.format(prompt=prompt, prompts=", ".join(PROMPTS)))
    if examples is not None and prompt != "paper":
        raise ValueError(Errors.E066.format(prompt=prompt))
    docs = read_docs(input_path, Vocab())
    found = sorted({ent.label_ for doc in docs for ent in doc.ents})
    names = parse_labels(labels) if labels else describe(found, {})
    make: Prompt
    if prompt == "paper":
        make = make_paper_prompt(None if examples is None else str(examples), n_examples, seed)
    else:
        make = MultiTaskPrompt(names) if prompt == "multi-task" else CompactPrompt()
    bar = tqdm(docs, "Writing instructions", unit="doc", disable=None)
    rows = [dict(row) for row in instructions(bar, names, make)]
    text = Value("string")
    columns = {"messages": [{"role": text, "content": text}], "request": text, "response": text, "label": text}
    data = {name: [row[name] for row in rows] for name in columns}
    with replacing(output_path) as temporary:
        Dataset.from_dict(data, features=Features(columns)).to_parquet(temporary)
    return len(rows), [label for label in names if label not in found]

"""`python -m spacy nerllama merge`: an adapter -> a model folder that needs no adapter."""

from enum import Enum
from pathlib import Path
from typing import Annotated

from typer import Argument as Arg
from typer import Option as Opt


class StoredDType(str, Enum):
    """What merged weights are stored in."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


BASE_HELP = "Folder, .gguf file or hub name of the base, where it is not the one that the adapter names"


def merge_cli(
    adapter: Annotated[str, Arg(metavar="ADAPTER", help="Folder or hub name of the adapter")],
    output: Annotated[Path, Arg(metavar="OUTPUT", help="Folder to write the model to; it must be new or empty")],
    base: Annotated[str | None, Opt("--base", "-b", help=BASE_HELP)] = None,
    dtype: Annotated[StoredDType, Opt("--dtype", help="What to store the weights in")] = StoredDType.bfloat16,
    device: Annotated[str, Opt("--device", help="Where to merge: cpu, cuda:0, ...")] = "auto",
) -> None:
    """
    Merge an adapter into its base and write model and tokenizer (safetensors) for vLLM, llama.cpp or transformers.
    Says how far the merged model is from the unmerged one, and whether it can generate text.
    """
    from safetensors import SafetensorError
    from wasabi import msg

    from ..cards import difference_text
    from ..models.merging import merge

    try:
        meta = merge(adapter, output, base, dtype.value, device)
    except (ValueError, OSError, ImportError, SafetensorError) as error:  # the last one: the disk is full
        msg.fail(f"Nothing was written to {output}", str(error), exits=1)
    merged = meta["merged"]
    msg.good(f"Wrote {output}: {merged['base']} in {merged['dtype']} with {adapter}")
    if merged["note"]:
        msg.warn(merged["note"])
    for difference in merged["differences"]:
        msg.info(f"Compared with {difference['what']}", difference_text(difference))
    if "prompt" not in meta:
        msg.info("The adapter does not say what prompt it was trained with: nerllama.CompactPrompt.v1 was assumed")
    if meta.get("generates_text"):
        msg.info("It can generate marked text")
    elif meta.get("generates_text") is None:
        msg.warn("Whether it can generate text is not known: the adapter does not say how it was trained")
    else:
        msg.warn("It cannot generate text: only marked decoding, as nerllama_ner does it, gives anything of use")

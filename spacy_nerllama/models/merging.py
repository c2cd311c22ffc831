"""Merge an adapter into its base: a model folder that vLLM, llama.cpp and transformers read without PEFT."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import spacy
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..base import BUNDLED
from ..cards import CARD, base_licence, merged_card
from ..errors import Errors
from ..files import replacing
from ..grammar import Grammar, State
from ..prompts import CompactPrompt, scheme_of, trained_prompt
from ..requests import Request, TokenSpan, doc_requests
from ..voting import Voting
from .adapter import META, Adapter, adapter_folder
from .engine import Engine
from .loading import load_base
from .marked import mark_requests
from .tokens import TextEncoder

SENTENCES = (
    "Germline variants of BRCA2 raise the risk of breast and pancreatic cancer.",
    "Two patients on lithium developed nephrogenic diabetes insipidus within a year.",
    "Loss of PTEN activates AKT1 in endometrial carcinoma, but not in the stroma.",
    "Neither placebo nor vitamin D3 changed the frequency of asthma attacks.",
    "Cisplatin-induced hearing loss was milder in carriers of the TPMT variant.",
    "The children had fever, a rash, and no history of measles vaccination.",
    "IL-6 and TNF-alpha were measured before and after infliximab.",
    "We found no mutation of the CFTR gene in the family with cystic fibrosis-like disease.",
    "Sodium valproate was withdrawn when acute pancreatitis was suspected.",
    "Samples were kept at room temperature until the next morning.",
    "Hepatocellular carcinoma arose in mice fed with 2-acetylaminofluorene.",
    "Ataxia-telangiectasia results from biallelic variants of ATM.",
)
"""What a merged model is compared with the unmerged one on."""

LABELS = {"DISEASE": "disease", "CHEMICAL": "chemical", "GENE": "gene"}
"""What an adapter is asked for that does not say what it knows."""


class Behaviour(NamedTuple):
    """What a model makes of `SENTENCES`.

    logits: For each request, those of the whole vocabulary at each position of prompt and unmarked copy.
        *Shape:* (length, vocabulary)
    readings: The spans of the greedy reading of each request.
    """

    logits: list[Tensor]
    readings: list[frozenset[TokenSpan]]


def merge(
    adapter: str,
    output: Path,
    base: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16",
    device: str = "auto",
) -> dict[str, Any]:
    """Merge an adapter into its base, and measure what that changes.

    adapter: Its folder or hub name.
    output: The folder for model, tokenizer, `meta.json` and model card; it appears whole or not at all.
    base: The base, as `load_base` takes its name. None: the one that the adapter names.
    dtype: What the merged weights are stored in.
    device: Where to do it.
    RETURNS: The `meta.json` of the merged model: that of the adapter, and `merged`, which holds `base`, `dtype`,
        `note` (or None) and `differences` from unmerged models.
    RAISES: FileExistsError if there is something in `output`; ValueError if the adapter names no base or does not
        fit it, or the base is stored in a quantisation that cannot be undone; OSError if it is not there.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(Errors.E165.format(path=output))
    lora = Adapter.from_folder(adapter_folder(adapter))
    name = base or lora.meta.get("base", {}).get("name") or lora.config.get("base_model_name_or_path")
    if not name:
        raise ValueError(Errors.E166.format(adapter=adapter))
    where: dict[str, Any] = {"name": None if name == BUNDLED.name else name, "dtype": dtype, "device": device}
    trained_on = lora.meta.get("recipe", {}).get("base", {}).get("quantization")
    references: dict[str, Behaviour] = {}
    if trained_on:
        quantised, tokenizer = load_base(**where, quantization=trained_on)
        encoder = TextEncoder(tokenizer)
        what = f"the unmerged adapter on the base quantised to {trained_on}, as it was trained"
        references[what] = behaviour(lora.put_on(quantised, encoder), encoder, lora.meta)
        del quantised  # its memory is wanted
        gc.collect()
    loaded, tokenizer = load_base(**where)
    loaded, note = _unquantised(loaded, name, dtype)
    encoder = TextEncoder(tokenizer)
    model: Any = lora.put_on(loaded, encoder)
    references["the unmerged adapter on the same base"] = behaviour(model, encoder, lora.meta)
    merged = model.merge_and_unload(safe_merge=True)
    now = behaviour(merged, encoder, lora.meta)
    licence = lora.meta.get("base", {}).get("licence") or base_licence(name)
    meta = {
        **lora.meta,
        "base": {**lora.meta.get("base", {}), "name": name, "licence": licence},
        "merged": {
            "base": name,
            "dtype": dtype,
            "note": note,
            "differences": [{"what": what, **difference(before, now)} for what, before in references.items()],
        },
    }
    if output.is_dir():
        output.rmdir()  # it is empty, and not every system lets a folder be replaced
    with replacing(output) as folder:
        # What was read of a quantised file cannot be written back in its format.
        merged.save_pretrained(folder, save_original_format=note is None)
        tokenizer.save_pretrained(folder)
        (folder / META).write_text(json.dumps(meta, indent=2, ensure_ascii=False) + "\n", "utf8")
        (folder / CARD).write_text(merged_card(meta), "utf8")
        for path in folder.iterdir():
            path.chmod((folder / META).stat().st_mode)  # safetensors lets nobody else read what it writes
    return meta


def behaviour(model: PreTrainedModel, encoder: TextEncoder, meta: dict[str, Any]) -> Behaviour:
    """Let a model read and mark `SENTENCES`.

    meta: Of the adapter: its labels and prompt are used.
    """
    prompt = trained_prompt(meta) or CompactPrompt()
    requests = list(_requests(meta.get("labels") or LABELS, scheme_of(prompt).tells_labels))
    votes = mark_requests(requests, prompt, Voting(samples=1), 4096, encoder, Engine(model))
    readings = [frozenset(vote.spans) for vote in votes]
    logits = []
    with torch.inference_mode():
        for request in requests:
            copy = Grammar(request, scheme_of(prompt), encoder.piece).draft(State())
            ids = torch.tensor([[*encoder.prompt(prompt(request)).ids, *copy.ids]], device=model.device)
            logits.append(model(input_ids=ids, use_cache=False).logits[0].cpu())
    return Behaviour(logits, readings)


def difference(before: Behaviour, now: Behaviour) -> dict[str, Any]:
    """Compare what two models made of `SENTENCES`.

    RETURNS: `max` and `mean` of the absolute differences of all logits, over how many `positions` and `sentences`;
        how many greedy `readings` there are, and how many of them are `readings_differing`.
    """
    gaps = [(a.float() - b.float()).abs() for a, b in zip(before.logits, now.logits, strict=True)]
    differing = sum(a != b for a, b in zip(before.readings, now.readings, strict=True))
    return {
        "max": max(gap.max().item() for gap in gaps),
        "mean": sum(gap.sum().item() for gap in gaps) / sum(gap.numel() for gap in gaps),
        "positions": sum(len(gap) for gap in gaps),
        "sentences": len(SENTENCES),
        "readings": len(now.readings),
        "readings_differing": differing,
    }


def _requests(labels: dict[str, str], together: bool) -> Iterator[Request]:
    nlp = spacy.blank("en")
    for sentence in SENTENCES:
        yield from (request for _, request in doc_requests(nlp(sentence), labels, together))


def _unquantised(
    model: PreTrainedModel, name: str, dtype: Literal["float32", "bfloat16", "float16"]
) -> tuple[PreTrainedModel, str | None]:
    """Undo the quantisation of a base that is stored so, and say so."""
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return model, None
    method = getattr(config, "quant_method", None)
    method = getattr(method, "value", method)
    try:
        model = model.dequantize(dtype=getattr(torch, dtype))
    except NotImplementedError as error:
        raise ValueError(Errors.E167.format(base=name, method=method)) from error
    model.requires_grad_(False)
    note = f"This base is stored quantised ({method}): the adapter was merged into its dequantised weights."
    return model.eval(), note

"""Model cards: the README.md of an adapter or a merged model, as the Hugging Face hub reads it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .base import BUNDLED
from .prompts import DEFAULT_PROMPT

CARD = "README.md"
TAGS = ["token-classification", "named-entity-recognition", "biomedical", "spacy", "spacy-nerllama"]
_HUB_NAMES = {BUNDLED.name: "HuggingFaceTB/SmolLM2-135M-Instruct"}


def base_licence(name: str) -> str | None:
    """Give the licence of a base as the hub spells it, None if it is not to be found on this machine.

    name: A folder, a `.gguf` file, a hub name, or that of the bundled base.
    """
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    if name == BUNDLED.name:
        return BUNDLED.licence.split(",")[0].lower()
    folder = Path(name).expanduser()
    card = folder / CARD if folder.is_dir() else _cached(name, CARD)
    if card is None or not card.is_file():
        return None
    try:
        licence = (metadata_load(card) or {}).get("license")
    except (ValueError, YAMLError):  # a card that is no valid one
        return None
    return licence if isinstance(licence, str) else None


def base_revision(name: str) -> str | None:
    """Give the commit of a base that was fetched from the hub, None for others."""
    config = _cached(name, "config.json")
    return config.parent.name if config else None


def _cached(name: str, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, file) if _is_hub_name(name) else None
    return Path(found) if isinstance(found, str) else None


def _is_hub_name(name: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None and not Path(name).exists()


def adapter_card(meta: Mapping[str, Any]) -> str:
    """Write the card of an adapter.

    meta: Its `meta.json`.
    RETURNS: Markdown with YAML front matter.
    """
    base, training = meta["base"], meta["recipe"]["training"]
    kept = meta.get("kept", {})
    lines = [
        f"# LoRA adapter for {_short(base['name'])}: {', '.join(meta['labels'])}",
        "",
        f"It marks {_words(meta['labels'])} in text, by the marked decoding of spacy-nerllama:",
        "",
        "```python",
        "import spacy",
        "",
        'nlp = spacy.blank("en")',
        f'nlp.add_pipe("nerllama_ner", config={_component_settings(meta)})',
        "```",
        "",
        f"- **Text.** {_generates(meta.get('generates_text'))}",
        f"- **Base.** {_base_line(base)}",
        "- **Data.** "
        + "; ".join(
            f"{name}: " + ", ".join(f"{split} `{each['file']}`" for split, each in splits.items())
            for name, splits in meta["data"].items()
        )
        + ". Their SHA-256 are in `meta.json`.",
        f"- **Training.** Loss `{training['loss']}`, learning rate {training['learning_rate']:g}, seed "
        f"{training['seed']}; all settings are in `recipe.cfg`, defaults too in `meta.json`."
        + (f" Kept: step {kept['step']} of {kept['steps']}." if kept else ""),
        *_devel_lines(meta, kept),
    ]
    return _front_matter(meta, "peft") + "\n".join(lines) + "\n"


def merged_card(meta: Mapping[str, Any]) -> str:
    """Write the card of a merged model.

    meta: Its `meta.json`, with `merged` as `merge` makes it.
    RETURNS: Markdown with YAML front matter.
    """
    merged, labels = meta["merged"], meta.get("labels", {})
    lines = [
        f"# {_short(merged['base'])} with a LoRA adapter merged into it"
        + (": " if labels else "")
        + ", ".join(labels),
        "",
        f"- **Text.** {_generates(meta.get('generates_text'))}",
        f"- **Base.** {merged['base']}, {merged['dtype']}." + (f" {note}" if (note := merged.get("note")) else ""),
        *(f"- **Difference from {each['what']}.** {difference_text(each)}" for each in merged["differences"]),
        "- **Prompt.** `" + json.dumps(meta["prompt"]) + "`" if "prompt" in meta else "- **Prompt.** Not known.",
    ]
    return _front_matter({**meta, "base": {**meta.get("base", {}), "name": merged["base"]}}, "transformers") + (
        "\n".join(lines) + "\n"
    )


def difference_text(difference: Mapping[str, Any]) -> str:
    """Say how far a merged model is from an unmerged one."""
    return (
        f"Logits differ by {difference['max']:.3g} at most and by {difference['mean']:.3g} on average, over "
        f"{difference['positions']} positions of {difference['sentences']} sentences; "
        f"{difference['readings_differing']} of {difference['readings']} greedy readings differ."
    )


def _front_matter(meta: Mapping[str, Any], library: str) -> str:
    from huggingface_hub import ModelCardData

    base = meta["base"]
    name = _HUB_NAMES.get(base["name"], base["name"])
    data = ModelCardData(
        base_model=name if _is_hub_name(name) else None,
        library_name=library,
        license=base.get("licence"),
        language="en",
        tags=["lora", *TAGS] if library == "peft" else list(TAGS),
        metrics=["f1", "precision", "recall"],
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _generates(generates: bool | None) -> str:
    if generates is None:
        return "Whether it can generate text is not known: the adapter does not say how it was trained."
    if generates:
        return "It can generate marked text (it was taught to copy and to stop), and be decoded by spacy-nerllama."
    return (
        "**It cannot generate text.** It learnt where markers go, not to copy or to stop. Only marked decoding, "
        "as spacy-nerllama does it, gives anything of use."
    )


def _base_line(base: Mapping[str, Any]) -> str:
    revision = f", revision `{base['revision']}`" if base.get("revision") else ""
    licence = base.get("licence")
    terms = f"licence {licence}" if licence else "whose licence applies"
    return f"{base['name']}{revision} ({terms})."


def _devel_lines(meta: Mapping[str, Any], kept: Mapping[str, Any]) -> list[str]:
    lines, quantization = [], meta["recipe"]["base"]["quantization"]
    base = f"the base in {quantization}" if quantization else "the base as it is stored"
    if kept.get("devel_f1") is not None:
        lines.append(
            f"- **Devel F1 while training** (greedy readings, all labels, {base}): {kept['devel_f1']:.4f}."
        )
    if meta.get("devel"):
        lines += [
            "",
            f"Devel scores of exact votes, strict, on {base}, at thresholds that were tuned on the same requests:",
            "",
            "| label | threshold | precision | recall | F1 | mentions |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        lines += [
            f"| {label} | {meta['thresholds'][label]} | {c['p']:.4f} | {c['r']:.4f} | {c['f']:.4f} | "
            f"{c['mentions']} |"
            for label, c in meta["devel"].items()
        ]
    return lines


def _component_settings(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Give what the component has to be told, beyond its defaults, to read the adapter as it was trained."""
    model = {"adapter": "FOLDER OR HUB NAME OF THIS"}
    if (name := meta["base"]["name"]) != BUNDLED.name:
        quantization = meta["recipe"]["base"]["quantization"]
        model = {"name": name, **({"quantization": quantization} if quantization else {}), **model}
    prompt = meta["prompt"]
    return {"model": model} if prompt == DEFAULT_PROMPT else {"model": model, "prompt": prompt}


def _short(name: str) -> str:
    return name.rstrip("/").split("/")[-1]


def _words(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{label} ({words})" for label, words in labels.items())

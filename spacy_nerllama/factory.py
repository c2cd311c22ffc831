"""The factory `nerllama_ner`: what `nlp.add_pipe` and a config make the component of."""

from collections.abc import Callable
from typing import Any

from spacy.language import Language

from .annotations import settle_votes
from .errors import Errors
from .labels import check_configurable
from .models.cache import Cache
from .models.spacyllm import as_model
from .pipe import NerLlama
from .prompts import DEFAULT_PROMPT
from .updating import Updating
from .voting import Voting

DEFAULT_CONFIG = {
    "labels": None,
    "spans_key": "nerllama",
    "overwrite_ents": True,
    "max_batch_tokens": 4096,
    "model": {
        "@llm_models": "nerllama.Llama.v1",
        "name": None,
        "adapter": None,
        "quantization": None,
        "dtype": "auto",
        "device": "auto",
    },
    "prompt": DEFAULT_PROMPT,
    "voting": {
        "@misc": "nerllama.Voting.v1",
        "samples": None,
        "min_mass": 0.02,
        "temperature": 1.0,
        "threshold": None,
        "seed": 0,
        "agreement": 0.5,
    },
    "cache": None,
    "updating": None,
    "scorer": {"@scorers": "spacy.ner_scorer.v1"},
}


@Language.factory(
    "nerllama_ner",
    assigns=["doc.ents", "token.ent_iob", "token.ent_type", "doc.spans"],
    default_config=DEFAULT_CONFIG,
    default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
)
def make_nerllama_ner(
    nlp: Language,
    name: str,
    labels: dict[str, str] | None,
    model: Any,
    prompt: Any,
    voting: Voting,
    spans_key: str,
    overwrite_ents: bool,
    max_batch_tokens: int,
    cache: Cache | None,
    updating: Updating | None,
    scorer: Callable | None,
) -> NerLlama:
    """Make the component; settings as `NerLlama` has them.

    RAISES: ValueError for settings out of range or of another kind, and for labels that a saved config would not
        give back.
    """
    for setting, value, fits, expected in (
        ("prompt", prompt, callable(prompt), "nerllama.CompactPrompt.v1"),
        ("voting", voting, isinstance(voting, Voting), "nerllama.Voting.v1"),
        ("cache", cache, isinstance(cache, Cache | None), "nerllama.Cache.v1"),
        ("updating", updating, isinstance(updating, Updating | None), "nerllama.Updating.v1"),
    ):
        if not fits:
            raise ValueError(Errors.E176.format(name=name, setting=setting, value=value, expected=expected))
    check_configurable(labels or {})
    check_configurable(voting.threshold if isinstance(voting.threshold, dict) else {})
    return NerLlama(
        nlp.vocab,
        as_model(model),
        name,
        labels=labels,
        prompt=prompt,
        voting=voting,
        spans_key=spans_key,
        overwrite_ents=overwrite_ents,
        max_batch_tokens=max_batch_tokens,
        cache=cache,
        updating=updating,
        scorer=scorer,
    )


Language.component("nerllama_settle_votes", assigns=["doc.spans"], func=settle_votes)

"""The token-by-token oracle: `generate` with `prefix_allowed_tokens_fn` over the same grammar."""

from collections.abc import Callable

import torch

from spacy_nerllama.grammar import Grammar, State
from spacy_nerllama.models.tokens import PromptIds
from spacy_nerllama.requests import TokenSpan


def constrained(grammar: Grammar, prompt: PromptIds, end: int) -> Callable[[int, torch.Tensor], list[int]]:
    """Make the function that gives `generate` the legal next ids; after the sentence only `end` is legal."""
    start = len(prompt.ids)
    states = {(): State()}  # after what was written, token by token

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        written = tuple(ids[start:].tolist())
        if written not in states:
            states[written], _span = grammar.advance(states[written[:-1]], written[-1])
        return list(grammar.choices(states[written])) or [end]

    return allowed


def spans_of(grammar: Grammar, ids: list[int]) -> tuple[TokenSpan, ...]:
    """Read the spans of a marked copy off its ids."""
    state, spans = State(), []
    for token_id in ids:
        if not grammar.choices(state):
            break
        state, span = grammar.advance(state, token_id)
        if span:
            spans.append(span)
    return (*spans, *grammar.last_span(state))


def sample(
    model: torch.nn.Module, grammar: Grammar, prompt: PromptIds, end: int, k: int, seed: int
) -> list[tuple[TokenSpan, ...]]:
    """Read one sentence k times, each token drawn by its probability among the legal ones."""
    ids = torch.tensor([prompt.ids])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=k,
            max_new_tokens=4 * len(grammar.draft(State()).ids) + 8,
            eos_token_id=end,
            pad_token_id=end,
            prefix_allowed_tokens_fn=constrained(grammar, prompt, end),
        )
    return [spans_of(grammar, row[ids.shape[1] :].tolist()) for row in out]


def generate(model: torch.nn.Module, grammar: Grammar, prompt: PromptIds, end: int) -> tuple[TokenSpan, ...]:
    """Read one sentence greedily, token by token."""
    ids = torch.tensor([prompt.ids])
    longest = 4 * len(grammar.draft(State()).ids) + 8
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=longest,
        eos_token_id=end,
        pad_token_id=end,
        prefix_allowed_tokens_fn=constrained(grammar, prompt, end),
    )
    return spans_of(grammar, out[0, ids.shape[1] :].tolist())

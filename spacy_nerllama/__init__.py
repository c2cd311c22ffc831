"""Biomedical named entity recognition in spaCy with instruction-tuned Llama models."""

__version__ = "0.1.0"

from . import annotations as annotations  # `Span._.nerllama_vote`, for docs that were saved, too

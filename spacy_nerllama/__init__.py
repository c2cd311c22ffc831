"""Biomedical named entity recognition in spaCy with instruction-tuned Llama models."""

__version__ = "0.1.0"

import os
from pathlib import Path

# Before any import of a Hugging Face library: the tests reach no network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest

from spacy_nerllama.base import bundled_base


@pytest.fixture(scope="session")
def base_path() -> Path:
    """The real base model; without it a test is skipped, or fails under CI, which has fetched it."""
    try:
        return bundled_base()
    except FileNotFoundError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))

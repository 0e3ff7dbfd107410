# `make demo` and `make test` are all that a new machine needs: each sets up .venv first.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test install lint bench docs clean

demo: install  ## the main job: images in, a scikit-learn pipeline and a table out
	$(RUN) examples/quickstart.py

test: install  ## all tests, the examples in the docstrings among them
	$(RUN) -m pytest

install: $(VENV)/installed-test

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: install  ## how fast: training against a bare loop (and against lightly, if it is installed)
	$(RUN) -m benchmarks augmentation
	$(RUN) -m benchmarks throughput

docs: $(VENV)/installed-docs
	$(RUN) -m sphinx -W --keep-going -b html docs docs/_build/html

$(VENV)/installed-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "skssl needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --editable ".[$*,plot]"
	touch $@

clean:
	rm -rf $(VENV) docs/_build docs/auto_examples docs/generated .pytest_cache .mypy_cache .ruff_cache

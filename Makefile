# `make demo` and `make test` are all that a new machine needs: each sets up .venv first, with the versions that were tested.
PYTHON ?= python3
VENV ?= .venv
VERSIONS ?= requirements/tested.txt
RUN := $(VENV)/bin/python
PIP := PYTHONWARNINGS=ignore $(RUN) -m pip install --quiet --disable-pip-version-check --constraint $(VERSIONS)

.PHONY: demo test test-oldest test-newest install lint coverage lock bench docs clean

demo: install  ## the main job: images in, a scikit-learn pipeline and a table out
	$(RUN) examples/quickstart.py

test: install  ## all tests, the examples in the docstrings among them: a process a core, a thread a process
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --dist worksteal

test-oldest:  ## all tests with the lowest versions that pyproject.toml allows
	$(MAKE) test VENV=.venv-oldest VERSIONS=requirements/oldest.txt

test-newest:  ## all tests with the newest versions that pip finds today
	rm -rf .venv-newest
	$(MAKE) test VENV=.venv-newest VERSIONS=/dev/null

install: $(VENV)/installed-test

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff format --check --line-length 88 README.md docs/*.md docs/guide/*.md
	$(RUN) -m mypy

coverage: install  ## which lines the tests run: a table by file, and pages in .coverage-html
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --dist worksteal --cov --cov-report term --cov-report html

lock: install  ## renew the versions that the other commands install
	$(RUN) requirements/make.py tested > requirements/tested.new
	mv requirements/tested.new requirements/tested.txt
	$(RUN) requirements/make.py oldest > requirements/oldest.txt

bench: install  ## how fast: training against a bare loop (and against lightly, if it is installed)
	$(RUN) -m benchmarks augmentation
	$(RUN) -m benchmarks throughput

docs: $(VENV)/installed-docs
	$(RUN) -m sphinx -W --keep-going -b html docs docs/_build/html
	$(RUN) docs/check_site.py docs/_build/html

$(VENV)/installed-%: pyproject.toml $(VERSIONS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "skssl needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade setuptools
	$(PIP) --no-build-isolation --editable ".[$*,plot]"
	touch $@

clean:
	rm -rf .venv .venv-oldest .venv-newest docs/_build docs/auto_examples docs/generated .pytest_cache .mypy_cache .ruff_cache .coverage*

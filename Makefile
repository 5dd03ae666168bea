# `make test` and `make demo` need Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup test test-slow lint types schemas lock clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(STAMP)

test: setup
	$(BIN)/python -m pytest -m "not slow" -n 2

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/interrogate --quiet harness models

types: setup
	$(BIN)/mypy

# The JSON Schemas that editors complete suites and cards from.
schemas: setup
	$(BIN)/python -m harness.schemas

# Versions that are known to work together; no host is named in it.
lock:
	$(BIN)/uv pip compile --quiet --universal --no-header --no-annotate --no-emit-index-url \
		--extra dev --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# `make test` and `make demo` need Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo demo-report test test-slow lint types schemas phantom-models calibration precision simulations leaderboard lock clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(STAMP)

demo: setup
	$(BIN)/vlsm-harness demo

# One thread of arithmetic in each of the workers, which would wait for each other otherwise. Stealing
# gives each a run of whole files, so that what the tests of a file share is built once. Hundreds of
# processes start in them: compiled once, imports are twice as fast.
WORKERS ?= $(shell $(PYTHON) -c "import os; print(min(4, max(2, os.cpu_count() or 2)))")
test: setup
	$(BIN)/python -m compileall -q harness models suites tests
	OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist worksteal

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/interrogate --quiet harness models suites

types: setup
	MYPY_NUM_WORKERS=2 $(BIN)/mypy

# The JSON Schemas that editors complete suites and cards from.
schemas: setup
	$(BIN)/python -m harness.suite.json_schemas

# Trains the small models anew from the generator: hours on one core, minutes a model. The
# BiomedCLIPSeg-D models start from the CLIPSegs' decoders, so these come first.
PHANTOMS := clipseg-crowd clipseg-solo cris-crowd cris-solo biomedclipseg-crowd biomedclipseg-solo \
	biomedclipseg-d-crowd biomedclipseg-d-solo image-only-crowd
phantom-models: setup
	for name in $(PHANTOMS); do $(BIN)/python models/phantom/make.py phantom-$$name || exit 1; done

# What the demo prints, its page, and the README's picture of it.
demo-report: setup
	rm -rf build/demo  # models of earlier code would stay in it
	$(BIN)/vlsm-harness demo --out build/demo > reports/demo.txt
	$(BIN)/python reports/listening_map.py build/demo
	$(BIN)/vlsm-harness report build/demo --out reports/demo.html --quiet

# reports/calibration.md, the assay card and the contact sheets, from the shipped models.
calibration: setup
	rm -rf build/calibration build/assay
	$(BIN)/python reports/calibrate.py

# reports/statistics.md: coverage, false claims and power in simulated studies.
simulations: setup
	$(BIN)/python reports/simulations.py

# reports/precision.md: every small model in float32 and in mixed precision.
precision: setup
	$(BIN)/python reports/precision.py

# reports/leaderboard/: every submission verified anew, and the pages.
leaderboard: setup
	$(BIN)/vlsm-harness leaderboard build

# Versions that are known to work together; no host is named in it.
lock:
	$(BIN)/uv pip compile --quiet --universal --no-header --no-annotate --no-emit-index-url \
		--extra dev --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

"""The command line in this process."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def synthetic_runs():
    """The module that makes runs of numbers (``tests/stats/conftest.py``)."""
    place = Path(__file__).parents[1] / "stats" / "conftest.py"
    spec = importlib.util.spec_from_file_location("synthetic_runs", place)
    runs = importlib.util.module_from_spec(spec)
    sys.modules["synthetic_runs"] = runs  # its dataclasses look for it there
    spec.loader.exec_module(runs)
    return runs


@pytest.fixture(scope="session")
def synthetic_run(synthetic_runs):
    """A function that writes a run directory made of numbers."""
    runs = synthetic_runs
    return lambda folder: runs.write_run(folder, runs.make_run({"inside": 120}, n_words=10))

"""A small run as the command line leaves it."""

import importlib.util
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.auditing.summarising import summarise
from harness.runs.store import RunStore


@pytest.fixture(scope="session")
def runs():
    """The module that makes runs of numbers (``tests/stats/conftest.py``)."""
    place = Path(__file__).parents[1] / "stats" / "conftest.py"
    spec = importlib.util.spec_from_file_location("synthetic_tracked", place)
    found = importlib.util.module_from_spec(spec)
    sys.modules["synthetic_tracked"] = found  # its dataclasses look for it there
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="session")
def summarised(runs, tmp_path_factory):
    """Two models on 30 clusters, summarised; the last command asked for the first."""
    made = runs.make_run({"inside": 60}, n_words=3)
    plan = made.plan.with_columns(dataset=made.plan["dataset"].replace("inside", "inße|de"))
    found = RunStore(
        runs.write_run(tmp_path_factory.mktemp("tracked") / "run", replace(made, plan=plan))
    )
    summarise(found)
    found.update(evaluated=["m@1"], environment={"harness": "0.1.0"})
    return found.folder


@pytest.fixture
def store(summarised, tmp_path):
    """A copy of that run, of one's own."""
    return RunStore(shutil.copytree(summarised, tmp_path / "run"))

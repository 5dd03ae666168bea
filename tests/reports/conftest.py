"""Scripts of `reports/` are no package: they are loaded by their path."""

import importlib.util
from pathlib import Path

import pytest

REPORTS = Path(__file__).resolve().parents[2] / "reports"


@pytest.fixture(scope="session")
def script():
    """A function that loads ``reports/NAME.py``."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"report_{name}", REPORTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load

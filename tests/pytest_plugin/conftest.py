"""Sessions of pytest inside a test: a small suite, 32 pictures and a model whose breaks are set."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOYS = ROOT / "tests" / "toys"

SUITE = """\
name: mine
title: Mine
datasets: [{name: kvasir_polyp, prompt_type: p6}]
probes:
  - {name: case, perturbation: case}
  - {name: synonym, perturbation: synonym, attributes: [size]}
  - {name: antonym, perturbation: antonym, attributes: [size]}
  - name: empty_prompt
    perturbation: empty
    expect: [{kind: minimum, of: dice, at_least: 0.5}, {kind: direction, below: -5}]
statistics: {draws: 200}
"""


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A data root with 32 pictures; 22 have a size with an opposite, enough for a verdict."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("shared_fixtures", ROOT / "tests" / "conftest.py")
    shared = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shared)
    root = tmp_path_factory.mktemp("pictures")
    shared.write_photo_dataset(root, "kvasir_polyp", n=32)
    return root


def write_card(folder, name="card", **settings):
    text = (TOYS / "spotter.yaml").read_text(encoding="utf-8")
    path = folder / f"{name}.yaml"
    path.write_text(text + f"settings: {json.dumps(settings)}\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def engine(pictures, tmp_path_factory):
    """What an inner session needs, imported for good: pytester forgets what is imported later."""
    import harness.pytest_plugin.items
    from harness.auditing.choices import select_suite
    from harness.auditing.evaluating import Conditions
    from harness.auditing.running import run_models
    from harness.auditing.summarising import summarise

    folder = tmp_path_factory.mktemp("warm")
    (folder / "my.suite.yaml").write_text(SUITE, encoding="utf-8")
    shutil.copy(TOYS / "adapter.py", folder / "adapter.py")
    store = run_models(
        select_suite(str(folder / "my.suite.yaml")),
        [(str(write_card(folder)), None)],
        root=pictures,
        out=folder / "run",
        limit=2,
        conditions=Conditions(device="cpu", random_weights=True),
    )
    summarise(store)
    return harness.pytest_plugin.items


@pytest.fixture
def place(engine, pytester, pictures, monkeypatch):
    """The inner session's folder: a suite, a card of the spotter, the adapter's source."""
    monkeypatch.setenv("VLSM_DATA_ROOT", str(pictures))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for sessions in a process of their own
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-markers")
    (pytester.path / "my.suite.yaml").write_text(SUITE, encoding="utf-8")
    shutil.copy(TOYS / "adapter.py", pytester.path / "adapter.py")

    write_card(pytester.path)
    pytester.card = partial(write_card, pytester.path)
    return pytester


@pytest.fixture
def inner(place, monkeypatch):
    """Run pytest with the plugin in this process: what torch costs is paid once."""

    def run(*arguments, model="card.yaml"):
        # On CI pytest prints what failed once more, whole, in its summary.
        for name in ("PYTEST_XDIST_WORKER", "CI", "BUILD_NUMBER"):
            monkeypatch.delenv(name, raising=False)
        options = ["--vlsm-model", model, "--vlsm-random-weights"] if model else []
        return place.runpytest_inprocess(
            "-p", "harness.pytest_plugin", "-ra", *options, *map(str, arguments)
        )

    return run

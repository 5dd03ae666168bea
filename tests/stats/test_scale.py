"""Ten million cases are summarised in a minute and in 4 GiB, from the run directory (slow)."""

import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from harness.runs.store import RunStore
from harness.stats.assessment import assess
from harness.stats.pairs import ModelFacts

SUITE = "name: big\ntitle: big\nprobes:\n" + "".join(
    f"  - {{name: probe{i}, perturbation: antonym}}\n" for i in range(20)
)


@pytest.fixture(scope="session")
def big():
    place = Path(__file__).with_name("big_runs.py")
    spec = importlib.util.spec_from_file_location("big_runs", place)
    module = importlib.util.module_from_spec(spec)
    sys.modules["big_runs"] = module  # its dataclass looks for it there
    spec.loader.exec_module(module)
    return module


def test_a_small_run_of_the_same_make_is_sound(big, tmp_path):
    """What the large ones are made by: every case has its score, every cell its row."""
    layout = big.Layout(datasets=2, clusters=30, cells=17, words=10, repeats=2)
    n_cases = big.write_run(tmp_path / "run", layout, suite=SUITE, rows=3000)
    store = RunStore(tmp_path / "run")
    plan = store.plan_cases()
    assert plan.height == n_cases == 2 * 30 * (1 + 17 * 20)
    assert plan["case_id"].n_unique() == n_cases
    found = assess(
        store.plan_scan(),
        store.scores_scan(),
        models=[ModelFacts(big.MODEL, "big", (), False, 0.5)],
        not_applicable=store.not_applicable(),
        suite=store.suite(),
    ).summary
    assert found.height == 2 * 18
    probes = found.filter(pl.col("probe") != "original")
    assert set(probes["n_cases"]) == {30 * 20}
    assert set(probes["n_words"]) == {10}
    assert set(found["n_clusters"]) == {30}
    assert found["n_missing"].sum() == found["n_failed"].sum() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout",
    [
        {"datasets": 1, "clusters": 100_000, "cells": 99, "words": 0, "repeats": 1},
        {"datasets": 3, "clusters": 33_334, "cells": 99, "words": 0, "repeats": 1},
        {"datasets": 1, "clusters": 1000, "cells": 299, "words": 0, "repeats": 33},
        {"datasets": 1, "clusters": 1000, "cells": 99, "words": 10, "repeats": 10},
    ],
    ids=["100,000 clusters", "300 rows", "10,000 variants", "words"],
)
def test_ten_million_cases_take_a_minute_and_four_gibibytes(big, tmp_path, layout, capsys):
    """Processor time on two cores, so that other work on the machine does not count."""
    run = tmp_path / "run"
    n_cases = big.write_run(run, big.Layout(**layout), suite=SUITE)
    limits = {"POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "2"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "harness", "score", str(run), "-q"],
        env=os.environ | limits,
        check=True,
    )
    wall_s = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    with capsys.disabled():
        sys.stderr.write(
            f"\n{n_cases:,} cases: {wall_s:.0f} s, {cpu_s:.0f} s of processor time, at most "
            f"{after.ru_maxrss / 2**20:.2f} GiB\n"
        )
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["counts"]["done"] == n_cases
    assert cpu_s < 2 * 60
    assert after.ru_maxrss < 4 * 2**20

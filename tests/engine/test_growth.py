"""Ten times the cases: the same memory, ten times the time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What is held is measured, not what glibc keeps of it for later once it has seen large blocks.
HELD = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
# Runs the engine on plans of growing size in one process; prints peak memory after each, and
# the seconds of the processor that each shard took.
PROGRAM = """
import json, os, resource, sys, tempfile, time
from pathlib import Path
from harness.engine.bench_plan import bench_cases, invent
from harness.engine.local import execute
from harness.model.loading import load_model
from harness.runs.store import RunStore
from harness.suite.schema import Metric
from harness.files.writing import write_parquet

card, folder, backend, sizes = sys.argv[1], Path(sys.argv[2]), sys.argv[3], map(int, sys.argv[4:])
model = load_model(card, random_weights=True, device="cpu", backend=backend)
drawn = invent(folder, 8, (40, 48))
found = []
for n_cases in sizes:
    pictures = []
    for number in range(n_cases // 40):
        one = drawn[number % len(drawn)]
        names = f"i{n_cases}_{number}.png", f"m{n_cases}_{number}.png"
        for name, source in zip(names, one[:2]):
            os.link(folder / source, folder / name)
        pictures.append(one._replace(image=names[0], mask=names[1]))
    store = RunStore(Path(tempfile.mkdtemp(dir=folder)))
    (store.folder / "scores").mkdir()
    store.begin(bench_cases(pictures, 40, distinct=0.5))
    laps, last = [], time.process_time()
    def lap(n):
        global last
        now = time.process_time()
        laps.append((now - last) / n)
        last = now
    execute(store, model, root=folder, metric=Metric(), batch_size=32, advance=lap)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found.append({"cases": store.scores().height, "peak": peak, "laps": laps})
print(json.dumps(found))
"""


@pytest.fixture
def growth(tmp_path, toy_card, backend):
    def run(*sizes, **settings):
        found = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(toy_card(**settings)), str(tmp_path),
             backend, *map(str, sizes)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"} | HELD,
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout)

    return run


@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_cases(growth):
    small, large = growth(800, 8000)
    assert (small["cases"], large["cases"]) == (800, 8000)
    assert large["peak"] <= 1.1 * small["peak"]


@pytest.mark.slow
def test_twenty_thousand_cases_take_the_memory_of_two_thousand(growth):
    small, large = growth(2000, 20_000, input_size=[96, 96])
    assert (small["cases"], large["cases"]) == (2000, 20_000)
    assert large["peak"] <= 1.1 * small["peak"]


@pytest.mark.slow
def test_time_is_linear_in_cases(growth):
    """The last third of the shards is as fast as the first, and so is a plan ten times smaller."""
    small, large = growth(4000, 40_000)
    laps, third = large["laps"], len(large["laps"]) // 3
    first, last = (sorted(part)[third // 2] for part in (laps[1 : third + 1], laps[-third:]))
    assert last <= 1.3 * first
    assert sorted(laps)[len(laps) // 2] <= 1.3 * sorted(small["laps"][1:])[len(small["laps"]) // 2]

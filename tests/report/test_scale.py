"""A report of a million cases takes under a minute and under 2 GiB (slow)."""

import importlib.util
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

SUITE = "name: big\ntitle: big\nprobes:\n" + "".join(
    f"  - {{name: probe{i}, perturbation: antonym}}\n" for i in range(20)
)
PLACE = Path(__file__).resolve().parent.parent / "stats" / "big_runs.py"


@pytest.fixture(scope="session")
def big():
    spec = importlib.util.spec_from_file_location("big_runs", PLACE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["big_runs"] = module  # its dataclass looks for it there
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_million_cases_take_under_a_minute_and_two_gibibytes(big, tmp_path, capsys):
    run = tmp_path / "run"
    layout = big.Layout(datasets=1, clusters=1010, cells=99, words=10, repeats=1)
    n_cases = big.write_run(run, layout, suite=SUITE)
    assert n_cases > 1_000_000
    limits = {"POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "harness"]
    subprocess.run([*command, "score", str(run), "-q"], env=os.environ | limits, check=True)
    # The peak of a process that has ended counts for all later ones: this one is asked itself.
    program = (
        "import resource, sys\nfrom harness.cli import app\n"
        f"app(['report', {str(run)!r}, '-q'], standalone_mode=False)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | limits, check=True, text=True,
        capture_output=True,
    )  # fmt: skip
    after, wall_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak_gib = int(done.stdout.split()[-1]) / 2**20
    with capsys.disabled():
        sys.stderr.write(
            f"\n{n_cases:,} cases: {wall_s:.0f} s, {cpu_s:.0f} s of processor time, "
            f"{peak_gib:.2f} GiB\n"
        )
    assert (run / "report.html").stat().st_size > 100_000
    assert cpu_s < 60
    assert peak_gib < 2

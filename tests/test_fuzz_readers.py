"""No file, however spoilt, makes a reader say anything but a `HarnessError`, or ends the process.

Ten thousand inputs a reader take a quarter of an hour and more: `make test-slow`. A sample of them
runs with every other test. ``VLSM_FUZZ_INPUTS`` and ``VLSM_FUZZ_SEED`` ask for others.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from tests.fuzzing.readers import READERS

ROOT = Path(__file__).resolve().parent.parent
FEW = 12
MANY = int(os.environ.get("VLSM_FUZZ_INPUTS", "10000"))
SEED = os.environ.get("VLSM_FUZZ_SEED", "0")
OF_RUNS = ["run.json", "suite.lock.yaml", "plan.parquet", "not_applicable.parquet", "score part"]
OF_RUNS += ["texts", "verdicts.json", "summary.parquet", "album", "album mask"]
SECONDS_TO_BEGIN = 900
SECONDS_AN_INPUT = 60
"""Of one input: minutes of work for a small file are an attack."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run with a baseline beside it; its data lie in ``data``."""
    from tests.conftest import write_photo_dataset

    folder = tmp_path_factory.mktemp("fuzzed")
    write_photo_dataset(folder / "data", "kvasir_polyp")
    suite = "name: tiny\ntitle: T\ndatasets: [{name: kvasir_polyp}]\nprobes:\n"
    suite += "- {name: gone, perturbation: empty}\n- {name: anto, perturbation: antonym}\n"
    (folder / "tiny.yaml").write_text(suite)
    arguments = [folder / "tiny.yaml", "--model", "phantom-clipseg-solo", "--quiet"]
    arguments += ["--data-root", folder / "data", "--out", folder / "run"]
    _command("run", *arguments)
    _command("gate", folder / "run", "--update", folder / "baseline.json", "--quiet")
    return folder / "run"


def _command(*arguments):
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code in (0, 3), done.output  # 3: too few images for the gate to decide


def fuzz(names, run, folder, n_inputs):
    """What came out of readers besides `HarnessError`: (reader, number of the input) -> what."""
    found, start, n_read = {}, 0, 0
    while start < n_inputs * len(names):
        place = folder / f"from-{start}"
        place.mkdir()
        arguments = [",".join(names), run, place, start, n_inputs * len(names), n_inputs, SEED]
        end, printed = _work(place, arguments)
        for line in printed:
            said = json.loads(line)
            if "failure" in said:
                found[said["at"]] = said["failure"]
            else:
                start, n_read = said["done"], n_read + said["read"]
        if start < n_inputs * len(names):  # it died, or was stopped
            marker = place / "at"
            assert marker.is_file() and marker.stat().st_size, f"it did not begin: {end}"  # noqa: PT018
            (at,) = struct.unpack("<q", marker.read_bytes())
            found[at] = end
            start = at + 1
    return {(names[at // n_inputs], at % n_inputs): what for at, what in found.items()}, n_read


def _work(place, arguments):
    """Run a worker to its end, or until one input takes too long."""
    command = [sys.executable, "-m", "tests.fuzzing.worker", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {"POLARS_MAX_THREADS": "1", "PYTHONHASHSEED": "0"}
    with (place / "out").open("wb") as out, (place / "err").open("wb") as err:
        worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=err)
        before, since = None, time.monotonic()
        while worker.poll() is None:
            time.sleep(0.05)
            at = (place / "at").read_bytes() if (place / "at").is_file() else None
            if at != before:
                before, since = at, time.monotonic()
            # Before the first input libraries are imported, which a busy machine does slowly.
            elif time.monotonic() - since > (SECONDS_AN_INPUT if at else SECONDS_TO_BEGIN):
                worker.kill()
                worker.wait()
                return f"more than {SECONDS_AN_INPUT} s", _lines(place)
    code = worker.returncode
    end = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
    return f"{end} {(place / 'err').read_text()[-300:]}".strip(), _lines(place)


def _lines(place):
    return [line for line in (place / "out").read_text().splitlines() if line.startswith("{")]


def check_fuzzed(names, run, folder, n_inputs):
    found, n_read = fuzz(names, run, folder, n_inputs)
    kinds = Counter((name, text) for (name, _), text in found.items())
    first = {(name, text): number for (name, number), text in sorted(found.items(), reverse=True)}
    lines = [f"{n} x {key[0]} (first {first[key]}): {key[1]}" for key, n in kinds.most_common(40)]
    total = n_inputs * len(names)
    sys.stdout.write(f"\n{names[-1]}: {total} inputs, {n_read} read, {len(found)} failures\n")
    assert not found, "\n".join(lines)


def test_spoilt_files_are_told(run, tmp_path):
    check_fuzzed([name for name in READERS if name not in OF_RUNS], run, tmp_path, FEW)


def test_spoilt_files_of_a_run_are_told(run, tmp_path):
    check_fuzzed(OF_RUNS, run, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_ten_thousand_spoilt_files_are_told(name, run, tmp_path):
    check_fuzzed([name], run, tmp_path, MANY)


def test_a_reader_that_fails_is_found(run, tmp_path, monkeypatch):
    """What the fuzzing is worth: a planted exception, a planted abort and a planted hang."""
    monkeypatch.setattr(sys.modules[__name__], "SECONDS_AN_INPUT", 5)
    found, _ = fuzz(["planted"], run, tmp_path, 4)
    assert "ValueError: planted" in found["planted", 0]
    assert found["planted", 1] == "ended by SIGABRT"
    assert found["planted", 2] == "more than 5 s"
    assert ("planted", 3) not in found

"""Verbs that need no model start without torch, and the help starts at once."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "lightning", "ray", "mlflow", "statsmodels")
# Runs one command after another in one process; tells of each its exit code and what it loaded.
PROGRAM = f"""
import contextlib, io, json, sys
from harness.cli import main
told = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["vlsm-harness", *arguments]
    code = 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
    told.append([arguments[0], code, sorted(set({HEAVY}) & set(sys.modules))])
print(json.dumps(told))
"""


@pytest.fixture
def light(photo_root):
    def run(*commands):
        found = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(commands)],
            env=os.environ | {"VLSM_DATA_ROOT": str(photo_root)},
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout)

    return run


def test_verbs_without_a_model_do_not_load_torch(light):
    """Of a run that is not there `report` and `gate` say so; the house style has their imports."""
    data = ["--datasets", "kvasir_polyp"]
    told = light(
        ["--help"],
        ["ls", "models"],
        ["plan", "antonym_swap", *data],
        ["peek", "antonym_swap", *data],
        ["check", "paper", *data],
        ["score", "nowhere"],
        ["report", "nowhere"],
        ["gate", "nowhere"],
        ["run", "nowhere", "--model", "clipseg"],
    )
    assert [code for _, code, _ in told] == [0, 0, 0, 0, 0, 2, 2, 2, 2]
    assert {verb: loaded for verb, _, loaded in told if loaded} == {}


def test_nor_do_verbs_on_a_stored_run(light, synthetic_run, tmp_path):
    """Statistics are computed here, and pages written, from counts alone."""
    synthetic_run(tmp_path / "run")
    run = str(tmp_path / "run")
    told = light(*([verb, run] for verb in ("score", "gate", "report")))
    # 3: the gate finds that such a run, made of numbers, lacks its counts.
    assert all(code in (0, 1, 3) for _, code, _ in told), told
    assert not {name for _, _, loaded in told for name in loaded} & {"torch", "transformers"}


def seconds_of(*arguments):
    """Processor time of a Python process, which other programs disturb least."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_help_starts_at_once():
    """In at most 1.5 times what the three libraries take that every verb may need."""
    bare, help_ = [], []
    for _ in range(3):
        bare.append(seconds_of("-c", "import typer, polars, pydantic"))
        help_.append(seconds_of("-m", "harness", "--help"))
    assert min(help_) <= 1.5 * min(bare)

"""No damage to a stored run is read as a result: it is refused by name, or repaired, or harmless.

The figures of ``summary.json`` and ``verdicts.json`` are those of the undamaged run byte for byte
wherever a command ends with exit 0, and so is the page, unless it says which mask is damaged.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("flips.py")
MANY = 2_200  # one in eleven is an overwritten stretch
FEW = 36  # every file once


@pytest.fixture(scope="module")
def flips():
    spec = importlib.util.spec_from_file_location("flips", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules["flips"] = module  # its dataclass looks for it there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def place(tmp_path, photo_root, toy_card):
    """A folder for the run, the data root, and the card."""
    (tmp_path / "flips").mkdir()
    return tmp_path / "flips", photo_root, toy_card()


def check_nothing_wrong(damages):
    wrong = [(d.number, d.file, d.how, d.wrong) for d in damages if d.wrong]
    assert not wrong, json.dumps(wrong, indent=1)


def test_a_few_flipped_bits(flips, place):
    with flips.quick():
        flipper = flips.Flipper(*place)
        found = [flipper.try_one(number) for number in range(FEW)]
    check_nothing_wrong(found)
    outcomes = {(d.kind, d.outcome) for d in found}
    assert ("scores/*.parquet", "repaired") in outcomes
    assert ("scores/*.parquet", "harmless") not in outcomes
    assert ("plan.parquet", "harmless") not in outcomes
    assert {d.file for d in found} == set(flipper.files)


@pytest.mark.slow
def test_thousands_of_flipped_bits(flips, place, capsys):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, place), "0", str(MANY)],
        cwd=PROGRAM.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"ended in {lines[-1:]}: {done.stderr[-3000:]}"
    found = [flips.Damage(**line) for line in lines if "file" in line]
    with capsys.disabled():
        sys.stdout.write(f"\n{flips.table(found)}\n")
    assert len(found) == MANY
    check_nothing_wrong(found)

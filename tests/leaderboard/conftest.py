"""One real submission, its track, and copies of it to spoil."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from harness.leaderboard import reading
from harness.leaderboard.board import build_row
from harness.leaderboard.tracks import load_track, pinned_reference
from harness.leaderboard.verification import open_submission, verify

ROOT = Path(__file__).resolve().parents[2]
BOARD = ROOT / "reports" / "leaderboard"
REAL = BOARD / "submissions" / "phantom-v1" / "phantom-clipseg-crowd"


@pytest.fixture(scope="session")
def reference():
    """Plan and truth of phantom-v1, as they ship."""
    return pinned_reference(load_track("phantom-v1"))


@pytest.fixture(scope="session")
def real_folder():
    """A submission that stands on the board."""
    return REAL


@pytest.fixture(scope="session")
def board_folder():
    """The board of this repository."""
    return BOARD


@pytest.fixture(scope="session")
def verified(reference):
    """The real submission, verified."""
    return verify(open_submission(REAL), reference)


@pytest.fixture(scope="session")
def row(reference):
    """The real submission as a row of the board, without a flag."""
    return build_row(REAL, reference, None)


@pytest.fixture(scope="session")
def _tables():
    return {path.name: pl.read_parquet(path) for path in REAL.glob("*.parquet")}


@pytest.fixture
def tables(_tables):
    """The tables of the real submission, to be replaced one by one."""
    return dict(_tables)


@pytest.fixture
def copy(tmp_path):
    """A copy of the real submission, to be spoiled."""
    folder = tmp_path / "phantom-v1" / REAL.name
    shutil.copytree(REAL, folder)
    return folder


@pytest.fixture
def edit(copy):
    """Replace a text in a file of the copy."""

    def change(name, old, new):
        path = copy / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return change


@pytest.fixture
def reasons(copy, reference, monkeypatch):
    """Why the copy is refused; the process that tries Parquet files is spared."""
    monkeypatch.setattr(reading, "survives", lambda *_, **__: True)

    def told():
        return verify(open_submission(copy), reference).reasons

    return told

"""Files are written in full or not at all; a disk that refuses says so in words."""

import errno
import os
import re

import polars as pl
import pytest

from harness.errors import RunError
from harness.writing import (
    is_whole,
    remove_leftovers,
    write_bytes,
    write_json,
    write_parquet,
    writing,
)

FRAME = pl.DataFrame({"a": [1, 2, 3]})


def test_what_is_written_is_read_back(tmp_path):
    write_parquet(tmp_path / "a.parquet", FRAME)
    write_json(tmp_path / "a.json", {"b": "é"})
    write_bytes(tmp_path / "a.bin", b"\0")
    assert pl.read_parquet(tmp_path / "a.parquet").equals(FRAME)
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "b": "é"\n}\n'
    assert {p.name for p in tmp_path.iterdir()} == {"a.parquet", "a.json", "a.bin"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EACCES])
def test_a_disk_that_refuses_says_what_to_do(tmp_path, number):
    reason = os.strerror(number)
    message = (
        f"{tmp_path}: cannot be written ({reason}). The folder must take new files until the run "
        "is complete. Free space or make it writable; the same command then continues, and "
        "nothing that was written is lost."
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"), writing(tmp_path):
        raise OSError(number, reason)


@pytest.mark.parametrize(
    "problem",
    [
        OSError(errno.ENOENT, "No such file"),
        OSError("something of a library"),
        pl.exceptions.ComputeError("a fault of a query"),
    ],
)
def test_other_problems_are_not_swallowed(tmp_path, problem):
    with pytest.raises(type(problem), match=re.escape(str(problem))), writing(tmp_path):
        raise problem


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        write_json(path, 2)
    assert path.read_text() == "1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    (tmp_path / ".a.json.77.tmp").write_text("half")
    (tmp_path / "a.tmp").write_text("somebody's own")
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "nowhere")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tmp"]


def test_a_cut_file_is_not_whole(tmp_path):
    path = tmp_path / "a.parquet"
    assert not is_whole(path)
    write_parquet(path, FRAME)
    content = path.read_bytes()
    assert is_whole(path)
    for length in (0, 3, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert not is_whole(path), length

"""Files are written in full or not at all; a disk that refuses says so in words."""

import errno
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import RunError
from harness.files.writing import (
    SUMS,
    Ledger,
    append_text,
    make_folder,
    refuse_unwritable,
    remove_leftovers,
    sealed,
    temporary_folder,
    unsealed,
    write_bytes,
    write_json,
    write_parquet,
    write_text,
    writing,
)

FRAME = pl.DataFrame({"a": [1, 2, 3]})


def refused(place, reason, call, *arguments):
    message = (
        f"{place}: cannot be written ({reason}). A place that takes new files is needed. Free "
        "space, make it writable or choose another; the same command then continues, and nothing "
        "that was written is lost."
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        call(*arguments)


def test_what_is_written_is_read_back(tmp_path):
    write_parquet(tmp_path / "a.parquet", FRAME)
    write_json(tmp_path / "a.json", {"b": "é"})
    write_bytes(tmp_path / "a.bin", b"\0")
    write_text(tmp_path / "below" / "a.txt", "é")
    append_text(tmp_path / "below" / "a.txt", "ü")
    assert pl.read_parquet(tmp_path / "a.parquet").equals(FRAME)
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "b": "é"\n}\n'
    assert (tmp_path / "below" / "a.txt").read_text(encoding="utf-8") == "éü"
    assert {p.name for p in tmp_path.iterdir()} == {"a.parquet", "a.json", "a.bin", "below"}


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EACCES, errno.ENOENT, errno.EMFILE]
)
def test_a_disk_that_refuses_says_what_to_do(tmp_path, number):
    def refuse():
        with writing(tmp_path):
            raise OSError(number, os.strerror(number))

    refused(tmp_path, os.strerror(number), refuse)


@pytest.mark.parametrize(
    "problem",
    [OSError("something of a library"), pl.exceptions.ComputeError("a fault of a query")],
)
def test_other_problems_are_not_swallowed(tmp_path, problem):
    with pytest.raises(type(problem), match=re.escape(str(problem))), writing(tmp_path):
        raise problem


def test_places_that_take_no_file_are_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("somebody's own")
    refused(file / "a", "Not a directory", write_text, file / "a" / "b.txt", "x")
    refused(file, "File exists", make_folder, file)
    refused(file / "a", "Not a directory", append_text, file / "a", "x")
    refused(tmp_path, "Is a directory", write_text, tmp_path, "x")
    long = tmp_path / ("x" * 300)
    refused(long, "File name too long", write_text, long, "x")
    if sys.platform == "linux":
        refused("/proc/foo", "No such file or directory", write_text, Path("/proc/foo"), "x")
    assert file.read_text() == "somebody's own"
    assert list(tmp_path.iterdir()) == [file]


def test_no_file_takes_the_place_of_a_device(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    write_text(pipe, "to a reader")
    assert reader.communicate(timeout=20)[0] == b"to a reader"
    assert pipe.is_fifo()


def test_a_temporary_folder_is_gone_afterwards(tmp_path, monkeypatch):
    with temporary_folder() as place, temporary_folder(beside=tmp_path / "b" / "c") as other:
        (place / "a").write_text("")
        assert other.parent == tmp_path / "b"
    assert not place.exists()
    assert not other.exists()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    with pytest.raises(RunError, match="nowhere: cannot be written"), temporary_folder():
        pass


def test_a_place_is_refused_before_the_work_as_writing_would_refuse_it(tmp_path):
    file = tmp_path / "file"
    file.write_text("somebody's own")
    below = file / "a" / "b"
    with pytest.raises(RunError) as later:
        write_text(below, "")
    with pytest.raises(RunError) as earlier:
        refuse_unwritable(below)
    assert str(earlier.value) == str(later.value)
    refused(tmp_path, "Is a directory", refuse_unwritable, tmp_path)
    with pytest.raises(RunError, match=f"^{file}: cannot be written"):
        refuse_unwritable(file, is_folder=True)
    assert list(tmp_path.iterdir()) == [file]


def test_the_trial_of_a_place_leaves_nothing(tmp_path, monkeypatch):
    held = tmp_path / "held"
    held.mkdir()
    for place in (None, tmp_path / "new" / "er" / "a.txt", held / "a.txt", Path(os.devnull)):
        refuse_unwritable(place)
    for folder in (None, held, tmp_path / "new" / "er"):
        refuse_unwritable(folder, is_folder=True)
    assert list(tmp_path.rglob("*")) == [held]

    def full(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    refused(held / "b", "Read-only file system", refuse_unwritable, held / "b")
    (held / "b").write_text("an earlier one")
    refused(held / "b", "Read-only file system", refuse_unwritable, held / "b")


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


NAME = "scores/part-1.parquet"


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path)
    made.write({NAME: b"one", "other": b"two"})
    return made


def test_a_ledger_is_in_the_form_of_sha256sum(ledger):
    digest = hashlib.sha256(b"one").hexdigest()
    assert (ledger.folder / SUMS).read_text().splitlines()[0] == f"{digest}  {NAME}"
    assert ledger.problem(NAME) == ledger.problem("other") == ""
    assert ledger.knows(NAME)


def test_a_ledger_sees_every_flipped_bit(ledger):
    path = ledger.folder / NAME
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(flipped))
        problem = Ledger(ledger.folder).problem(NAME)
        assert problem == "damaged or edited: its SHA-256 is not the one in written.sha256"


def test_a_ledger_names_what_is_missing_or_not_its_own(ledger):
    (ledger.folder / NAME).unlink()
    (ledger.folder / "more").write_bytes(b"two")
    assert ledger.problem(NAME) == "cannot be read (No such file or directory)"
    assert ledger.problem("more") == (
        "not in written.sha256: another run's file, or one that was put here by hand"
    )
    assert ledger.knows(NAME)
    assert not ledger.knows("more")


def test_the_last_line_counts_and_the_one_before_where_it_will_do(ledger):
    ledger.write({NAME: b"new"})
    assert ledger.problem(NAME) == ""
    for content, strict, lenient in ((b"one", False, True), (b"zero", False, False)):
        (ledger.folder / NAME).write_bytes(content)
        fresh = Ledger(ledger.folder)
        assert (fresh.problem(NAME) == "") is strict
        assert (fresh.problem(NAME, or_before=True) == "") is lenient


def test_a_process_killed_in_the_middle_of_a_line_spoils_no_other(ledger):
    with (ledger.folder / SUMS).open("ab") as file:
        file.write(b"77777")
    ledger.write({"third": b"three"})
    fresh = Ledger(ledger.folder)
    assert [fresh.problem(name) for name in (NAME, "other", "third")] == ["", "", ""]


@given(st.data())
def test_a_damaged_ledger_makes_no_damaged_file_whole(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("ledger")
    Ledger(folder).write({NAME: b"one", "other": b"two"})
    sums = bytearray((folder / SUMS).read_bytes())
    place = data.draw(st.integers(0, len(sums) - 1))
    sums[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / SUMS).write_bytes(bytes(sums))
    (folder / NAME).write_bytes(b"two")
    assert Ledger(folder).problem(NAME) != ""


def test_two_ledgers_of_a_folder_see_what_the_other_wrote(ledger):
    second = Ledger(ledger.folder)
    assert second.problem("other") == ""
    ledger.write({"other": b"again"})
    assert second.problem("other") == ""


def test_a_disk_that_refuses_one_of_several_keeps_all(ledger, monkeypatch):
    real = os.fsync
    calls = iter([real, None])

    def full(*given):
        found = next(calls)
        if found is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        found(*given)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        ledger.write({NAME: b"1", "other": b"2"})
    fresh = Ledger(ledger.folder)
    assert fresh.problem(NAME) == fresh.problem("other") == ""
    assert (ledger.folder / NAME).read_bytes() == b"one"


@given(
    st.dictionaries(
        st.text(max_size=5).filter(lambda key: key != "sha256"),
        st.text() | st.integers() | st.none() | st.lists(st.booleans()),
        min_size=1,
    ),
    st.data(),
)
def test_a_seal_is_broken_by_any_bit(content, data):
    whole = sealed(content)
    assert unsealed(whole) == content
    place = data.draw(st.integers(0, 8 * len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place // 8] ^= 1 << place % 8
    assert unsealed(bytes(flipped)) is None
    assert unsealed(whole[: place // 8]) is None


def test_what_was_never_sealed_is_not_unsealed():
    assert unsealed(b"") is None
    assert unsealed(b'{"a": 1}') is None

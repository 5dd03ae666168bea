"""The log of a board: it grows, and nothing that it said can be unsaid."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import SubmissionError
from harness.leaderboard.board import rank_rows
from harness.leaderboard.log import BUILT, FIRST, LOG, Log
from harness.leaderboard.site import write_site

A, B = "a" * 64, "b" * 64


@pytest.fixture
def log(tmp_path):
    found = Log.read(tmp_path)
    found.follow({"phantom-v1/one": A, "phantom-v1/two": A})
    found.add("checked", "phantom-v1/one", A, "spot-checked")
    return found


def test_what_comes_changes_and_goes_is_a_line_each(log, tmp_path):
    log.follow({"phantom-v1/one": B, "phantom-v1/three": A})
    found = [(e.event, e.submission, e.sha256[0], e.state) for e in Log.read(tmp_path).entries]
    assert found == [
        ("listed", "phantom-v1/one", "a", None),
        ("listed", "phantom-v1/two", "a", None),
        ("checked", "phantom-v1/one", "a", "spot-checked"),
        ("withdrawn", "phantom-v1/two", "a", None),
        ("listed", "phantom-v1/one", "b", None),
        ("listed", "phantom-v1/three", "a", None),
    ]
    assert Log.read(tmp_path).listed() == {"phantom-v1/one": B, "phantom-v1/three": A}


def test_nothing_new_adds_nothing(log, tmp_path):
    before = (tmp_path / LOG).read_bytes()
    log.follow(log.listed())
    assert (tmp_path / LOG).read_bytes() == before
    assert not (tmp_path / "other").exists()
    Log.read(tmp_path / "other").follow({})
    assert not (tmp_path / "other").exists()


def test_a_folder_is_made_for_it(tmp_path):
    Log.read(tmp_path / "new" / "board").add("checked", "phantom-v1/one", A, "verified")
    assert len(Log.read(tmp_path / "new" / "board").entries) == 1


def test_each_line_names_the_hash_of_the_one_before(log):
    assert log.entries[0].before == FIRST
    assert [e.before for e in log.entries[1:]] == [log.hash_of(1), log.hash_of(2)]
    assert log.head == {"lines": 3, "sha256": log.hash_of(3)}


def broken(tmp_path, lines):
    (tmp_path / LOG).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    with pytest.raises(SubmissionError) as caught:
        Log.read(tmp_path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda x: [x[0].replace("one", "eno"), *x[1:]], 2),
        (lambda x: x[1:], 1),
        (lambda x: [x[0], x[2]], 2),
        (lambda x: [x[0], x[0], *x[1:]], 2),
        (lambda x: [x[1], x[0], x[2]], 1),
    ],
    ids=["changed", "first gone", "middle gone", "doubled", "turned"],
)
def test_earlier_lines_cannot_change(log, tmp_path, change, line):
    text = broken(tmp_path, change(log.lines))
    head, told, rest = text.partition(" it follows a line of the hash ")
    assert (head, bool(told)) == (f"{tmp_path}/log.jsonl:{line}:", True)
    assert re.fullmatch(r"[0-9a-f]{12}, the line before it has [0-9a-f]{12}\. .*", rest)
    assert rest.endswith(
        "Earlier lines were changed, removed or put in; a log only grows. Restore the file from "
        "the history of the repository."
    )


@given(st.integers(0, 10_000), st.characters(codec="utf-8", exclude_characters="\n"))
def test_no_letter_of_an_earlier_line_can_change(tmp_path_factory, place, letter):
    folder = tmp_path_factory.mktemp("log")
    log = Log.read(folder)
    log.follow({"t/a": A, "t/b": B})
    text = (folder / LOG).read_text(encoding="utf-8")
    place %= text.index("\n")
    changed = text[:place] + letter + text[place + 1 :]
    (folder / LOG).write_text(changed, encoding="utf-8")
    if changed == text:
        assert len(Log.read(folder).entries) == 2
        return
    with pytest.raises(SubmissionError):
        Log.read(folder)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[]\n", r":1: no object\. A line is a JSON object\."),
        (b"{\n", r":1: not valid JSON"),
        (b"{}\n", r":1:1: before: the key is missing"),
        (b"\xff\xfe\n", r": cannot be read as UTF-8 text"),
        (b'{"a": 1}', r": the last line has no end\. A log grows by whole lines\."),
        (b"\n", r":1: not valid JSON"),
    ],
)
def test_what_is_no_log_is_told(tmp_path, content, told):
    (tmp_path / LOG).write_bytes(content)
    with pytest.raises(SubmissionError, match=told):
        Log.read(tmp_path)


def test_a_name_that_is_no_folder_of_a_submission_is_refused(log):
    with pytest.raises(SubmissionError, match=r"^a b/c: no folder of a submission\. It lies in"):
        log.add("listed", "a b/c", A)


def test_a_board_writes_the_log_and_refuses_one_that_was_cut(tmp_path, row, reference):
    board = [rank_rows(reference.track, [row])]
    write_site(tmp_path, board)
    (entry,) = Log.read(tmp_path).entries
    assert (entry.event, entry.submission) == ("listed", f"phantom-v1/{row.submission.name}")
    assert entry.sha256 == row.sha256
    built = json.loads((tmp_path / BUILT).read_text())
    assert built["log"]["lines"] == 1
    write_site(tmp_path, board)
    assert len(Log.read(tmp_path).entries) == 1
    (tmp_path / LOG).unlink()
    pages = {p: p.read_bytes() for p in tmp_path.rglob("*.html")}
    with pytest.raises(SubmissionError) as caught:
        write_site(tmp_path, [rank_rows(reference.track, [])])
    assert str(caught.value) == (
        f"{tmp_path / LOG}: it has 0 lines. The board was built from 1, the last of the hash "
        f"{built['log']['sha256'][:12]}: a log only grows. Restore the file from the history of "
        "the repository."
    )
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.html")} == pages, "nothing was written"


def test_a_log_written_anew_is_not_the_one_a_board_was_built_from(tmp_path, row, reference):
    write_site(tmp_path, [rank_rows(reference.track, [row])])
    (tmp_path / LOG).unlink()
    other = Log.read(tmp_path)
    other.follow({"phantom-v1/other": A, "phantom-v1/another": A})
    with pytest.raises(SubmissionError, match=r"it has 2 lines\. The board was built from 1, the"):
        Log.of_board(tmp_path)

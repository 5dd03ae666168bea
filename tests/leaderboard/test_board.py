"""The board: order, controls, flags, and what stops it."""

import shutil
from dataclasses import replace

import pytest

from harness.errors import SubmissionError
from harness.leaderboard.board import UNFLAGGED, build_boards, build_row, current_flag, rank_rows
from harness.leaderboard.flags import Flag, make_flag, read_flags, record_flag
from harness.leaderboard.standing import Limits, Standing
from harness.leaderboard.verification import Verification, open_submission


def variant(row, name, label, dice, *, control=False):
    submission = row.submission.model_copy(update={"name": name, "control": control})
    standing = Standing(label, "listening", "steady", (), ())
    return replace(row, submission=submission, standing=standing, dice=Limits(*dice))


def test_rows_stand_by_class_then_dice_and_share_places(row, reference):
    nothing = (float("nan"),) * 3
    rows = [
        variant(row, "open", "cannot tell", nothing),
        variant(row, "deaf", "unmoved", (0.99, 0.98, 0.995)),
        variant(row, "second", "listening and brittle", (0.8, 0.78, 0.82)),
        variant(row, "control", "unmoved", (0.999, 0.99, 1), control=True),
        variant(row, "third", "listening and brittle", (0.79, 0.77, 0.81)),
        variant(row, "last", "listening and brittle", (0.5, 0.4, 0.6)),
        variant(row, "first", "listening and steady", (0.6, 0.5, 0.7)),
    ]
    board = rank_rows(reference.track, rows)
    names = [r.submission.name for r in board.models]
    assert names == ["first", "second", "third", "last", "deaf", "open"]
    assert [r.rank for r in board.models] == [1, 1, 1, 3, 1, 1]
    assert [r.is_tied for r in board.models] == [False, True, True, False, False, False]
    assert [(r.submission.name, r.rank) for r in board.controls] == [("control", 0)]


def test_a_row_holds_what_follows_from_the_counts(row, verified):
    assert (
        row.assessment.records()["expectations"]
        == (verified.accepted.assessment.records()["expectations"])
    )
    assert row.dice.low < row.dice.estimate < row.dice.high
    assert row.standing.label == "listening and brittle"
    assert set(row.changes) == {"empty", "random_word", "antonym", "swap_value", "preserved"}
    assert row.changes["antonym"].n_rows == 5


def test_a_flag_of_other_content_says_nothing(row):
    assert (row.flag.state, row.flag.note) == ("unverified", UNFLAGGED)
    flag = Flag(sha256=row.sha256, state="disputed", on="2026-01-01", note="other counts")
    assert current_flag(flag, row.sha256) == flag
    assert current_flag(flag, "0" * 64).state == "unverified"


def test_a_refused_submission_stops_the_board(copy, edit, reference, tmp_path):
    edit("run.json", "res:native", "res:model")
    with pytest.raises(SubmissionError) as caught:
        build_row(copy, reference, None)
    assert str(caught.value).startswith(
        f"{copy}: refused. A board shows accepted submissions alone."
    )
    assert "\n  run.json: signature: 'dice|res:model" in str(caught.value)


def test_a_submission_lies_in_the_folder_of_its_name(copy, reference):
    other = copy.with_name("somebody-else")
    copy.rename(other)
    with pytest.raises(SubmissionError, match="somebody-else: a submission of 'phantom-clipseg-cr"):
        build_row(other, reference, None)


def test_a_folder_of_no_track_stops_the_board(tmp_path, reference):
    (tmp_path / "submissions" / "mine-v1").mkdir(parents=True)
    with pytest.raises(SubmissionError, match="mine-v1: no folder of a track. Submissions lie in"):
        build_boards(tmp_path, lambda _: reference, tick=lambda: None)


def test_a_board_without_submissions_asks_for_no_data(tmp_path):
    found = build_boards(tmp_path, lambda _: pytest.fail("asked for data"), tick=lambda: None)
    assert [board.rows for board in found] == [(), ()]


def test_flags_are_kept_one_a_submission(tmp_path, real_folder, verified):
    path = tmp_path / "flags.yaml"
    assert read_flags(path) == {}
    flag = make_flag(verified, None)
    assert (flag.state, flag.sha256) == ("verified", open_submission(real_folder).digest)
    record_flag(path, "phantom-v1/b", flag)
    record_flag(path, "phantom-v1/a", flag)
    refused = make_flag(Verification(verified.opened, ("wrong",)), None)
    record_flag(path, "phantom-v1/b", refused)
    assert list(read_flags(path)) == ["phantom-v1/a", "phantom-v1/b"]
    assert read_flags(path)["phantom-v1/b"].state == "refused"


def test_a_broken_file_of_flags_is_told(tmp_path):
    path = tmp_path / "flags.yaml"
    path.write_text("flags: {a/b: {sha256: x, state: fine, 'on': '2026-01-01'}}\n")
    with pytest.raises(SubmissionError, match=r"flags.yaml:1: flags.a/b.sha256: found 'x'"):
        read_flags(path)


def test_every_submission_of_the_repository_is_accepted_and_flagged(board_folder):
    """Recomputing all of them is the slow test of the site; here hashes and flags."""
    flags = read_flags(board_folder / "flags.yaml")
    folders = sorted((board_folder / "submissions").glob("*/*"))
    assert len(folders) >= 9
    for folder in folders:
        opened = open_submission(folder)
        assert opened.reasons == ()
        flag = flags[f"{folder.parent.name}/{folder.name}"]
        assert (flag.sha256, flag.state) == (opened.digest, "spot-checked")


def test_a_copy_elsewhere_is_the_same_submission(real_folder, tmp_path):
    shutil.copytree(real_folder, tmp_path / "copy")
    assert open_submission(tmp_path / "copy").digest == open_submission(real_folder).digest

"""How long a check says something."""

from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import __version__
from harness.leaderboard.beside import render_others
from harness.leaderboard.board import rank_rows
from harness.leaderboard.flags import Flag
from harness.leaderboard.site import render_pages


def flag(on="2026-11-27", harness=__version__, state="spot-checked"):
    return Flag(sha256="0" * 64, state=state, on=on, harness=harness)


@given(st.dates(date(2020, 1, 1), date(2100, 1, 1)), st.integers(0, 800))
def test_a_check_lasts_a_year_and_no_day_more(on, days):
    lapsed = flag(on.isoformat()).lapsed(on + timedelta(days=days))
    assert bool(lapsed) == (days >= 365)
    if lapsed:
        assert lapsed == f"it ended on {(on + timedelta(days=365)).isoformat()}"


@pytest.mark.parametrize(
    ("then", "now", "holds"),
    [
        ("0.1.0", "0.1.9", True),
        ("0.1.0", "0.2.0", False),
        ("0.9.0", "1.0.0", False),
        ("1.0.0", "1.7.3", True),
        ("1.9.0", "2.0.0", False),
        ("1.2.0rc1", "1.2.0", True),
        (None, "3.0.0", True),
    ],
)
def test_a_check_lapses_with_the_harness_it_was_made_by(monkeypatch, then, now, holds):
    monkeypatch.setattr("harness.leaderboard.flags.__version__", now)
    lapsed = flag(harness=then).lapsed(date(2026, 12, 1))
    assert lapsed == ("" if holds else f"by vlsm-harness {then}, this is {now}")


@pytest.mark.parametrize("state", ["unverified", "disputed", "refused"])
def test_what_is_no_check_does_not_lapse(state):
    assert flag("1970-01-01", state=state).lapsed(date(2100, 1, 1)) == ""
    assert flag(state=state).expires is None


def test_a_day_that_no_calendar_has_is_long_gone():
    assert flag("2026-02-31").lapsed(date(2026, 3, 1)) == "it ended on 1971-01-01"
    assert flag("9999-12-31").lapsed(date(2026, 3, 1)) == ""


def test_a_board_says_expired_and_what_it_was(row, reference):
    held = replace(row, flag=flag())
    gone = replace(held, lapsed="it ended on 2027-11-27")
    name = f"phantom-v1/{row.submission.name}.html"
    pages = render_pages([rank_rows(reference.track, [held])])
    for page in (pages["phantom-v1.html"], pages[name]):
        assert "until 2027-11-27, by " + __version__ in page
        assert "expired" not in page.partition("<main")[2]
    pages = render_pages([rank_rows(reference.track, [gone])])
    for page in (pages["phantom-v1.html"], pages[name]):
        assert "was spot-checked on 2026-11-27: it ended on 2027-11-27" in page
        assert '<span class="badge mute">expired</span>' in page
    record = render_others([rank_rows(reference.track, [gone])])["board.json"]
    assert '"state": "expired",\n      "was": "spot-checked",' in record

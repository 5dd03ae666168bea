"""Progress goes to standard error, as plain lines where there is no terminal."""

import pytest

from harness.commands import progress as module
from harness.commands.progress import Terminal


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test turns by hand."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_quiet_says_nothing(capsys):
    with Terminal(quiet=True).progress("work", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


def test_a_line_comes_every_ten_seconds_and_at_the_end(capsys, clock):
    with Terminal().progress("work", 100, unit="cases") as advance:
        for _ in range(10):
            clock[0] += 4
            advance(10)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "work: 30 of 100, 28 s left (2.5 cases/s)",
        "work: 60 of 100, 16 s left (2.5 cases/s)",
        "work: 90 of 100, 4 s left (2.5 cases/s)",
        "work: 100 of 100, 0 s left (2.5 cases/s)",
    ]


def test_work_done_before_does_not_count_for_the_rate(capsys, clock):
    with Terminal().progress("work", 100, unit="cases", done=90) as advance:
        clock[0] += 5
        advance(10)
    assert capsys.readouterr().err == "work: 100 of 100, 0 s left (2.0 cases/s)\n"


def test_an_unknown_end_is_only_counted(capsys, clock):
    with Terminal().counting("reading") as tick:
        for _ in range(3):
            clock[0] += 6
            tick()
    assert capsys.readouterr().err == "reading: 2 (0.2 items/s)\n"


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    with Terminal().progress("work", 2, unit="cases") as advance:
        advance(2)
    assert "2/2" in capsys.readouterr().err

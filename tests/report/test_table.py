"""Tables in the terminal."""

import io
import re

from rich.console import Console

from harness.report.table import tables


def printed(summary, width=100):
    """Text of all tables as a terminal of this width shows it."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for table in tables(summary):
        console.print(table)
    return console.file.getvalue()


def test_the_terminal_shows_each_section_with_its_notes(summary):
    text = printed(summary)

    assert "small on kvasir_polyp (test, p6)" in text
    assert "random_word   color             0.0 [-2.0, 2.0]" in text
    assert re.search(r"antonym +size +baseline too low", text)
    assert "notes on this table, and why a figure is missing: summary.md" in text
    assert "small away from its training data" in text


def test_no_cell_is_cut_at_100_columns(summary):
    text = printed(summary)

    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert "-12.3 [-18.9, -7.0]" in text


def test_markup_and_control_characters_of_strangers_are_shown_not_obeyed(summary_of):
    bad = "[bold red]x[/bold red]\x1b[2J"
    text = printed(summary_of({"probe": "original"}, {"probe": bad, "notes": [bad]}), width=160)

    assert "[bold red]x[/bold red]" in text
    assert "\x1b" not in text

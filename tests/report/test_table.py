"""Tables in the terminal."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from harness.report.table import PROBE_HEADER, tables


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


@pytest.mark.parametrize("width", [60, 80, 100, 110, 160])
def test_no_name_and_no_figure_of_what_is_not_there_is_cut(summary_of, width):
    """Too narrow for a line, a figure stands above its limits; then a table follows another."""
    limits = {"mcc": -0.25, "mcc_low": -0.656, "mcc_high": 0.656, "refusal_rate": 0.5}
    limits |= {"refusal_rate_low": 0.125, "refusal_rate_high": 0.875, "dice_mcc": 0.333}
    limits |= {"miss_rate": 0.444, "false_positive_area": 0.0366, "aligned_share": 0.997}
    asked = {"n_samples_refusal": 45, "n_clusters_refusal": 23, "absent_kind": "modality"}
    text = printed(
        summary_of(
            {"probe": "absent_of_another_kind", "perturbation": "absent", **limits, **asked},
            {"probe": "original", "perturbation": "original", **limits, **asked},
        ),
        width=width,
    )
    assert max(map(len, text.splitlines())) <= width
    whole = ("absent_of_another_kind", "own mask empty", "modality", "[0.125, 0.875]", "0.333")
    for piece in (*whole, "[-0.656, 0.656]", "3.66", "0.997", "0.444", "45 (23)", "-0.250"):
        assert piece in text
    assert "…" not in text
    assert ("0.500 [0.125, 0.875]" in text) == (width > 140)


def test_the_readme_s_table_has_the_columns_that_are_printed():
    """Those of a selection, in their order."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    line = next(one for one in readme.splitlines() if one.startswith("probe        attribute"))
    columns = re.split(r" {2,}", line)
    assert columns == [name for name in PROBE_HEADER if name in columns]


def test_a_section_without_rows_has_its_reason_in_place_of_a_table(summary_of):
    """In the terminal, too: a head above nothing tells nothing."""
    text = printed(
        summary_of(
            {"probe": "original"},
            {"probe": "out_of_distribution", "dataset": "other", "reason": "no test of its own"},
        )
    )
    _, _, away = text.partition("small away from its training data\n")
    assert away.split("\n")[0] == "  other: no test of its own."
    assert "beyond it" not in away

"""The three files of a summary."""

import json
import math

import polars as pl
import pytest

from harness.report.files import summary_json, write_summary
from harness.report.markdown import markdown


def test_the_three_files_hold_the_summary(summary, tmp_path):
    paths = write_summary(summary, tmp_path, title="Paper")

    assert [p.name for p in paths] == ["summary.parquet", "summary.json", "summary.md"]
    assert pl.read_parquet(paths[0]).equals(summary)
    rows = json.loads(paths[1].read_text(encoding="utf-8"))["rows"]
    assert len(rows) == summary.height
    assert list(rows[0]) == summary.columns
    assert paths[2].read_text(encoding="utf-8") == markdown(summary, title="Paper")
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_writing_again_gives_the_same_bytes_and_replaces(summary, tmp_path):
    first = [p.read_bytes() for p in write_summary(summary, tmp_path)]
    second = [p.read_bytes() for p in write_summary(summary, tmp_path)]

    assert first == second


def test_undefined_figures_are_null_in_json(summary):
    rows = json.loads(summary_json(summary))["rows"]

    assert rows[0]["relative_change_percent"] is None
    assert rows[0]["attribute"] is None
    assert rows[2]["notes"] == ["for these words only"]
    assert rows[-1]["n_cases"] is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1 + 0.2, "0.3"), (-1e-320 * 0, "0.0"), (1 / 3, "0.3333333333"), (math.inf, "null"),
     (123456.789012345, "123456.789")],
)  # fmt: skip
def test_figures_have_ten_digits(summary_of, value, text):
    line = next(x for x in summary_json(summary_of({"dice": value})).splitlines() if '"dice"' in x)

    assert line.strip() == f'"dice": {text},'


def test_json_says_its_version_and_no_times(summary):
    content = json.loads(summary_json(summary))

    assert content["version"] == 1
    assert set(content) == {"version", "rows"}
    assert not [c for c in summary.columns if "time" in c or "seconds" in c]

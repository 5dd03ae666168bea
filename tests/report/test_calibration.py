"""What is said of a model where one attribute alone decides."""

import pytest

from harness.report.table import deciding_table, verdict_line
from harness.stats.language import LanguageVerdict


def deciding(split, percent, low, high, **more):
    return {
        "probe": "antonym",
        "perturbation": "antonym",
        "dataset": "phantom_pairs",
        "split": split,
        "attribute": split,
        "relative_change_percent": percent,
        "relative_change_low_percent": low,
        "relative_change_high_percent": high,
    } | more


def test_only_the_attribute_that_decides_is_shown(summary_of):
    beside = deciding("size", -80.0, -90.0, -70.0, attribute="color")
    assert deciding_table(summary_of(beside)) == (["model"], [])


def test_the_table_has_a_row_for_each_model(summary_of):
    summary = summary_of(
        {"probe": "original", "dataset": "phantom_crowd", "dice": 0.861},
        deciding("size", -80.4, -90.0, -70.0),
        deciding("shape", -0.04, -0.3, 0.4),
        deciding("number", float("nan"), float("nan"), float("nan")),
    )
    header, rows = deciding_table(summary)
    assert header == ["model", "size", "shape", "number", "Dice phantom_crowd"]
    assert rows == [["small", "-80 [-90, -70]", "0 [0, 0]", "-", "0.861"]]
    assert deciding_table(summary, intervals=False)[1][0][1:3] == ["-80", "0"]


def test_refusal_is_a_column_beside_the_attributes(summary_of):
    keys = ("small@1", "small", "pairs", "released", "p6", "cannot tell", "cannot tell", "", True)
    verdict = LanguageVerdict(*keys, refusal="hallucinates", refusal_rate=(0.004, 0.0, 0.031))
    silent = LanguageVerdict(*keys)
    summary = summary_of(deciding("size", -80.4, -90.0, -70.0))
    header, rows = deciding_table(summary, [verdict])
    assert (header, rows[0][2]) == (["model", "size", "refuses"], "0 [0, 3]")
    assert deciding_table(summary, [silent])[0] == ["model", "size"]


def verdict(model="m", language="listening", steadiness="brittle", **given):
    keys = (f"{model}@1", model, "pairs", "released", "p6", language, steadiness, "", True)
    return LanguageVerdict(*keys, **given)


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (verdict(heard=("color", "size")), "m: listening (color, size); brittle"),
        (
            verdict(language="deaf", steadiness="steady", refusal="hallucinates"),
            "m: deaf; hallucinates; steady",
        ),
        (
            verdict(
                language="cannot tell",
                steadiness="cannot tell",
                unclear=("size",),
                refusal="cannot tell",
            ),
            "m: cannot tell (size); refusal undecided; steadiness undecided",
        ),
        (
            verdict("m" * 60, heard=("color", "location", "number", "size")),
            "m" * 60 + ": listening (4 attributes); brittle",
        ),
    ],
)
def test_a_verdict_has_a_line_of_its_own(found, line):
    assert verdict_line(found) == line
    assert len(line) < 100

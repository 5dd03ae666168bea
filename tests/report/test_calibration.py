"""What is said of a model where one attribute alone decides."""

import pytest

from harness.report.calibration import readings, sentence, sentences, table


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


@pytest.mark.parametrize(
    ("percent", "low", "high", "kind"),
    [
        (-80.0, -90.0, -70.0, "listens"),
        (-12.0, -20.0, -9.0, "unclear"),
        (0.0, -2.9, 2.9, "does not listen"),
        (0.0, 0.0, 0.0, "does not listen"),
        (0.0, -3.1, 2.0, "unclear"),
        (float("nan"), float("nan"), float("nan"), "unclear"),
    ],
)
def test_a_reading_follows_its_interval(summary_of, percent, low, high, kind):
    (reading,) = readings(summary_of(deciding("size", percent, low, high)))
    assert reading.kind == kind


def test_what_allows_no_verdict_is_never_a_finding(summary_of):
    row = deciding("size", -80.0, -90.0, -70.0, verdict_allowed=False)
    assert readings(summary_of(row))[0].kind == "unclear"


def test_only_the_attribute_that_decides_is_read(summary_of):
    beside = deciding("size", -80.0, -90.0, -70.0, attribute="color")
    assert readings(summary_of(beside)) == []


def test_the_sentence_names_what_is_heard_and_what_is_not(summary_of):
    summary = summary_of(
        deciding("size", -80.0, -90.0, -70.0),
        deciding("color", -99.0, -100.0, -98.0),
        deciding("shape", 0.1, -0.5, 0.5),
        deciding("number", -5.0, -20.0, 9.0),
    )
    assert sentences(summary) == [
        "small listens to size and color: the opposite word moves its mask away; "
        "does not listen to shape; cannot be judged on number "
        "(too few scenes, or a change neither small nor large)."
    ]


def test_a_model_that_hears_nothing_is_told_so(summary_of):
    found = readings(summary_of(deciding("size", 0, 0, 0), deciding("color", 0, -1, 1)))
    assert sentence("control", found) == (
        "control listens to nothing: whichever word changes, its masks score the same."
    )


def test_the_table_has_a_row_for_each_model(summary_of):
    summary = summary_of(
        {"probe": "original", "dataset": "phantom_crowd", "dice": 0.861},
        deciding("size", -80.4, -90.0, -70.0),
        deciding("shape", -0.04, -0.3, 0.4),
        deciding("number", float("nan"), float("nan"), float("nan")),
    )
    header, rows = table(summary)
    assert header == ["model", "size", "shape", "number", "Dice phantom_crowd"]
    assert rows == [["small", "-80 [-90, -70]", "0 [0, 0]", "-", "0.861"]]
    assert table(summary, intervals=False)[1][0][1:3] == ["-80", "0"]

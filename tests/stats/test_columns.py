"""Names, units and cut-offs of a summary's columns."""

import numpy as np
import polars as pl
import pytest

from harness.stats.columns import (
    SUMMARY_SCHEMA,
    changed_percent,
    limit_columns,
    relative_columns,
    why_too_low,
)
from harness.stats.inference import Intervals


def intervals(estimate, low, high):
    """One problem with all kinds of limits alike."""
    return Intervals(*(np.array([x]) for x in (estimate, 0.1, *[low, high] * 4)))


@pytest.mark.parametrize(
    ("estimate", "low", "expected"),
    [
        (0.49, 0.05, "baseline too low: lower limit of Dice under 0.1"),
        (0.09, 0.05, "baseline too low: Dice under 0.1"),
        (0.30, 0.11, ""),
        (0.30, 0.10, ""),
        (0.10, 0.10, ""),
        (0.30, np.nan, ""),  # one cluster: the estimate itself decides
        (0.05, np.nan, "baseline too low: Dice under 0.1"),
        (0.0, 0.0, "baseline too low: Dice is 0"),
        (np.nan, np.nan, ""),  # nothing measured: another reason is given
    ],
)
def test_it_is_said_whether_the_baseline_or_its_lower_limit_is_too_low(estimate, low, expected):
    found = intervals(estimate, low, 0.5)
    assert why_too_low(found, 0, 0.10) == expected
    assert why_too_low(found, slice(None), 0.10).tolist() == [expected]


def test_a_baseline_of_nothing_is_too_low_without_a_floor():
    assert why_too_low(intervals(0.0, 0.0, 0.0), 0, 0.0) == "baseline too low: Dice is 0"


def test_a_change_of_figures_without_limits_has_the_same_floor():
    table = pl.DataFrame({"after": [0.1, 0.1, 0.0], "before": [0.2, 0.09, 0.0]})
    for floor, expected in (
        (0.1, [-50.0, None, None]),
        (0.0, [-50.0, 100 * (0.1 / 0.09 - 1), None]),
    ):
        found = table.select(changed_percent(pl.col("after"), pl.col("before"), floor))
        assert found.to_series().to_list() == expected


def test_columns_carry_their_unit_and_stay_possible():
    ratio = intervals(0.4, -0.3, 1.2)
    share = limit_columns("agreement", "", ratio, low=0, high=1)
    change = relative_columns(ratio, 0)

    assert {k: v[0] for k, v in share.items()} == {
        "agreement": 0.4,
        "agreement_low": 0.0,
        "agreement_high": 1.0,
    }
    assert change["relative_change_percent"] == pytest.approx(-60)
    assert change["relative_change_low_percent"] == -100
    assert change["relative_change_high90_percent"] == pytest.approx(20)
    assert change["relative_change_standard_error_percent"] == pytest.approx(10)
    assert set(share) | set(change) <= set(SUMMARY_SCHEMA)

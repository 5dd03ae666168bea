"""Names, units and cut-offs of a summary's columns."""

import numpy as np
import pytest

from harness.stats.columns import SUMMARY_SCHEMA, limit_columns, relative_columns, too_low
from harness.stats.limits import Intervals


def intervals(estimate, low, high):
    """One problem with all kinds of limits alike."""
    return Intervals(*(np.array([x]) for x in (estimate, 0.1, *[low, high] * 4)))


@pytest.mark.parametrize(
    ("estimate", "low", "expected"),
    [
        (0.30, 0.05, True),
        (0.30, 0.11, False),
        (0.30, 0.10, False),
        (0.30, np.nan, False),  # one cluster: the estimate itself decides
        (0.05, np.nan, True),
        (np.nan, np.nan, False),  # nothing measured: another reason is given
    ],
)
def test_a_baseline_is_too_low_when_its_lower_limit_is(estimate, low, expected):
    assert bool(too_low(intervals(estimate, low, 0.5), 0, 0.10)) is expected


def test_a_baseline_of_nothing_is_too_low_without_a_floor():
    assert bool(too_low(intervals(0.0, 0.0, 0.0), 0, 0.0)) is True


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

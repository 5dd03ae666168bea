"""p-values and intervals never contradict each other; corrections agree with the libraries."""

import math
import re
from statistics import NormalDist
from unittest import mock

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.stats.bootstrap import cluster_draws, ratio_inference
from harness.stats.inference import (
    PIVOT_LEVELS,
    Estimate,
    adjust,
    adjust_families,
    deciding_test,
    level_among,
    p_greater,
    p_less,
)

GAUSS = NormalDist()
FLAT = np.zeros(len(PIVOT_LEVELS))


def normal(value, error=1.0, n_draws=10_000):
    """An estimate whose studentised draws are normal."""
    pivot = np.array([GAUSS.inv_cdf(p) for p in PIVOT_LEVELS])
    ends = [value + error * GAUSS.inv_cdf(p) for p in (0.025, 0.975, 0.05, 0.95)]
    return Estimate(value, error, 0.0, *ends, pivot, n_draws)


def certain(value):
    """An estimate without any variance."""
    return Estimate(value, 0.0, 0.0, *[value] * 4, FLAT, 999)


def bootstrapped(seed, size=30):
    rng = np.random.default_rng(seed)
    base = rng.beta(8, 2, (size, 1))
    after = base * (1 - rng.exponential(0.05, (size, 1)).clip(0, 1))
    draws = cluster_draws("d", [f"c{i}" for i in range(size)], count=1999, seed=0)
    found = ratio_inference(after, base, draws=draws)
    i = found.intervals
    ends = (i.low[0], i.high[0], i.low90[0], i.high90[0])
    value, error, *limits = map(float, (i.estimate[0], i.standard_error[0], *ends))
    one = Estimate(value, error, 0.0, *limits, found.pivot[:, 0], float(found.n_draws[0]))
    return one.scaled(100, offset=1)


@given(st.floats(-3, 3), st.floats(0.1, 5), st.floats(-3, 3))
def test_one_sided_p_values_are_those_of_the_pivot(value, error, bound):
    found = normal(value, error)
    z = (value - bound) / error
    assert p_less(found, bound) == pytest.approx(max(GAUSS.cdf(z), 1e-4), rel=0.02)
    assert p_greater(found, bound) == pytest.approx(max(1 - GAUSS.cdf(z), 1e-4), rel=0.02)


@given(st.integers(0, 40), st.floats(0.2, 15))
@settings(max_examples=60)
def test_equivalence_is_shown_exactly_where_the_90_percent_interval_lies_within(seed, margin):
    found = bootstrapped(seed)
    test = deciding_test(found, (-margin, margin), "invariance")
    within = -margin < found.low90 and found.high90 < margin
    shown = test.name == "equivalence" and test.p_value <= 0.05
    edge = min(abs(found.low90 + margin), abs(found.high90 - margin))
    assert shown is within or edge < 1e-6


@given(st.integers(0, 40), st.floats(0.2, 15))
@settings(max_examples=60)
def test_going_beyond_is_shown_exactly_where_the_95_percent_interval_lies_outside(seed, margin):
    found = bootstrapped(seed)
    test = deciding_test(found, (-margin, margin), "invariance")
    outside = found.high < -margin or found.low > margin
    assert (test.outcome == "fails" and test.p_value <= 0.05) is outside


@given(st.integers(0, 40), st.floats(-12, 3))
@settings(max_examples=60)
def test_one_sided_expectations_follow_the_95_percent_interval(seed, bound):
    found = bootstrapped(seed)
    above = deciding_test(found, (bound, np.inf), "minimum")
    below = deciding_test(found, (-np.inf, bound), "direction")
    assert (above.outcome == "holds" and above.p_value <= 0.05) is (found.low > bound)
    assert (above.outcome == "fails" and above.p_value <= 0.05) is (found.high < bound)
    assert (below.outcome, below.p_value) == (
        {"holds": "fails", "fails": "holds"}[above.outcome],
        pytest.approx(above.p_value),
    )
    assert (above.name, below.name) == ("non-inferiority", "superiority")


def test_without_variance_the_figure_decides_and_a_bound_belongs_to_its_region():
    for value, outcome in ((0.0, "holds"), (2.0, "holds"), (2.1, "fails")):
        test = deciding_test(certain(value), (-2, 2), "invariance")
        assert (test.outcome, test.p_value) == (outcome, pytest.approx(0.001))
    one = deciding_test(certain(1.0), (1.0, np.inf), "minimum")
    assert (one.name, one.outcome) == ("non-inferiority", "holds")
    assert p_less(certain(1.0), 1.0) == p_greater(certain(1.0), 1.0) == 1.0


def test_no_p_value_is_smaller_than_the_draws_allow():
    assert p_less(normal(-50.0, n_draws=100), 0.0) == pytest.approx(1 / 101)
    assert p_less(normal(-50.0, n_draws=10_000), 0.0) == pytest.approx(1e-4)


def test_the_t_test_agrees_where_changes_are_normal():
    rng = np.random.default_rng(3)
    change = rng.normal(-0.01, 0.05, 400)
    draws = cluster_draws("d", [f"c{i}" for i in range(400)], count=9999, seed=0)
    found = ratio_inference((0.8 + change)[:, None], np.full((400, 1), 0.8), draws=draws)
    i = found.intervals
    ends = (i.low[0], i.high[0], i.low90[0], i.high90[0])
    one = Estimate(i.estimate[0], i.standard_error[0], 0.0, *ends, found.pivot[:, 0], 9999)
    theirs = scipy.stats.ttest_1samp(change, 0)
    ours = deciding_test(one, (1.0, np.inf), "minimum").p_value
    assert ours == pytest.approx(theirs.pvalue, rel=0.25)


p_lists = st.lists(st.floats(1e-6, 1), min_size=1, max_size=12)


@given(p_lists)
@settings(max_examples=40)
def test_corrections_agree_with_statsmodels(p_values):
    from statsmodels.stats.multitest import multipletests

    for rule, method in (("holm", "holm"), ("benjamini_hochberg", "fdr_bh")):
        # It collects garbage with each call, which takes a thousand times as long as the figures.
        with mock.patch("gc.collect"):
            theirs = multipletests(p_values, method=method)[1]
        np.testing.assert_allclose(adjust(p_values, rule), theirs, rtol=1e-12)
    assert adjust(p_values, "none") == p_values


def test_an_empty_family_has_nothing_to_correct():
    assert adjust([], "holm") == []


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1) | st.just(math.nan)), max_size=12),
    st.sampled_from(["holm", "benjamini_hochberg", "none"]),
)
def test_families_are_adjusted_one_by_one(tests, rule):
    """Against adjusting each family alone; what is not tested is in none."""
    for k, ((key, p), own) in enumerate(zip(tests, adjust_families(tests, rule), strict=True)):
        numbers = [j for j, (other, q) in enumerate(tests) if other == key and not math.isnan(q)]
        alone = dict(zip(numbers, adjust([tests[j][1] for j in numbers], rule), strict=True))
        assert len(own.family) == len(numbers)
        if math.isnan(p):
            assert (own.place, math.isnan(own.p_value)) == (None, True)
        else:
            assert own.p_value == alone[k]
            assert own.others == [tests[j][1] for j in numbers if j != k]


@given(p_lists, st.sampled_from(["holm", "benjamini_hochberg", "none"]))
def test_the_level_beside_others_is_where_the_correction_turns(others, rule):
    level = level_among(others, rule, 0.05)
    assert adjust([level * (1 - 1e-9), *others], rule)[0] <= 0.05
    assert adjust([level * (1 + 1e-6), *others], rule)[0] > 0.05


def test_scaling_moves_every_figure():
    found = normal(0.9, 0.01).scaled(100, offset=1)
    assert found.value == pytest.approx(-10)
    assert found.low == pytest.approx(-10 - 1.96, abs=0.01)
    assert found.limit(0.975) == pytest.approx(found.low)
    assert found.limit(0.05) == pytest.approx(found.high90)
    assert re.match(r"-?\d", repr(found.error))
    assert found.error == pytest.approx(1.0)

"""Differences of two models over the same clusters: definition, laws, error rates."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stats.bootstrap import ratio_inference
from harness.stats.draws import Draws, cluster_draws
from harness.stats.paired import Ratio, difference_inference


def ratios(rng, n_clusters, columns=3):
    """Two models' sums, with what is hard in a cluster hard for both."""
    size = rng.integers(1, 5, (n_clusters, 1)).astype(float)
    hard = rng.beta(6, 3, (n_clusters, 1))
    found = []
    for _ in range(2):
        below = size * np.clip(hard + rng.normal(0, 0.05, (n_clusters, columns)), 0.05, 1)
        found.append(Ratio(below * rng.uniform(0.5, 1.0, below.shape), below))
    return found


def draws_of(n_clusters, count=400, seed=0):
    return cluster_draws("d", [f"c{k}" for k in range(n_clusters)], count=count, seed=seed)


def by_definition(new, old, draws):
    """Estimate, and of each draw the shift and its standard error, one draw at a time."""

    def value(weights):
        up, down = ((weights @ r.numerator) / (weights @ r.denominator) for r in (new, old))
        return up - down

    ones = np.ones(len(draws.units))
    shifts, errors = [], []
    for _, block in draws.blocks():
        for weights in block:
            parts = []
            for ratio in (new, old):
                below = weights @ ratio.denominator
                own = (weights @ ratio.numerator) / below
                parts.append((ratio.numerator - own * ratio.denominator) / below)
            influence = parts[0] - parts[1]
            size = len(weights)
            errors.append(np.sqrt(size / (size - 1) * (weights @ influence**2)))
            shifts.append(value(weights) - value(ones))
    return value(ones), np.array(shifts), np.array(errors)


def test_it_agrees_with_its_definition():
    new, old = ratios(np.random.default_rng(1), 12)
    draws = draws_of(12)

    found = difference_inference(new, old, draws=draws)

    estimate, shifts, errors = by_definition(new, old, draws)
    np.testing.assert_allclose(found.intervals.estimate, estimate)
    error = found.intervals.standard_error
    t = np.sort(shifts / np.maximum(errors, 0.25 * error), axis=0)
    low, high = np.quantile(t, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(found.intervals.low, estimate - high * error, rtol=1e-9)
    np.testing.assert_allclose(found.intervals.high, estimate - low * error, rtol=1e-9)
    percentiles = np.quantile(shifts, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(found.intervals.percentile_low, estimate + percentiles[0])


@given(st.integers(0, 10**6), st.integers(3, 40))
def test_a_model_does_not_differ_from_itself(seed, n_clusters):
    one, _ = ratios(np.random.default_rng(seed), n_clusters)
    found = difference_inference(one, one, draws=draws_of(n_clusters, count=100)).intervals
    for limit in found:
        np.testing.assert_array_equal(limit, 0)


@given(st.integers(0, 10**6))
def test_exchanged_models_exchange_the_limits(seed):
    new, old = ratios(np.random.default_rng(seed), 15)
    draws = draws_of(15, count=200)
    there = difference_inference(new, old, draws=draws).intervals
    back = difference_inference(old, new, draws=draws).intervals
    np.testing.assert_allclose(there.estimate, -back.estimate)
    np.testing.assert_allclose(there.low, -back.high, atol=1e-12)
    np.testing.assert_allclose(there.low90, -back.high90, atol=1e-12)


@given(st.integers(0, 10**6))
def test_against_a_constant_it_is_the_interval_of_one_ratio(seed):
    new, old = ratios(np.random.default_rng(seed), 20)
    fixed = Ratio(0.9 * old.denominator, old.denominator)
    draws = draws_of(20, count=200)
    found = difference_inference(new, fixed, draws=draws).intervals
    alone = ratio_inference(*new, draws=draws).intervals
    np.testing.assert_allclose(found.low, alone.low - 0.9, atol=1e-9)
    np.testing.assert_allclose(found.high, alone.high - 0.9, atol=1e-9)


def test_problems_do_not_touch_each_other():
    """Columns come in chunks; one by one they are the same."""
    new, old = ratios(np.random.default_rng(3), 10, columns=70)
    draws = draws_of(10, count=100)
    whole = difference_inference(new, old, draws=draws)
    for place in (0, 63, 64, 69):
        c = slice(place, place + 1)
        one = difference_inference(new.columns(c), old.columns(c), draws=draws)
        assert one.intervals.low[0] == pytest.approx(whole.intervals.low[place])
        np.testing.assert_allclose(one.pivot[:, 0], whole.pivot[:, place])


def test_pairing_takes_away_what_clusters_share():
    new, old = ratios(np.random.default_rng(4), 60, columns=1)
    draws = draws_of(60)
    ones = np.ones((60, 1))
    both = [Ratio(one.denominator, ones) for one in (new, old)]
    paired = difference_inference(*both, draws=draws)
    alone = ratio_inference(new.denominator, np.ones((60, 1)), draws=draws)
    assert paired.intervals.standard_error[0] < 0.5 * alone.intervals.standard_error[0]


@pytest.mark.parametrize(("n_clusters", "least"), [(20, 0.91), (60, 0.925)])
def test_its_intervals_cover_and_no_loss_is_shown_too_often(n_clusters, least):
    """Studies in the columns of one problem; a tenth of the clusters loses most of its Dice."""
    rng = np.random.default_rng(n_clusters)
    size = rng.integers(1, 5, (n_clusters, 1500)).astype(float)
    hard = rng.beta(6, 3, size.shape)

    def model(level):
        below = size * hard
        left = np.clip(level + rng.normal(0, 0.1, size.shape), 0, 1)
        lost = rng.random(size.shape) < 0.1
        return Ratio(below * np.where(lost, 0.3, left), below)

    levels = np.array([0.75, 0.8])
    steps = np.random.default_rng(0).normal(0, 0.1, (200_000, 1))
    true = 0.9 * np.diff(np.clip(levels + steps, 0, 1).mean(axis=0))[0]
    old, new = model(levels[1]), model(levels[0])
    found = difference_inference(new, old, draws=draws_of(n_clusters, count=1000)).intervals
    assert least <= np.mean((found.low <= -true) & (found.high >= -true)) <= 0.97
    # The one-sided error that decides non-inferiority: nominally 2.5 %, 4.4 % with 20 clusters.
    assert np.mean(found.high < -true) <= 0.055


def test_draws_of_other_clusters_are_refused():
    one = Ratio(np.ones((3, 1)), np.ones((3, 1)))
    message = (
        "paired: 3 clusters, but draws of 2 units. Both must be the same clusters. Make the "
        "draws from the names of these clusters."
    )
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        difference_inference(one, one, draws=Draws(("a", "b"), count=100, seed=0))

"""Differences of ratios against plain loops over the same draws, the one-sample case and scipy."""

import re
from functools import partial

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.stats.bootstrap import Ratios, cluster_draws, crossed_inference, ratio_inference
from harness.stats.comparison.contrast import difference_inference
from harness.stats.inference import LEAST_ERROR, Intervals


def clusters(count, draws=300, seed=0):
    return cluster_draws("d/test", [f"c{i}" for i in range(count)], count=draws, seed=seed)


def drawn_words(count, draws=300):
    return cluster_draws("", [f"w{i}" for i in range(count)], count=draws, seed=0, role="words")


def example(size, *, seed=0, columns=2, n_words=0):
    """Two models over the same clusters; what a cluster does to both is shared."""
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 4, (size, 1))
    shared = rng.normal(0, 0.1, (size, 1))
    found = []
    for level in (0.1, 0.3):
        base = np.clip(rng.beta(8, 2, (size, columns)) + shared, 0.05, 1) * n
        shape = (size, n_words, columns) if n_words else (size, columns)
        fall = rng.exponential(level, shape).clip(0, 1)
        if n_words:
            fall = (fall + rng.normal(0, 0.1, (1, n_words, 1))).clip(0, 1)
        found.append(Ratios((base[:, None] if n_words else base) * (1 - fall), base))
    return found


def slow_draw(first, second, w, u):
    """Difference, and its standard error, of one resampled data set: plain loops."""
    size, m = len(w), len(u)
    ratios, below = [], []
    for one in (first, second):
        total = sum(w[g] * one.denominator[g] for g in range(size))
        above = sum(w[g] * u[k] * one.numerator[g][k] for g in range(size) for k in range(m)) / m
        ratios.append(above / total)
        below.append(total)
    square, effects = 0.0, [0.0] * m
    for g in range(size):
        influence = 0.0
        for sign, one, ratio, total in zip((1, -1), (first, second), ratios, below, strict=True):
            mean = sum(u[k] * one.numerator[g][k] for k in range(m)) / m
            influence += sign * (mean - ratio * one.denominator[g]) / total
            for k in range(m):
                effects[k] += sign * w[g] * one.numerator[g][k] / total
        square += w[g] * influence**2
    estimate = ratios[0] - ratios[1]
    spread = sum(u[k] * (effects[k] - estimate) ** 2 for k in range(m))
    words = spread / (m * (m - 1)) if m > 1 else 0.0
    return estimate, (size / (size - 1) * square + words) ** 0.5


def slow_limits(first, second, weights, picked):
    """Estimate, error and studentised 95 % limits of one problem."""
    ones = [1.0] * len(first.denominator)
    estimate, error = slow_draw(first, second, ones, [1.0] * len(picked[0]))
    drawn = [slow_draw(first, second, w, u) for w, u in zip(weights, picked, strict=True)]
    t = [(e - estimate) / max(s, LEAST_ERROR * error) for e, s in drawn]
    low, high = np.quantile(t, 0.975), np.quantile(t, 0.025)
    return estimate, error, estimate - low * error, estimate - high * error


def rows(draws):
    return [row for _, block in draws.blocks() for row in block]


def column(one, p):
    numerator = one.numerator[..., p]
    return Ratios(numerator if numerator.ndim == 2 else numerator[:, None], one.denominator[:, p])


@pytest.mark.parametrize(("size", "n_words"), [(2, 0), (13, 0), (2, 3), (9, 4)])
def test_intervals_agree_with_their_definition(size, n_words):
    first, second = example(size, n_words=n_words)
    draws, words = clusters(size, 150), drawn_words(n_words, 150) if n_words else None
    picked = rows(words) if words else [[1.0]] * 150

    found = difference_inference(first, second, draws=draws, words=words).intervals

    for p in range(2):
        expected = slow_limits(column(first, p), column(second, p), rows(draws), picked)
        got = (found.estimate[p], found.standard_error[p], found.low[p], found.high[p])
        np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-9)


def test_percentile_limits_agree_with_scipy():
    first, second = example(40, columns=1)
    arrays = (first.numerator, first.denominator, second.numerator, second.denominator)

    def difference(a, b, c, d, axis=-1):
        return a.sum(axis) / b.sum(axis) - c.sum(axis) / d.sum(axis)

    known = scipy.stats.bootstrap(
        [x[:, 0] for x in arrays], difference, paired=True, vectorized=True, method="percentile",
        n_resamples=20_000, rng=np.random.default_rng(1),
    )  # fmt: skip

    found = difference_inference(first, second, draws=clusters(40, 20_000)).intervals

    assert found.percentile_low[0] == pytest.approx(known.confidence_interval.low, abs=1.5e-3)
    assert found.percentile_high[0] == pytest.approx(known.confidence_interval.high, abs=1.5e-3)
    assert found.standard_error[0] == pytest.approx(known.standard_error, rel=0.05)


def test_without_a_second_ratio_it_is_the_interval_of_one():
    for n_words in (0, 5):
        first, _ = example(15, n_words=n_words)
        nothing = Ratios(np.zeros_like(first.numerator), first.denominator)
        draws = clusters(15)
        if n_words:
            solve = partial(crossed_inference, clusters=draws, words=drawn_words(5))
        else:
            solve = partial(ratio_inference, draws=draws)
        words = drawn_words(5) if n_words else None

        found = difference_inference(first, nothing, draws=draws, words=words)

        one = solve(*first)
        for name in ("estimate", "standard_error", "low", "high", "low90", "high90"):
            np.testing.assert_allclose(
                getattr(found.intervals, name), getattr(one.intervals, name), rtol=1e-9
            )
        np.testing.assert_allclose(found.pivot, one.pivot, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(found.word_error, one.word_error, rtol=1e-9)


def test_over_equal_denominators_it_is_the_mean_of_differences():
    first, second = example(20)
    second = Ratios(second.numerator, first.denominator)
    draws = clusters(20)

    found = difference_inference(first, second, draws=draws).intervals

    paired = ratio_inference(
        first.numerator - second.numerator, first.denominator, draws=draws
    ).intervals
    for name in ("estimate", "standard_error", "low", "high"):
        np.testing.assert_allclose(getattr(found, name), getattr(paired, name), rtol=1e-8)


@settings(max_examples=25)
@given(st.integers(2, 12), st.integers(0, 2**16), st.sampled_from([0, 2, 5]))
def test_a_model_differs_from_itself_by_nothing_at_all(size, seed, n_words):
    one, _ = example(size, seed=seed, n_words=n_words)
    words = drawn_words(n_words, 50) if n_words else None
    found = difference_inference(one, one, draws=clusters(size, 50), words=words)
    for name in ("estimate", "standard_error", "low", "high"):
        assert (getattr(found.intervals, name) == 0).all()


@settings(max_examples=25)
@given(st.integers(2, 12), st.integers(0, 2**16), st.sampled_from([0, 2, 5]))
def test_exchanging_the_two_turns_every_sign(size, seed, n_words):
    first, second = example(size, seed=seed, n_words=n_words)
    words = drawn_words(n_words, 60) if n_words else None
    solve = partial(difference_inference, draws=clusters(size, 60), words=words)

    here, there = solve(first, second).intervals, solve(second, first).intervals

    close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-9)
    close(here.estimate, -there.estimate)
    close(here.standard_error, there.standard_error)
    for low, high in (("low", "high"), ("low90", "high90"), ("percentile_low", "percentile_high")):
        close(getattr(here, low), -getattr(there, high))


def test_pairing_narrows_what_clusters_share():
    """Two models that do the same everywhere but for a shift differ by that shift alone."""
    first, _ = example(30, columns=1)
    second = Ratios(first.numerator - 0.05 * first.denominator, first.denominator)
    found = difference_inference(first, second, draws=clusters(30)).intervals
    alone = ratio_inference(*first, draws=clusters(30)).intervals
    assert found.estimate[0] == pytest.approx(0.05)
    assert found.standard_error[0] < 1e-9 < alone.standard_error[0]
    assert found.high[0] - found.low[0] < 1e-9


def smooth(rng, share, shape):
    return rng.beta(2, 2 / share - 2, shape)


def rare(rng, share, shape):
    """Most clusters lose nothing, some of them anything: the hard case."""
    return rng.binomial(1, 2 * share, shape) * rng.uniform(0, 1, shape)


@pytest.mark.parametrize(
    ("loss", "n_clusters", "shares", "least"),
    [
        (smooth, 20, (0.10, 0.30), 0.93),
        pytest.param(smooth, 100, (0.10, 0.10), 0.93, marks=pytest.mark.slow),
        pytest.param(rare, 40, (0.05, 0.125), 0.90, marks=pytest.mark.slow),
        (rare, 100, (0.05, 0.125), 0.92),
    ],
)
def test_intervals_cover_the_true_difference(loss, n_clusters, shares, least):
    """1,500 studies, a column each, with what clusters share. Rare total losses cover less."""
    rng = np.random.default_rng(1)
    shape = (n_clusters, 1500)
    n, shared = rng.integers(1, 5, shape), rng.normal(0, 0.1, shape)
    parts = []
    for share in shares:
        base = np.clip(0.75 + shared + rng.normal(0, 0.05, shape), 0, 1) * n
        parts.append(Ratios(base * (1 - loss(rng, share, shape)), base))
    true = shares[1] - shares[0]
    found = difference_inference(*parts, draws=clusters(n_clusters, 800)).intervals
    covered = ((found.low <= true) & (true <= found.high)).mean()
    assert least <= covered <= 0.97


def test_one_cluster_has_no_limits():
    first, second = example(1)
    found = difference_inference(first, second, draws=clusters(1)).intervals
    assert np.isnan(found.low).all()
    assert np.isfinite(found.estimate).all()
    assert Intervals._fields == found._fields


def test_other_clusters_are_refused():
    first, second = example(5)
    with pytest.raises(ValueError, match=re.escape("and draws of 6 units. Both must be over the")):
        difference_inference(first, second, draws=clusters(6))
    fewer = Ratios(second.numerator[:4], second.denominator[:4])
    with pytest.raises(ValueError, match="Keep the common ones first"):
        difference_inference(first, fewer, draws=clusters(5))


def test_problems_do_not_touch_each_other():
    """Columns are solved in chunks; one by one they are the same."""
    first, second = example(10, columns=70)
    whole = difference_inference(first, second, draws=clusters(10, draws=100))
    for place in (0, 63, 64, 69):
        own = [Ratios(*(part[:, place : place + 1] for part in side)) for side in (first, second)]
        one = difference_inference(*own, draws=clusters(10, draws=100))
        assert one.intervals.low[0] == pytest.approx(whole.intervals.low[place])
        np.testing.assert_allclose(one.pivot[:, 0], whole.pivot[:, place])


@pytest.mark.parametrize(("n_clusters", "least"), [(20, 0.91), (60, 0.925)])
def test_no_loss_beyond_a_true_margin_is_shown_too_often(n_clusters, least):
    """Studies in the columns of one problem; a tenth of the clusters loses most of its Dice."""
    rng = np.random.default_rng(n_clusters)
    size = rng.integers(1, 5, (n_clusters, 1500)).astype(float)
    hard = rng.beta(6, 3, size.shape)

    def model(level):
        below = size * hard
        left = np.clip(level + rng.normal(0, 0.1, size.shape), 0, 1)
        lost = rng.random(size.shape) < 0.1
        return Ratios(below * np.where(lost, 0.3, left), below)

    levels = np.array([0.75, 0.8])
    steps = np.random.default_rng(0).normal(0, 0.1, (200_000, 1))
    true = 0.9 * np.diff(np.clip(levels + steps, 0, 1).mean(axis=0))[0]
    old, new = model(levels[1]), model(levels[0])
    found = difference_inference(new, old, draws=clusters(n_clusters, draws=1000)).intervals
    assert least <= np.mean((found.low <= -true) & (found.high >= -true)) <= 0.97
    # The one-sided error that decides non-inferiority: nominally 2.5 %, 4.4 % with 20 clusters.
    assert np.mean(found.high < -true) <= 0.055

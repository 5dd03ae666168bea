"""The bootstrap of ratios and its draws, against plain definitions and their laws."""

import re
from statistics import NormalDist

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.stats import bootstrap as module
from harness.stats.bootstrap import cluster_draws, crossed_inference, ratio_inference
from harness.stats.inference import LEAST_ERROR

GAUSS = NormalDist()


def clusters(count, draws=300, seed=0):
    return cluster_draws("d/test", [f"c{i}" for i in range(count)], count=draws, seed=seed)


def words(count, draws=300):
    return cluster_draws("", [f"w{i}" for i in range(count)], count=draws, seed=0, role="words")


def rows(draws):
    return [row for _, block in draws.blocks() for row in block]


def example(size, columns=2, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.beta(5, 1, (size, columns)) * rng.integers(1, 4, (size, 1))
    return base * (1 - rng.exponential(0.2, (size, columns)).clip(0, 1)), base


def slow_error(numerator, denominator, weights):
    """Linearised standard error of one ratio, one cluster after the other."""
    size = len(numerator)
    below = sum(w * d for w, d in zip(weights, denominator, strict=True))
    ratio = sum(w * n for w, n in zip(weights, numerator, strict=True)) / below
    triples = zip(weights, numerator, denominator, strict=True)
    square = sum(w * (n - ratio * d) ** 2 for w, n, d in triples)
    return ratio, (size / (size - 1) * square) ** 0.5 / below


def slow_limits(estimate, error, drawn, acceleration):
    """All limits of one problem from its draws ``(estimate, error)``."""
    t = [(e - estimate) / max(s, LEAST_ERROR * error) for e, s in drawn]
    estimates = np.array([e for e, _ in drawn])
    q = {p: np.quantile(t, p) for p in (0.025, 0.05, 0.95, 0.975)}
    ties = np.isclose(estimates, estimate, rtol=1e-12)
    below = np.mean((estimates < estimate) & ~ties) + np.mean(ties) / 2
    bias = GAUSS.inv_cdf(below)
    levels = []
    for p in (0.025, 0.975):
        z = bias + GAUSS.inv_cdf(p)
        levels.append(GAUSS.cdf(bias + z / (1 - acceleration * z)))
    return {
        "estimate": estimate,
        "standard_error": error,
        "low": estimate - q[0.975] * error,
        "high": estimate - q[0.025] * error,
        "low90": estimate - q[0.95] * error,
        "high90": estimate - q[0.05] * error,
        "percentile_low": np.quantile(estimates, 0.025),
        "percentile_high": np.quantile(estimates, 0.975),
        "bca_low": np.quantile(estimates, levels[0]),
        "bca_high": np.quantile(estimates, levels[1]),
    }


def scaled_influences(leave_one_out):
    size = len(leave_one_out)
    mean = sum(leave_one_out) / size
    return [(mean - x) * (size - 1) / size for x in leave_one_out]


def slow_acceleration(*factors):
    flat = [u for factor in factors for u in factor]
    return sum(u**3 for u in flat) / (6 * sum(u**2 for u in flat) ** 1.5)


@pytest.mark.parametrize("size", [5, 24])
def test_clusters_agree_with_a_plain_loop_over_the_same_draws(size):
    numerator, denominator = example(size)
    draws = clusters(size)

    found = ratio_inference(numerator, denominator, draws=draws).intervals

    for p in range(2):
        n, d = numerator[:, p], denominator[:, p]
        estimate, error = slow_error(n, d, np.ones(size))
        without = [(n.sum() - n[g]) / (d.sum() - d[g]) for g in range(size)]
        acceleration = slow_acceleration(scaled_influences(without))
        drawn = [slow_error(n, d, w) for w in rows(draws)]
        expected = slow_limits(estimate, error, drawn, acceleration)
        for name, value in expected.items():
            assert getattr(found, name)[p] == pytest.approx(value, rel=1e-9), name


def slow_crossed(by_word, denominator, w, u):
    """Ratio and standard error of one two-way draw, cell after cell."""
    size, n_words = by_word.shape
    means = [sum(u[j] * by_word[g, j] for j in range(n_words)) / n_words for g in range(size)]
    ratio, of_clusters = slow_error(means, denominator, w)
    below = w @ denominator
    sums = [sum(w[g] * by_word[g, j] for g in range(size)) for j in range(n_words)]
    middle = sum(u[j] * sums[j] for j in range(n_words)) / n_words
    spread = sum(u[j] * (sums[j] - middle) ** 2 for j in range(n_words))
    of_words = spread / (n_words * (n_words - 1)) / below**2
    return ratio, (of_clusters**2 + of_words) ** 0.5


def test_words_and_clusters_agree_with_a_plain_loop_over_the_same_draws():
    size, n_words = 9, 4
    rng = np.random.default_rng(1)
    numerator, denominator = example(size)
    by_word = numerator[:, None, :] + rng.normal(0, 0.1, (size, n_words, 2))
    by_word += rng.normal(0, 0.2, (1, n_words, 1))
    c, w = clusters(size, 200), words(n_words, 200)

    found = crossed_inference(by_word, denominator, clusters=c, words=w).intervals

    for p in range(2):
        y, d = by_word[:, :, p], denominator[:, p]
        estimate, error = slow_crossed(y, d, np.ones(size), np.ones(n_words))
        mean = y.mean(axis=1)
        no_cluster = [(mean.sum() - mean[g]) / (d.sum() - d[g]) for g in range(size)]
        no_word = [np.delete(y, j, axis=1).mean(axis=1).sum() / d.sum() for j in range(n_words)]
        acceleration = slow_acceleration(*map(scaled_influences, (no_cluster, no_word)))
        drawn = [slow_crossed(y, d, *pair) for pair in zip(rows(c), rows(w), strict=True)]
        expected = slow_limits(estimate, error, drawn, acceleration)
        for name, value in expected.items():
            assert getattr(found, name)[p] == pytest.approx(value, rel=1e-9), name


def test_scipy_agrees_when_each_cluster_is_one_sample():
    numerator, denominator = example(40, columns=1, seed=5)
    draws = clusters(40, draws=20_000)
    found = ratio_inference(numerator, denominator, draws=draws).intervals

    for method, prefix in (("percentile", "percentile_"), ("BCa", "bca_")):
        theirs = scipy.stats.bootstrap(
            (numerator[:, 0], denominator[:, 0]),
            lambda n, d, axis: n.sum(axis=axis) / d.sum(axis=axis),
            paired=True, vectorized=True, n_resamples=20_000, method=method,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        interval = theirs.confidence_interval
        # Two independent sets of draws: a tail quantile moves by about 2 % of a standard error.
        tolerance = 0.08 * theirs.standard_error
        assert getattr(found, f"{prefix}low")[0] == pytest.approx(interval.low, abs=tolerance)
        assert getattr(found, f"{prefix}high")[0] == pytest.approx(interval.high, abs=tolerance)


@given(st.integers(2, 12), st.floats(0.1, 3), st.integers(0, 1000))
@settings(max_examples=30)
def test_no_variance_gives_the_interval_x_x(size, ratio, seed):
    base = np.random.default_rng(seed).uniform(0.1, 3, (size, 1))
    w, c = words(3, 100), clusters(size, 100)

    one = ratio_inference(ratio * base, base, draws=c).intervals
    two = crossed_inference(
        np.repeat(ratio * base[:, None], 3, 1), base, clusters=c, words=w
    ).intervals

    for found in (one, two):
        limits = {float(x[0]) for name, x in found._asdict().items() if name != "standard_error"}
        assert limits == {float(found.estimate[0])}
        assert found.standard_error[0] == 0
        assert found.estimate[0] == pytest.approx(ratio)


@given(st.integers(3, 10), st.floats(0.5, 20), st.integers(0, 1000))
@settings(max_examples=30)
def test_limits_scale_with_the_numerators(size, factor, seed):
    numerator, denominator = example(size, seed=seed)
    draws = clusters(size, 100)

    base = ratio_inference(numerator, denominator, draws=draws).intervals
    scaled = ratio_inference(factor * numerator, denominator, draws=draws).intervals

    for before, after in zip(base, scaled, strict=True):
        np.testing.assert_allclose(after, factor * before, rtol=1e-9)


def test_many_columns_are_solved_as_one_by_one():
    numerator, denominator = example(8, columns=600)
    draws = clusters(8, 100)

    together = ratio_inference(numerator, denominator, draws=draws).intervals

    for p in (0, 255, 256, 599):
        alone = ratio_inference(numerator[:, [p]], denominator[:, [p]], draws=draws).intervals
        for many, one in zip(together, alone, strict=True):
            assert many[p] == pytest.approx(one[0], rel=1e-10)


def test_words_that_all_act_alike_add_nothing():
    numerator, denominator = example(12)
    by_word = np.repeat(numerator[:, None, :], 5, axis=1)

    one = ratio_inference(numerator, denominator, draws=clusters(12)).intervals
    two = crossed_inference(by_word, denominator, clusters=clusters(12), words=words(5)).intervals

    for single, crossed in zip(one, two, strict=True):
        np.testing.assert_allclose(crossed, single, rtol=1e-9)


def test_one_cluster_has_an_estimate_and_no_limits():
    found = ratio_inference(np.array([[1.0]]), np.array([[2.0]]), draws=clusters(1)).intervals

    assert found.estimate[0] == 0.5
    assert all(np.isnan(x[0]) for name, x in found._asdict().items() if name != "estimate")


def test_a_zero_denominator_is_undefined_and_not_an_error():
    found = ratio_inference(np.zeros((4, 1)), np.zeros((4, 1)), draws=clusters(4)).intervals

    assert all(np.isnan(x[0]) for x in found)


def test_draws_without_any_denominator_are_left_out():
    """Two of three clusters hold nothing: a draw of these two alone has no ratio."""
    base = np.array([[1.0], [0.0], [0.0]])

    found = ratio_inference(base / 2, base, draws=clusters(3)).intervals

    assert (found.low[0], found.high[0]) == (0.5, 0.5)


def test_one_unsteady_cluster_in_twenty_does_not_send_a_limit_away():
    """Most draws without it have next to no variance of their own."""
    rng = np.random.default_rng(0)
    numerator = 0.9 + rng.normal(0, 1e-4, (20, 1))
    numerator[0] = 0.1
    found = ratio_inference(numerator, np.ones((20, 1)), draws=clusters(20, 4000)).intervals

    # The exact 95 % limit for the share of unsteady clusters is 24.9 %.
    exact = 0.9 - 0.8 * scipy.stats.binomtest(1, 20).proportion_ci(method="exact").high
    assert found.low[0] == pytest.approx(exact, abs=0.03)
    assert found.percentile_low[0] > found.low[0]


def test_draws_of_other_clusters_are_refused():
    message = (
        "bootstrap: 5 clusters, but draws of 4 units. Both must be the same clusters. "
        "Make the draws from the names of these clusters."
    )
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        ratio_inference(np.ones((5, 1)), np.ones((5, 1)), draws=clusters(4))


def test_intervals_cover_a_skewed_ratio():
    """300 studies of 30 patients with 1 to 4 samples: the truth lies in about 95 % of intervals."""
    rng = np.random.default_rng(0)
    size, studies = 30, 300
    n = rng.integers(1, 5, (size, studies))
    base = n * rng.beta(8, 2, (size, studies))
    loss = rng.exponential(0.1, (size, studies))
    found = ratio_inference(base * (1 - loss), base, draws=clusters(size, 1000)).intervals

    covered = np.mean((found.low <= 0.9) & (found.high >= 0.9))
    covered90 = np.mean((found.low90 <= 0.9) & (found.high90 >= 0.9))
    percentile = np.mean((found.percentile_low <= 0.9) & (found.percentile_high >= 0.9))

    assert 0.92 <= covered <= 0.98
    assert 0.86 <= covered90 <= 0.95
    assert percentile <= covered


def test_two_way_intervals_cover_when_words_vary():
    """The same 12 words hit every cluster: resampling clusters alone would be far too sure."""
    rng = np.random.default_rng(1)
    size, n_words, studies = 25, 12, 200
    effects = rng.normal(0, 0.05, (1, n_words, studies))
    by_word = 0.8 + effects + rng.normal(0, 0.05, (size, n_words, studies))
    by_word += rng.normal(0, 0.05, (size, 1, studies))
    ones = np.ones((size, studies))

    two = crossed_inference(
        by_word, ones, clusters=clusters(size, 600), words=words(n_words, 600)
    ).intervals
    one = ratio_inference(by_word.mean(axis=1), ones, draws=clusters(size, 600)).intervals

    assert 0.91 <= np.mean((two.low <= 0.8) & (two.high >= 0.8)) <= 0.995
    assert np.mean((one.low <= 0.8) & (one.high >= 0.8)) < 0.85


names = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=12, unique=True)


def weights(draws):
    return np.vstack([block for _, block in draws.blocks()])


@given(names, st.integers(1, 50), st.integers(0, 5))
def test_each_draw_holds_as_many_units_as_there_are(units, count, seed):
    drawn = weights(cluster_draws("d/test", units, count=count, seed=seed))

    assert drawn.shape == (count, len(units))
    assert (drawn.sum(axis=1) == len(units)).all()
    assert (drawn >= 0).all()


@pytest.mark.parametrize("cells", [1, 7, 60, 10_000])
def test_the_block_size_does_not_change_a_draw(monkeypatch, cells):
    draws = cluster_draws("d/test", "abcdefg", count=50, seed=3)
    expected = weights(draws)

    monkeypatch.setattr(module, "_BLOCK_CELLS", cells)

    np.testing.assert_array_equal(weights(draws), expected)
    rows = [rows for rows, _ in draws.blocks()]
    assert rows[0].start == 0
    assert rows[-1].stop == 50


def test_draws_depend_on_seed_dataset_units_and_role_only():
    base = dict(count=200, seed=0)
    expected = weights(cluster_draws("d/test", "abcd", **base))

    np.testing.assert_array_equal(weights(cluster_draws("d/test", "abcd", **base)), expected)
    others = [
        cluster_draws("d/test", "abcd", count=200, seed=1),
        cluster_draws("e/test", "abcd", **base),
        cluster_draws("d/test", "abce", **base),
        cluster_draws("d/test", "abcd", **base, role="words"),
    ]
    for other in others:
        assert not np.array_equal(weights(other), expected)


def test_units_are_drawn_equally_often():
    drawn = weights(cluster_draws("d/test", "abcde", count=20_000, seed=0))

    # A count is binomial(5, 1/5): its mean has a standard error of 0.0063 here.
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(drawn.var(axis=0), 0.8, atol=0.05)


def test_known_draws():
    """Golden: a change here changes every published interval."""
    drawn = weights(cluster_draws("kvasir_polyp/test", ["a", "b", "c"], count=4, seed=0))

    assert drawn.tolist() == [[1, 0, 2], [1, 1, 1], [1, 1, 1], [0, 1, 2]]

"""Figures beside the relative change, against scipy and statsmodels and plain definitions."""

import numpy as np
import polars as pl
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.stats.effects import clustered_share, sign_flip_p, unit_figures, wilcoxon_p


@given(st.integers(5, 200), st.integers(0, 200))
def test_single_samples_have_clopper_pearson_limits(size, events):
    from statsmodels.stats.proportion import proportion_confint

    events = min(events, size)
    hits = np.zeros(size)
    hits[:events] = 1
    share, low, high = clustered_share(hits, np.ones(size))
    theirs = proportion_confint(events, size, method="beta")
    assert share == pytest.approx(events / size)
    assert (low, high) == pytest.approx(theirs, abs=1e-9)


def test_none_seen_is_not_none_there():
    share, low, high = clustered_share(np.zeros(40), np.full(40, 5.0))
    assert (share, low) == (0, 0)
    # 40 clusters, however many samples each: 1 - 0.025 ** (1 / 40).
    assert high == pytest.approx(1 - 0.025 ** (1 / 40))


def test_samples_that_agree_within_clusters_count_less():
    sizes = np.full(30, 10.0)
    whole = np.where(np.arange(30) < 6, 10.0, 0.0)
    spread = np.full(30, 2.0)
    spread[:10] += 1
    spread[10:20] -= 1
    _, low, high = clustered_share(whole, sizes)
    _, low_spread, high_spread = clustered_share(spread, sizes)
    assert high - low > 2 * (high_spread - low_spread)


def test_a_share_of_nothing_is_undefined():
    assert all(np.isnan(clustered_share(np.zeros(3), np.zeros(3))))


def test_limits_of_a_clustered_share_cover():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        sizes = rng.integers(1, 9, 40).astype(float)
        chance = rng.beta(0.2, 1.8, 40)
        events = rng.binomial(sizes.astype(int), chance).astype(float)
        _, low, high = clustered_share(events, sizes)
        covered += low <= 0.1 <= high
    assert 0.90 <= covered / 400 <= 0.99


def test_wilcoxon_is_scipys_and_knows_no_change():
    rng = np.random.default_rng(0)
    changes = rng.normal(0.1, 1, 60)
    assert wilcoxon_p(changes) == pytest.approx(scipy.stats.wilcoxon(changes).pvalue)
    assert wilcoxon_p(np.zeros(12)) == 1.0
    assert np.isnan(wilcoxon_p(np.array([])))


@given(st.integers(0, 1000))
@settings(max_examples=8)
def test_sign_flips_agree_with_scipy(seed):
    rng = np.random.default_rng(seed)
    changes = rng.normal(0.2, 1, (12, 1))
    theirs = scipy.stats.permutation_test(
        (changes[:, 0],), lambda x, axis: x.sum(axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=np.inf,
    )  # fmt: skip
    ours = sign_flip_p(changes, count=20_000, seed=0)
    assert ours[0] == pytest.approx(theirs.pvalue, abs=0.02)


def test_sign_flips_of_no_change_say_so():
    assert sign_flip_p(np.zeros((9, 2)), count=100, seed=0).tolist() == [1.0, 1.0]


def test_both_tests_keep_their_level_where_nothing_changes():
    rng = np.random.default_rng(0)
    changes = rng.standard_t(3, (25, 1000)) * 0.02
    flips = sign_flip_p(changes, count=1000, seed=0)
    ranks = np.array([wilcoxon_p(column) for column in changes.T[:400]])
    assert 0.03 <= np.mean(flips <= 0.05) <= 0.07
    assert 0.02 <= np.mean(ranks <= 0.05) <= 0.08


def test_each_cell_is_tested_on_its_own_units():
    units = pl.DataFrame(
        {"unit": range(5), "dataset": ["a"] * 3 + ["b"] * 2, "split": ["test"] * 5},
        schema_overrides={"unit": pl.UInt32},
    )
    rows = [(0, 0, -0.4), (0, 1, -0.3), (0, 2, -0.5), (1, 3, 0.1), (1, 4, -0.1)]
    sums = pl.DataFrame(
        [
            {"cell": c, "unit": u, "n": 1.0, "dice": 0.8 + d, "reference": 0.8}
            | {"catastrophic": float(d < -0.4), "n_catastrophic": 1.0}
            for c, u, d in rows
        ],
        schema_overrides={"cell": pl.UInt32, "unit": pl.UInt32},
    )
    found = unit_figures(sums, units, count=4000, seed=0).sort("cell")
    # Of 8 sign patterns 2 are as far out as all alike; of 4 all are.
    assert found["sign_flip_p"].to_list() == pytest.approx([0.25, 1.0], abs=0.03)
    assert found["catastrophic_share"].to_list() == pytest.approx([1 / 3, 0])

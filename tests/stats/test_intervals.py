"""The share of catastrophic drops, against statsmodels and plain definitions."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stats.intervals import catastrophic_shares, clustered_share


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


def test_each_cell_has_a_share_of_its_own():
    rows = [(0, 0, 0.0), (0, 1, 0.0), (0, 2, 1.0), (1, 3, 0.0), (1, 4, 0.0)]
    sums = pl.DataFrame(
        [{"cell": c, "unit": u, "catastrophic": e, "n_catastrophic": 1.0} for c, u, e in rows],
        schema_overrides={"cell": pl.UInt32, "unit": pl.UInt32},
    )
    found = catastrophic_shares(sums)
    assert found["cell"].to_list() == [0, 1]
    assert found["catastrophic_share"].to_list() == pytest.approx([1 / 3, 0])
    limits = [clustered_share(np.array(e), np.ones(len(e)))[1:] for e in ([0.0, 0, 1], [0.0, 0])]
    ends = found.select("catastrophic_share_low", "catastrophic_share_high").rows()
    assert ends == limits

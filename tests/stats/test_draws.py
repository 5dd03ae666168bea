"""Draws depend on seed and units, not on the block size or the figure they serve."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stats import draws as module
from harness.stats.draws import cluster_draws

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

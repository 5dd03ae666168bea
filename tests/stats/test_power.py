"""Power and sample size against statsmodels, and what words set a limit to."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.stats.power import (
    clusters_for_none,
    clusters_needed,
    degrees_of_freedom,
    planning_rows,
    power_of,
    smallest_effect,
)


@given(st.floats(0.1, 3), st.integers(5, 400))
@settings(max_examples=30)
def test_clusters_needed_are_those_of_the_paired_t_test(size, n_clusters):
    from statsmodels.stats.power import TTestPower

    error = 1 / math.sqrt(n_clusters)  # of a figure with standard deviation 1
    needed = clusters_needed(size, error, n_clusters=n_clusters)
    test = TTestPower()
    assert test.power(size, needed, 0.05) >= 0.8 - 1e-9
    assert needed <= 2 or test.power(size, needed - 1, 0.05) < 0.8 + 1e-9


@given(st.floats(0.05, 5), st.integers(20, 1000))
@settings(max_examples=30)
def test_the_smallest_effect_has_the_power_asked_for(error, n_clusters):
    effect = float(smallest_effect(error, n_clusters - 1))
    assert power_of(effect, error, n_clusters - 1) == pytest.approx(0.8, abs=0.005)
    assert clusters_needed(effect, error, n_clusters=n_clusters) == pytest.approx(
        n_clusters, abs=2 + 0.02 * n_clusters
    )


def test_words_that_vary_too_much_cannot_be_made_up_for_by_clusters():
    few = {"n_clusters": 50, "n_words": 10}
    assert clusters_needed(1.0, 1.2, word_error=1.0, **few) == math.inf
    assert clusters_for_none(2.0, 1.2, word_error=1.0, **few) == math.inf
    near = clusters_needed(5.0, 1.2, word_error=1.0, **few)
    assert 2 <= near < 50
    assert clusters_needed(0.0, 1.0, n_clusters=30) == math.inf


def test_no_change_is_shown_with_clusters_enough():
    """The textbook: n = ((z(1 - alpha) + z(1 - beta / 2)) s / margin)^2."""
    needed = clusters_for_none(2.0, 1.0, n_clusters=100)
    assert needed == pytest.approx(((1.645 + 1.282) * 10 / 2) ** 2, rel=0.02)
    assert clusters_for_none(2.0, 0.0, n_clusters=100) == 2


def test_degrees_of_freedom_lie_between_those_of_the_parts():
    clusters = degrees_of_freedom(2.0, 0.0, n_clusters=100, n_words=10)
    words = degrees_of_freedom(2.0, 2.0, n_clusters=100, n_words=10)
    both = degrees_of_freedom(2.0, 1.5, n_clusters=100, n_words=10)
    assert (float(clusters), float(words)) == pytest.approx((99, 9))
    assert 9 < float(both) < 99
    assert float(degrees_of_freedom(0.0, 0.0, n_clusters=20, n_words=0)) == 19


def test_power_without_variance_is_certain():
    assert power_of(1.0, 0.0, 19) == 1.0
    assert power_of(0.0, 0.0, 19) == 0.05
    assert power_of(1e9, 1.0, 19) == 1.0


def test_a_summary_becomes_a_plan_for_the_next_run(summary_of):
    figures = {
        "relative_change_standard_error_percent": 1.0,
        "relative_change_word_error_percent": 0.0,
    }
    summary = summary_of(
        {"probe": "original", **figures},
        {"probe": "swap", "attribute": "size", "n_clusters": 100, **figures},
        {"probe": "swap", "attribute": "color"},
        {"probe": "steady", "n_clusters": 100, **figures}
        | {"relative_change_standard_error_percent": 0.0},
    )
    rows = planning_rows(summary, effect=5.0, margin=2.0, power=0.8, least=20)
    assert [(r.probe, r.attribute) for r in rows] == [("swap", "size"), ("steady", None)]
    swap, steady = rows
    assert swap.smallest_effect == pytest.approx(2.83, abs=0.01)
    assert swap.clusters_for_effect == 34
    assert swap.clusters_for_none == pytest.approx(216, abs=3)
    # No variance at all: the number that a verdict needs remains.
    assert (steady.clusters_for_effect, steady.clusters_for_none) == (20, 20)
    assert swap.record()["n_clusters"] == 100


def test_never_is_a_word_in_json(summary_of):
    figures = {
        "relative_change_standard_error_percent": 3.0,
        "relative_change_word_error_percent": 3.0,
    }
    summary = summary_of({"probe": "random_word", "n_clusters": 100, "n_words": 10, **figures})
    (row,) = planning_rows(summary, effect=5.0, margin=2.0, power=0.8, least=20)
    assert row.record()["clusters_for_effect"] == "never"

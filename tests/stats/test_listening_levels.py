"""The level of the language verdict, to the digit: figures at a chosen distance from their bounds.

Every figure is normal around its estimate, so that a bound z standard errors away has the
one-sided p-value ``Phi(-z)``: 0.036 at 1.8, 0.023 at 2.0, 0.018 at 2.1, 0.008 at 2.4.
"""

import numpy as np
import polars as pl
import pytest
from scipy.special import ndtri

from harness.stats.inference import PIVOT_LEVELS, Inference, Intervals
from harness.stats.listening import language_verdicts
from harness.suite.schema import Statistics

SETTINGS = Statistics()
MARGIN = SETTINGS.margins.changed / 100
DICE = 0.8
FAR = 8.0


def solved(bound, errors, *, side):
    """Estimates that lie so many of their standard errors from a bound, to a side of it."""
    error = 0.01
    estimate = bound + side * error * np.asarray(errors, dtype=float)
    ends = [estimate + z * error for z in ndtri([0.025, 0.975, 0.05, 0.95])]
    limits = [*ends, *ends[:2], *ends[:2]]
    pivot = np.repeat(ndtri(PIVOT_LEVELS)[:, None], len(estimate), axis=1)
    ones = np.ones(len(estimate))
    intervals = Intervals(estimate, error * ones, *limits)
    return Inference(intervals, pivot, 1_000_000 * ones, 0 * ones, 0 * ones)


def evidence(*, named, n=1, clusters=50, few_named=None, **figures):
    """Of `n` attributes, all with the figures given; (bound, distance, side) each."""
    table = {q: solved(bound, [z] * n, side=side) for q, (bound, z, side) in figures.items()}
    for quantity in ("named_gain", "decisive"):
        table.setdefault(quantity, Inference.undefined(n))
    n_named = clusters if few_named is None else few_named
    rows = pl.DataFrame({"cell": range(n), "attribute": [f"a{k}" for k in range(n)]})
    same = dict.fromkeys(("model_id", "model", "dataset", "split", "prompts", "prompt_type"), "x")
    same |= {"probe": "antonym", "meaning": "changed", "reason": None, "text_shift": None}
    same |= {"reference_dice": DICE, "n_cases": clusters, "n_clusters": clusters}
    same |= dict.fromkeys(("n_samples_named", "n_clusters_named"), n_named * named)
    same |= {"originals_empty_share": 0.0, "relative_change_percent": 0.0}
    rows = rows.with_columns(pl.lit(v).alias(k) for k, v in same.items())
    same = {"n_samples_refusal": 0, "expected_mask": "named"}
    rows = rows.with_columns(pl.lit(v).alias(k) for k, v in same.items())
    (found,) = language_verdicts(rows, table, [], units=pl.DataFrame(), settings=SETTINGS)
    return found


def heard(*, gain=FAR, loss=FAR, moved=FAR, **more):
    """The state where targets are named; each argument is a distance beyond its bound."""
    found = evidence(
        named=True,
        relative=(1 - MARGIN, loss, -1),
        decisive=(1 - MARGIN, loss, -1),
        agreement=(0.95, moved, -1),
        named_gain=(MARGIN * DICE, gain, 1),
        **more,
    )
    return [e.state for e in found.evidence]


@pytest.mark.parametrize("condition", ["gain", "loss", "moved"])
def test_each_condition_of_being_heard_is_tested_at_two_and_a_half_percent(condition):
    """1.8 errors are 3.6 % on one side: too many, though fewer than 5."""
    assert heard(**{condition: 2.0}) == ["heard"]
    assert heard(**{condition: 1.8}) == ["unclear"]


def test_four_attributes_share_one_level():
    """Holm: of four equal p-values each must be below 5 / 4 %, two-sided."""
    assert heard(gain=2.4, n=4) == ["unclear"] * 4
    assert heard(gain=2.6, n=4) == ["heard"] * 4


def unnamed(*, change=(1 - MARGIN, FAR, 1), agreement=(0.95, FAR, 1), **more):
    found = evidence(named=False, relative=change, agreement=agreement, **more)
    return found.evidence[0].state


def test_two_ways_of_being_moved_share_one_level():
    """Either sign will do, so each is tested at 2.5 %, two-sided."""
    assert unnamed(change=(1 - MARGIN, 2.4, -1)) == "heard"
    assert unnamed(change=(1 - MARGIN, 2.1, -1)) == "unclear"
    assert unnamed(change=(1 + MARGIN, 2.4, 1)) == "heard", "more Dice is a change as well"
    still = (1.0, 0.0, 1)
    assert unnamed(change=still, agreement=(0.95, 2.4, -1)) == "heard"
    assert unnamed(change=still, agreement=(0.95, 2.1, -1)) == "unclear"


def test_unheard_is_an_equivalence_at_five_percent_and_a_mask_that_stays_at_two_and_a_half():
    assert unnamed(change=(1 - MARGIN, 1.7, 1)) == "unheard"
    assert unnamed(change=(1 - MARGIN, 1.6, 1)) == "unclear"
    still = (1.0, 0.0, 1)
    assert unnamed(change=still, agreement=(0.95, 2.0, 1)) == "unheard"
    assert unnamed(change=still, agreement=(0.95, 1.8, 1)) == "unclear"


def test_twenty_clusters_are_enough_and_nineteen_are_not():
    assert heard(clusters=20) == ["heard"]
    assert heard(clusters=19) == ["unclear"]
    assert heard(few_named=20) == ["heard"]
    assert heard(few_named=19) == ["unclear"]
    assert unnamed(clusters=19, change=(1.0, 0.0, 1)) == "unclear"
    assert unnamed(clusters=20, change=(1.0, 0.0, 1)) == "unheard"

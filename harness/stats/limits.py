"""From an estimate and its resampled copies to the limits of an interval.

Conventions: P problems stand in columns; draws are rows, ``(draws, P)``; NaN marks a
draw in which a ratio is undefined and is left out. Limits are 95 % unless their
name says 90.

References:
    B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 12-14.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness.stats.draws import Floats

LEAST_ERROR = 0.25
"""Smallest standard error of a draw, as a share of the sample's.

A draw that misses the few clusters that vary has next to no standard error of its
own and would send one end of the interval far away: with 1 unsteady cluster in 20,
more than every third draw is such a one. A quarter is where a draw without the only
unsteady cluster gives about the exact binomial limit; it does not bind when the
clusters vary alike.
"""

_TIE = 1e-9

_TAIL = np.geomspace(1e-4, 0.5, 121)
PIVOT_LEVELS = np.unique(np.concatenate([_TAIL, [0.025, 0.05], 1 - _TAIL, [0.95, 0.975]]))
"""Probabilities at which the distribution of the studentised draws is kept, ``(K,)``."""


class Intervals(NamedTuple):
    """Estimates with their limits, each ``(P,)``; limits are NaN where only one cluster is."""

    estimate: Floats
    standard_error: Floats
    low: Floats
    high: Floats
    low90: Floats
    high90: Floats
    percentile_low: Floats
    percentile_high: Floats
    bca_low: Floats
    bca_high: Floats


class Inference(NamedTuple):
    """Intervals with what a p-value needs besides: one and the same set of draws gives both.

    Attributes:
        intervals: Of P problems.
        pivot: Quantiles of the studentised draws at `PIVOT_LEVELS`, ``(K, P)``.
        n_draws: Draws in which the problem is defined, ``(P,)``.
        word_error: The words' part of the standard error, ``(P,)``; 0 where words are fixed.
    """

    intervals: Intervals
    pivot: Floats
    n_draws: Floats
    word_error: Floats


def inference_of(
    estimate: Floats,
    error: Floats,
    *,
    shifts: Floats,
    errors: Floats,
    acceleration: Floats,
    word_error: Floats | float = 0.0,
) -> Inference:
    """Studentised limits, with percentile and BCa limits beside them, and their pivot.

    Args:
        estimate: Estimates, ``(P,)``.
        error: Their standard errors, ``(P,)``.
        shifts: Estimates of the draws less the estimates, ``(draws, P)``.
        errors: Standard errors of the draws, ``(draws, P)``.
        acceleration: BCa's constant, ``(P,)``.
        word_error: The words' part of `error`.
    """
    least = np.where(error > 0, LEAST_ERROR * error, 1.0)
    # A draw that gives the estimate back does so up to rounding; BCa counts such ties.
    shifts = np.where(np.abs(shifts) <= _TIE * error, 0.0, shifts)
    t = np.sort(shifts / np.maximum(errors, least), axis=0)
    pivot = _quantiles(t, _levels(PIVOT_LEVELS, t))
    places = np.searchsorted(PIVOT_LEVELS, [0.025, 0.05, 0.95, 0.975])
    t_low, t_low90, t_high90, t_high = pivot[places]
    ordered = np.sort(shifts, axis=0)
    low, high = _quantiles(ordered, _levels([0.025, 0.975], ordered))
    bca_low, bca_high = _quantiles(ordered, _bca_levels(ordered, acceleration))
    offsets = [-t_high * error, -t_low * error, -t_high90 * error, -t_low90 * error]
    offsets += [low, high, bca_low, bca_high]
    # One cluster has no standard error, and resampling it moves nothing: no limit is known.
    limits = [np.where(np.isnan(error), np.nan, estimate + offset) for offset in offsets]
    n_draws = (~np.isnan(t)).sum(axis=0).astype(np.float64)
    words = np.broadcast_to(np.asarray(word_error, dtype=np.float64), estimate.shape)
    return Inference(Intervals(estimate, error, *limits), pivot, n_draws, words)


def acceleration_of(*influences: Floats) -> Floats:
    """BCa's acceleration from the influences of units, an array ``(units, P)`` for each factor."""
    cubes = np.sum([(u**3).sum(axis=0) for u in influences], axis=0)
    squares = np.sum([(u**2).sum(axis=0) for u in influences], axis=0)
    flat = squares == 0
    return np.asarray(np.where(flat, 0.0, cubes / np.where(flat, 1.0, 6 * squares**1.5)))


def _levels(probabilities: Sequence[float] | Floats, ordered: Floats) -> Floats:
    columns = ordered.shape[1]
    return np.repeat(np.asarray(probabilities)[:, None], columns, axis=1)


def _bca_levels(ordered: Floats, acceleration: Floats) -> Floats:
    """Probabilities whose quantiles are the BCa limits, ``(2, P)``; zero shift is the estimate."""
    from scipy.special import ndtr, ndtri

    valid = np.maximum((~np.isnan(ordered)).sum(axis=0), 1)
    below = ((ordered < 0).sum(axis=0) + (ordered <= 0).sum(axis=0)) / 2 / valid
    bias = ndtri(below)
    z = bias + ndtri(np.array([[0.025], [0.975]]))
    with np.errstate(invalid="ignore"):
        return np.asarray(ndtr(bias + z / (1 - acceleration * z)))


def _quantiles(ordered: Floats, probabilities: Floats) -> Floats:
    """Linear quantiles ``(k, P)`` of sorted columns, NaNs (sorted last) left out."""
    last = np.maximum((~np.isnan(ordered)).sum(axis=0) - 1, 0)
    place = np.where(np.isnan(probabilities), 0.0, probabilities) * last
    under = np.floor(place).astype(np.intp)
    over = np.minimum(under + 1, last)
    low = np.take_along_axis(ordered, under, axis=0)
    high = np.take_along_axis(ordered, over, axis=0)
    values = low + (high - low) * (place - under)
    return np.where(np.isnan(probabilities), np.nan, values)

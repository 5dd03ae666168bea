"""Differences between two models over the same clusters, with their intervals.

Conventions: a *problem* is one figure of both models over G clusters; problems stand in columns.
``new`` less ``old``: a negative difference is a loss. Clusters are resampled together, so
that what both models find hard in a cluster cancels.

References:
    B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 12-14.
"""

from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np

from harness.stats.draws import Draws, Floats
from harness.stats.limits import Inference, acceleration_of, inference_of

_COLUMNS = 64
_ROUNDING = 1e-12


class Ratio(NamedTuple):
    """A ratio of sums for P problems: numerator and denominator of each cluster, ``(G, P)``."""

    numerator: Floats
    denominator: Floats

    def columns(self, chosen: slice) -> "Ratio":
        """Some of the problems."""
        return Ratio(self.numerator[:, chosen], self.denominator[:, chosen])


def difference_inference(new: Ratio, old: Ratio, *, draws: Draws) -> Inference:
    """Intervals of the difference of two ratios of sums over the same clusters.

    The standard error is the linearised one with ``G / (G - 1)``, as that of one ratio is.

    Args:
        new: Of the model in question.
        old: Of the model it is compared with, same shape.
        draws: Of the G clusters.

    Returns:
        Intervals of the P differences ``new - old``.

    Raises:
        ValueError: The draws are those of another number of clusters.

    Example:
        >>> draws = Draws(("a", "b", "c"), count=100, seed=0)
        >>> ones = np.ones((3, 1))
        >>> new, old = Ratio(0.5 * ones, ones), Ratio(0.75 * ones, ones)
        >>> difference_inference(new, old, draws=draws).intervals.high
        array([-0.25])
    """
    if len(new.numerator) != len(draws.units):
        raise ValueError(
            f"paired: {len(new.numerator)} clusters, but draws of {len(draws.units)} units. Both "
            "must be the same clusters. Make the draws from the names of these clusters."
        )
    starts = range(0, new.numerator.shape[1], _COLUMNS)
    chunks = [slice(start, start + _COLUMNS) for start in starts]
    parts = [_difference(new.columns(c), old.columns(c), draws) for c in chunks]
    limits = zip(*(part.intervals for part in parts), strict=True)
    others = zip(*(part[1:] for part in parts), strict=True)
    intervals = type(parts[0].intervals)(*(np.concatenate(column) for column in limits))
    return Inference(intervals, *(np.concatenate(column, axis=-1) for column in others))


class _Linear(NamedTuple):
    estimate: Floats
    total: Floats
    residual: Floats


def _linear(one: Ratio) -> _Linear:
    total = one.denominator.sum(axis=0)
    total = np.where(total > 0, total, np.nan)
    estimate = one.numerator.sum(axis=0) / total
    return _Linear(estimate, total, one.numerator - estimate * one.denominator)


def _difference(new: Ratio, old: Ratio, draws: Draws) -> Inference:
    a, b = _linear(new), _linear(old)
    influence = a.residual / a.total - b.residual / b.total
    scale = np.abs(a.residual / a.total).max(axis=0) + np.abs(b.residual / b.total).max(axis=0)
    scale = scale + (np.abs(a.estimate) + np.abs(b.estimate)) / len(influence)
    # What rounding leaves of "no variance" would be studentised into an interval of its own.
    flat = np.abs(influence).max(axis=0) <= _ROUNDING * scale
    influence = np.where(flat, 0.0, influence)
    shifts, errors = _draws(new, old, a, b, draws)
    size = len(influence)
    correction = size / (size - 1) if size > 1 else np.nan
    return inference_of(
        a.estimate - b.estimate,
        np.sqrt(correction * (influence**2).sum(axis=0)),
        shifts=np.where(flat, 0.0, shifts),
        errors=np.sqrt(correction) * errors,
        acceleration=acceleration_of(influence),
    )


def _draws(new: Ratio, old: Ratio, a: _Linear, b: _Linear, draws: Draws) -> tuple[Floats, Floats]:
    """Shifts of the difference and the root of its summed squares, ``(draws, P)`` each."""
    features = [a.residual, new.denominator, b.residual, old.denominator]
    pairs = list(combinations_with_replacement(range(4), 2))
    sums = np.hstack([*features, *(features[i] * features[j] for i, j in pairs)])
    shifts, errors = np.empty((2, draws.count, new.numerator.shape[1]))
    for rows, weights in draws.blocks():
        r, d, q, e, *products = np.split(weights @ sums, 4 + len(pairs), axis=1)
        d, e = np.where(d > 0, d, np.nan), np.where(e > 0, e, np.nan)
        up, down = r / d, q / e
        shifts[rows] = up - down
        # A cluster's influence around the draw's own difference is linear in the features.
        form = (1 / d, -up / d, -1 / e, down / e)
        square = np.zeros_like(r)
        for (i, j), product in zip(pairs, products, strict=True):
            square += (1 if i == j else 2) * form[i] * form[j] * product
        errors[rows] = np.sqrt(np.maximum(square, 0))
    return shifts, errors

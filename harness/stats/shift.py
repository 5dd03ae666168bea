"""Out of distribution: the change of Dice from the sets a model was trained on to the others.

Conventions: a *set* is (dataset, split, prompts, prompt type) of a run. The change
is relative to the unweighted mean of the in-distribution sets' mean Dice, original
prompts only, as a fraction. Clusters of each set are resampled independently of the
other sets; all models that are compared share the draws, so differences are paired.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness.stats.draws import Draws, Floats
from harness.stats.limits import Intervals, acceleration_of, inference_of

_NO_ERROR = 1e-7


class ShiftSet(NamedTuple):
    """One set, for M models: how many samples and how much Dice each cluster holds.

    Attributes:
        draws: Of its G clusters.
        counts: Samples with a Dice, ``(G, M)``.
        sums: Sum of their Dice, ``(G, M)``.
    """

    draws: Draws
    counts: Floats
    sums: Floats


class ShiftIntervals(NamedTuple):
    """Results of one comparison, fields of `Intervals` each with shape ``(M,)``.

    `harmonic` is the harmonic mean of a model's Dice on the target and on the reference;
    `beyond` is its change less the mean change of the controls, NaN without controls.
    """

    target: Intervals
    reference: Intervals
    points: Intervals
    harmonic: Intervals
    relative: Intervals
    control: Intervals
    beyond: Intervals


def shift_intervals(
    target: ShiftSet, references: Sequence[ShiftSet], *, controls: Sequence[int] = ()
) -> ShiftIntervals:
    """Compare one set with the sets of training, for several models at once.

    Args:
        target: The set away from training.
        references: Test sets of the training data; at least one.
        controls: Which of the M models are controls.

    Raises:
        ValueError: There is no reference.

    Example:
        >>> from harness.stats.draws import cluster_draws
        >>> draws = [cluster_draws(d, "abc", count=100, seed=0) for d in ("in", "out")]
        >>> ones = np.ones((3, 1))
        >>> inside, away = (ShiftSet(d, ones, s * ones) for d, s in zip(draws, (0.8, 0.4)))
        >>> shift_intervals(away, [inside]).relative.estimate
        array([-0.5])
    """
    if not references:
        raise ValueError(
            "shift: no set of the training data. At least one is needed. Name its reason instead."
        )
    sets = [target, *references]
    n_models = target.counts.shape[1]
    mean = np.full((n_models, n_models), 0.0 if controls else np.nan)
    mean[:, list(controls)] = 1 / max(len(controls), 1)
    contrasts = np.vstack([mean, np.eye(n_models) - mean])
    whole = _rows([_moments(s, np.ones((1, len(s.counts)))) for s in sets], contrasts)
    drawn = _rows([_resampled(s) for s in sets], contrasts)
    estimate = whole.values[0]
    influences = [_features(s) @ c[0].T for s, c in zip(sets, whole.forms, strict=True)]
    solved = inference_of(
        estimate,
        _errors(sets, whole)[0],
        shifts=drawn.values - estimate,
        errors=_errors(sets, drawn),
        acceleration=acceleration_of(*influences),
    ).intervals
    parts = [np.split(field, len(ShiftIntervals._fields)) for field in solved]
    return ShiftIntervals(*(Intervals(*fields) for fields in zip(*parts, strict=True)))


class _Moments(NamedTuple):
    """Sums over a set's resampled clusters of x = (counts, sums) and of x x', q = 2 M."""

    first: Floats  # (draws, q)
    second: Floats  # (draws, q, q)


class _Rows(NamedTuple):
    """All quantities of all models as R rows, and their linearisation in each set."""

    values: Floats  # (draws, R)
    forms: list[Floats]  # (draws, R, q) for each set: a cluster's influence is form . x
    moments: list[_Moments]


def _features(one: ShiftSet) -> Floats:
    return np.hstack([one.counts, one.sums])


def _moments(one: ShiftSet, weights: Floats) -> _Moments:
    x = _features(one)
    size, q = x.shape
    products = (x[:, :, None] * x[:, None, :]).reshape(size, q * q)
    return _Moments(weights @ x, (weights @ products).reshape(-1, q, q))


def _resampled(one: ShiftSet) -> _Moments:
    blocks = [_moments(one, weights) for _, weights in one.draws.blocks()]
    return _Moments(*(np.concatenate(part) for part in zip(*blocks, strict=True)))


def _rows(moments: list[_Moments], contrasts: Floats) -> _Rows:
    means = [_set_means(m) for m in moments]
    away, inside = means[0], np.mean(means[1:], axis=0)
    inside_or_none = np.where(inside > 0, inside, np.nan)
    change = away / inside_or_none - 1
    both = away + inside_or_none
    values = [away, inside, away - inside, 2 * away * inside / both, change, change @ contrasts.T]
    one, none, slope = np.ones_like(away), np.zeros_like(away), (1 + change) / inside
    # Derivatives of target, reference, points, harmonic mean and relative change, by the
    # target's and by a reference's mean.
    by_away = [one, none, one, 2 * (inside / both) ** 2, 1 / inside]
    inner = (none, one, -one, 2 * (away / both) ** 2, -slope)
    by_inside = [g / (len(means) - 1) for g in inner]
    gradients = [by_away] + [by_inside] * (len(means) - 1)
    triples = zip(moments, means, gradients, strict=True)
    forms = [_forms(m.first, mean, g, contrasts) for m, mean, g in triples]
    return _Rows(np.hstack(values), forms, moments)


def _set_means(moments: _Moments) -> Floats:
    counts, sums = np.split(moments.first, 2, axis=1)
    return np.asarray(sums / np.where(counts > 0, counts, np.nan))


def _forms(first: Floats, mean: Floats, gradients: list[Floats], contrasts: Floats) -> Floats:
    """Coefficients ``(draws, R, q)`` of a cluster's x in its influence on each row."""
    n_models = mean.shape[1]
    counts = first[:, :n_models]
    eye = np.eye(n_models)
    rows = []
    for gradient in gradients:
        by_sum = gradient / np.where(counts > 0, counts, np.nan)
        form = [(-by_sum * mean)[:, :, None] * eye, by_sum[:, :, None] * eye]
        rows.append(np.concatenate(form, axis=2))
    return np.concatenate([*rows, contrasts @ rows[-1]], axis=1)


def _errors(sets: Sequence[ShiftSet], rows: _Rows) -> Floats:
    """Standard errors ``(draws, R)``; NaN when a set has one cluster only."""
    square = np.zeros_like(rows.values)
    for one, form, moments in zip(sets, rows.forms, rows.moments, strict=True):
        size = len(one.counts)
        correction = size / (size - 1) if size > 1 else np.nan
        square += correction * ((form @ moments.second) * form).sum(axis=2)
    # Without variance, sums of squares leave a rest of this size when they cancel.
    return np.sqrt(np.where(square < _NO_ERROR**2, 0.0, square))

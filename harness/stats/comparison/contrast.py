"""Confidence intervals of the difference of two models over the same clusters.

Two models that saw the same cases are resampled together: what a cluster, or a word, does to
both of them cancels. A difference of means over the same samples is the special case of equal
denominators.

Conventions: a *problem* is ``first - second``, two ratios ``sum(numerator) / sum(denominator)``
over the same G clusters; problems stand in columns. The studentised interval is the one to
read, as in `harness.stats.bootstrap`; exchanging the two ratios turns every limit's sign. Figures
over the same clusters share one resampling. Differences resample words where a figure has them; a
model's own figure and its originals' Dice resample clusters alone.

References:
    B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 12-14.
    A. B. Owen, The pigeonhole bootstrap, Ann. Appl. Stat. 1(2):386-411, 2007.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from harness.stats.bootstrap import (
    Draws,
    Ratios,
    correction,
    joined,
    ratio_inference,
    word_square,
)
from harness.stats.comparison.common import Figure
from harness.stats.inference import Floats, Inference, Intervals, acceleration_of, inference_of
from harness.stats.intervals import unit_draws, word_draws

_ROUNDING = 1e-12
_COLUMNS = 64


def difference_inference(
    first: Ratios, second: Ratios, *, draws: Draws, words: Draws | None = None
) -> Inference:
    """Intervals of ``first - second`` when clusters, or clusters and words, are resampled.

    Raises:
        ValueError: The two are not of one shape, or the draws are of other clusters.

    Example:
        >>> draws = Draws(("a", "b", "c"), count=100, seed=0)
        >>> ones = np.ones((3, 1))
        >>> first, second = Ratios(0.5 * ones, ones), Ratios(0.2 * ones, ones)
        >>> found = difference_inference(first, second, draws=draws)
        >>> found.intervals.high.round(3)
        array([0.3])
    """
    shapes = {(one.numerator.shape, one.denominator.shape) for one in (first, second)}
    if len(shapes) > 1 or len(first.denominator) != len(draws.units):
        raise ValueError(
            f"difference: ratios of the shapes {sorted(shapes)}, and draws of {len(draws.units)} "
            "units. Both must be over the same clusters and words. Keep the common ones first."
        )
    parts = []
    for start in range(0, first.denominator.shape[1], _COLUMNS):
        one, other = (_Side.of(side, slice(start, start + _COLUMNS)) for side in (first, second))
        solved = (
            _one_way(one, other, draws) if words is None else _two_way(one, other, draws, words)
        )
        parts.append(solved)
    return joined(parts)


class _Side(NamedTuple):
    """One of the two ratios, linearised: residuals are ``numerator - ratio * denominator``."""

    estimate: Floats  # (P,)
    total: Floats  # (P,)
    residual: Floats  # (G, P), the mean over words
    by_word: Floats  # (G, m, P)
    denominator: Floats  # (G, P)

    @classmethod
    def of(cls, one: Ratios, columns: slice) -> "_Side":
        below = one.denominator[:, columns]
        above = one.numerator[..., columns]
        above = above[:, None, :] if above.ndim == 2 else above
        total = below.sum(axis=0)
        total = np.where(total > 0, total, np.nan)
        estimate = above.mean(axis=1).sum(axis=0) / total
        by_word = above - (estimate * below)[:, None, :]
        return cls(estimate, total, by_word.mean(axis=1), by_word, below)


def _influence(first: _Side, second: _Side) -> Floats:
    """What each cluster adds to the difference, ``(G, P)``; a rest of rounding is none."""
    parts = first.residual / first.total, second.residual / second.total
    scale = sum(
        np.abs(s.residual + s.estimate * s.denominator).max(axis=0) / s.total
        for s in (first, second)
    )
    found = parts[0] - parts[1]
    return np.where(np.abs(found).max(axis=0) <= _ROUNDING * scale, 0.0, found)


def _one_way(first: _Side, second: _Side, draws: Draws) -> Inference:
    x = np.stack(
        [first.residual, first.denominator, second.residual, second.denominator], axis=1
    )  # (G, 4, P)
    size, _, columns = x.shape
    places = [(i, j) for i in range(4) for j in range(i, 4)]
    features = np.concatenate([x, np.stack([x[:, i] * x[:, j] for i, j in places], 1)], axis=1)
    features = features.reshape(size, -1)
    shifts, errors = np.empty((2, draws.count, columns))
    for rows, weights in draws.blocks():
        sums = (weights @ features).reshape(len(weights), -1, columns)  # (draws, 14, P)
        r, d, s, e = sums[:, :4].swapaxes(0, 1)
        d, e = np.where(d > 0, d, np.nan), np.where(e > 0, e, np.nan)
        form = [1 / d, -r / d**2, -1 / e, s / e**2]
        # Variance around the draw's own ratios: cancellation may leave a negative rest.
        square = sum(
            (1 if i == j else 2) * form[i] * form[j] * sums[:, 4 + k]
            for k, (i, j) in enumerate(places)
        )
        shifts[rows] = r / d - s / e
        errors[rows] = np.sqrt(correction(size) * np.maximum(square, 0))
    influence = _influence(first, second)
    return inference_of(
        first.estimate - second.estimate,
        np.sqrt(correction(size) * (influence**2).sum(axis=0)),
        shifts=shifts,
        errors=errors,
        acceleration=acceleration_of(influence),
    )


def _two_way(first: _Side, second: _Side, draws: Draws, words: Draws) -> Inference:
    size, n_words, columns = first.by_word.shape
    picked = np.vstack([weights for _, weights in words.blocks()])
    shifts, errors = np.empty((2, draws.count, columns))
    for rows, weights in draws.blocks():
        for p in range(columns):
            shift, error = _crossed_block(weights, picked[rows], first, second, p)
            shifts[rows, p], errors[rows, p] = shift, error
    influence = _influence(first, second)
    effects = first.by_word.sum(axis=0) / first.total - second.by_word.sum(axis=0) / second.total
    effects = effects - effects.mean(axis=0)  # (m, P)
    still = np.abs(effects).max(axis=0) <= _ROUNDING
    effects = np.where(still, 0.0, effects)
    of_words = word_square(effects.T**2)
    return inference_of(
        first.estimate - second.estimate,
        np.sqrt(correction(size) * (influence**2).sum(axis=0) + of_words),
        shifts=shifts,
        errors=errors,
        acceleration=acceleration_of(influence, effects / n_words),
        word_error=np.sqrt(of_words),
    )


def _crossed_block(
    w: Floats, u: Floats, first: _Side, second: _Side, p: int
) -> tuple[Floats, Floats]:
    """One problem: weights of clusters ``(draws, G)`` and words ``(draws, m)``."""
    n_words = u.shape[1]
    shift, influence, effects = np.zeros(len(w)), np.zeros_like(w), np.zeros_like(u)
    for sign, side in ((1, first), (-1, second)):
        residual, below = side.by_word[:, :, p], side.denominator[:, p]  # (G, m), (G,)
        total = w @ below
        total = np.where(total > 0, total, np.nan)
        by_word = (w @ residual) / total[:, None]  # (draws, m)
        own = (by_word * u).sum(axis=1) / n_words  # shift of this side's ratio
        influence += sign * (u @ residual.T / n_words - own[:, None] * below) / total[:, None]
        effects += sign * by_word
        shift += sign * own
    square = np.einsum("dg,dg->d", w, influence**2)
    spread = word_square(u * (effects - shift[:, None]) ** 2)
    return shift, np.sqrt(correction(w.shape[1]) * square + spread)


class Solution(NamedTuple):
    """What is known of one figure."""

    differences: Inference  # a problem for each pair
    own: Intervals  # a problem for each model
    references: Intervals  # mean Dice of the originals, a problem for each model


def solutions(
    figures: Sequence[Figure],
    units: pl.DataFrame,
    *,
    pairs: Sequence[tuple[int, int]],
    count: int,
    seed: int,
) -> list[Solution]:
    """A solution for each figure."""
    found: dict[int, Solution] = {}
    groups: dict[tuple[bytes, tuple[str, ...]], list[int]] = {}
    for place, figure in enumerate(figures):
        groups.setdefault((figure.units.tobytes(), figure.words), []).append(place)
    for places in groups.values():
        group = [figures[p] for p in places]
        first = group[0]
        clusters = unit_draws(units, first.units, count=count, seed=seed)
        words = word_draws(first.words, count=count, seed=seed) if first.words else None
        found |= dict(zip(places, _solved(group, pairs, clusters, words), strict=True))
    return [found[place] for place in range(len(figures))]


def _solved(
    group: Sequence[Figure],
    pairs: Sequence[tuple[int, int]],
    clusters: Draws,
    words: Draws | None,
) -> list[Solution]:
    first, second = (
        _side_by_side([figure.sides[pair[k]] for figure in group for pair in pairs]) for k in (0, 1)
    )
    differences = difference_inference(first, second, draws=clusters, words=words)
    plain = [_without_words(side) for figure in group for side in figure.sides]
    references = [side for figure in group for side in figure.references]
    alone = _side_by_side([*plain, *references])
    single = ratio_inference(*alone, draws=clusters).intervals
    n_models = len(group[0].sides)
    found = []
    for k in range(len(group)):
        own, reference = (
            slice(start + k * n_models, start + (k + 1) * n_models) for start in (0, len(plain))
        )
        of_pairs = slice(k * len(pairs), (k + 1) * len(pairs))
        found.append(Solution(differences.part(of_pairs), single.part(own), single.part(reference)))
    return found


def _side_by_side(sides: Sequence[Ratios]) -> Ratios:
    above, below = (np.concatenate(parts, axis=-1) for parts in zip(*sides, strict=True))
    return Ratios(above, below)


def _without_words(side: Ratios) -> Ratios:
    above: Floats = side.numerator
    return Ratios(above.mean(axis=1) if above.ndim == 3 else above, side.denominator)

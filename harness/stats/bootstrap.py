"""Bootstrap intervals of ratios of sums, resampling clusters, or clusters and words.

A mean over samples is a ratio of sums too (its denominators are the clusters'
numbers of samples), so every interval of a report comes from here.

Conventions: weights of draws are float64 counts ``(draws, units)``; each row sums to the
number of units. They depend on the seed and on the names of the units, on nothing else: every
figure over the same clusters shares its draws, so differences between models and probes are
paired. A *problem* is one ratio ``sum(numerator) / sum(denominator)`` over G clusters;
problems stand in columns. All results have shape ``(P,)``. The interval proper is the
studentised one; percentile and BCa stand beside it for comparison.

References:
    B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 12-14.
    A. B. Owen, The pigeonhole bootstrap, Ann. Appl. Stat. 1(2):386-411, 2007.
"""

import hashlib
import os
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from harness.errors import UsageError
from harness.stats.inference import Floats, Inference, Intervals, acceleration_of, inference_of

_BLOCK_CELLS = 400_000
"""Weights held at once: 3 MB a block, whatever the number of clusters."""


@dataclass(frozen=True, slots=True)
class Draws:
    """Resamplings with replacement of named, independent units."""

    units: tuple[str, ...]  # names, without repetition; their order is that of the weights' columns
    count: int  # how many resampled data sets
    seed: int  # non-negative

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Rows of the weight matrix, a block at a time, the same on every call.

        The rows' place among all draws, and their weights ``(rows, units)``.
        """
        size = len(self.units)
        rows = max(1, _BLOCK_CELLS // max(size, 1))
        rng = np.random.Generator(np.random.PCG64(self._entropy()))
        for start in range(0, self.count, rows):
            stop = min(start + rows, self.count)
            yield slice(start, stop), _multinomial(rng, stop - start, size)

    def _entropy(self) -> np.random.SeedSequence:
        digest = hashlib.blake2b("\0".join(self.units).encode(), digest_size=16).digest()
        return np.random.SeedSequence([self.seed, *np.frombuffer(digest, dtype="<u4").tolist()])


def cluster_draws(
    dataset: str, clusters: Sequence[str], *, count: int, seed: int, role: str = "clusters"
) -> Draws:
    """Draws of one dataset's clusters; those of another dataset are independent of them.

    Equal cluster names of two sets (dataset and split) are two units, and so are units of two
    roles: words and clusters never share draws.
    """
    names = tuple(f"{role}\x1f{dataset}\x1f{name}" for name in clusters)
    return Draws(names, count=count, seed=seed)


def _multinomial(rng: np.random.Generator, rows: int, size: int) -> Floats:
    picks = rng.integers(0, size, size=(rows, size))
    picks += size * np.arange(rows)[:, None]
    counts = np.bincount(picks.ravel(), minlength=rows * size)
    return counts.reshape(rows, size).astype(np.float64)


_ROUNDING = 1e-12
_COLUMNS = 256
_CROSSED_COLUMNS = 64


class Ratios(NamedTuple):
    """P ratios over G clusters."""

    # Sum of each cluster, ``(G, P)``; with words of each cluster for each word, ``(G, m, P)``: the
    # ratio takes their mean.
    numerator: Floats
    denominator: Floats  # sum of each cluster, ``(G, P)``, not negative


def ratio_inference(numerator: Floats, denominator: Floats, *, draws: Draws) -> Inference:
    """Intervals of ``sum(numerator) / sum(denominator)`` when clusters are resampled.

    The standard error is the linearised one with ``G / (G - 1)``. Numerators that are
    an exact multiple of their denominators have the interval ``[x, x]``.

    Numerator and denominator are sums of each cluster, ``(G, P)``, as in `Ratios`.

    Raises:
        ValueError: The draws are those of another number of clusters.

    Example:
        >>> draws = Draws(("a", "b", "c"), count=100, seed=0)
        >>> ones = np.ones((3, 1))
        >>> ratio_inference(0.5 * ones, ones, draws=draws).intervals.high
        array([0.5])
    """
    _check(denominator, draws)
    starts = range(0, denominator.shape[1], _COLUMNS)
    chunks = [slice(start, start + _COLUMNS) for start in starts]
    return joined([_one_way(numerator[:, c], denominator[:, c], draws) for c in chunks])


def crossed_inference(
    numerator: Floats, denominator: Floats, *, clusters: Draws, words: Draws
) -> Inference:
    """Intervals when clusters and words are both samples of larger populations.

    Both are resampled, independently (pigeonhole bootstrap). The squared standard
    error adds the clusters' and the words' components; what single (cluster, word)
    cells vary is in both, which errs on the safe side.

    The numerator is ``(G, m, P)``, m >= 2, the denominator ``(G, P)``, as in `Ratios`; there are as
    many draws of the words as of the clusters.

    Raises:
        ValueError: The draws are those of another number of clusters.
    """
    _check(denominator, clusters)
    starts = range(0, denominator.shape[1], _CROSSED_COLUMNS)
    chunks = [slice(start, start + _CROSSED_COLUMNS) for start in starts]

    def solve(c: slice) -> Inference:
        return _two_way(numerator[..., c], denominator[:, c], clusters, words)

    from threadpoolctl import threadpool_limits

    # Matrices here are too narrow for the threads of a BLAS, which would wait for each other in
    # every one of ours; numpy lets go of the lock.
    limits = threadpool_limits(1, user_api="blas")
    with limits, ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return joined(list(pool.map(solve, chunks)))


class _Linearised(NamedTuple):
    estimate: Floats
    total: Floats
    residual: Floats


def _linearised(numerator: Floats, denominator: Floats) -> _Linearised:
    """Ratios, their denominators and the residuals ``numerator - ratio * denominator``."""
    total = denominator.sum(axis=0)
    total = np.where(total > 0, total, np.nan)
    estimate = numerator.sum(axis=0) / total
    residual = numerator - estimate * denominator
    scale = np.abs(numerator).max(axis=0) + np.abs(estimate) * denominator.max(axis=0)
    # What rounding leaves of "no variance" would be studentised into an interval of its own.
    flat = np.abs(residual).max(axis=0) <= _ROUNDING * scale
    return _Linearised(estimate, total, np.where(flat, 0.0, residual))


def _one_way(numerator: Floats, denominator: Floats, draws: Draws) -> Inference:
    estimate, total, residual = _linearised(numerator, denominator)
    products = [denominator, residual, residual**2, residual * denominator, denominator**2]
    sums = np.hstack(products)
    factor = correction(len(denominator))
    shifts, errors = np.empty((2, draws.count, denominator.shape[1]))
    for rows, weights in draws.blocks():
        below, r, rr, rd, dd = np.split(weights @ sums, 5, axis=1)
        below = np.where(below > 0, below, np.nan)
        shift = shifts[rows] = r / below
        # Variance around the draw's own ratio: cancellation may leave a negative rest.
        square = np.maximum(rr - 2 * shift * rd + shift**2 * dd, 0)
        errors[rows] = np.sqrt(factor * square) / below
    return inference_of(
        estimate,
        np.sqrt(factor * (residual**2).sum(axis=0)) / total,
        shifts=shifts,
        errors=errors,
        acceleration=acceleration_of(_jackknife(residual, denominator)),
    )


def _two_way(numerator: Floats, denominator: Floats, clusters: Draws, words: Draws) -> Inference:
    n_words = numerator.shape[1]
    estimate, total, residual = _linearised(numerator.mean(axis=1), denominator)
    by_word = numerator - (estimate * denominator)[:, None, :]  # its mean over words: residual
    flat = np.abs(by_word).max(axis=(0, 1)) <= _ROUNDING * np.abs(numerator).max(axis=(0, 1))
    by_word = np.where(flat, 0.0, by_word)
    shifts, errors = _crossed_draws(by_word, denominator, clusters, words)
    effects = by_word.sum(axis=0)
    effects -= effects.mean(axis=0)
    of_words = word_square(effects.T**2)
    square = correction(len(residual)) * (residual**2).sum(axis=0) + of_words
    return inference_of(
        estimate,
        np.sqrt(square) / total,
        shifts=shifts,
        errors=errors,
        acceleration=acceleration_of(_jackknife(residual, denominator), effects / n_words / total),
        word_error=np.sqrt(of_words) / total,
    )


def _crossed_draws(
    by_word: Floats, denominator: Floats, clusters: Draws, words: Draws
) -> tuple[Floats, Floats]:
    """Shifts and standard errors, ``(draws, P)`` each."""
    columns = denominator.shape[1]
    picked = np.vstack([weights for _, weights in words.blocks()])
    shifts, errors = np.empty((2, clusters.count, columns))
    for rows, weights in clusters.blocks():
        for p in range(columns):
            shift, error = _crossed_block(
                weights, picked[rows], by_word[:, :, p], denominator[:, p]
            )
            shifts[rows, p], errors[rows, p] = shift, error
    return shifts, errors


def _crossed_block(
    w: Floats, u: Floats, by_word: Floats, denominator: Floats
) -> tuple[Floats, Floats]:
    """One problem: weights of clusters ``(draws, G)`` and words ``(draws, m)``."""
    n_words = by_word.shape[1]
    sums = w @ np.column_stack(
        [by_word, by_word * denominator[:, None], denominator, denominator**2]
    )
    by_cluster = u @ by_word.T  # (draws, G), n_words times a draw's residuals
    square = np.einsum("dg,dg->d", w, np.square(by_cluster, out=by_cluster)) / n_words**2
    below, below_square = sums[:, -2], sums[:, -1]
    below = np.where(below > 0, below, np.nan)
    effects, products = sums[:, :n_words], sums[:, n_words:-2]  # (draws, m)
    total = np.einsum("dm,dm->d", effects, u) / n_words
    shift = total / below
    square += shift**2 * below_square
    square -= 2 * shift * np.einsum("dm,dm->d", products, u) / n_words
    spread = word_square(u * (effects - total[:, None]) ** 2)
    return shift, np.sqrt(correction(w.shape[1]) * np.maximum(square, 0) + spread) / below


def word_square(squares: Floats) -> Floats:
    """Squared standard error of a mean over words from squared deviations ``(..., m)``."""
    n_words = squares.shape[-1]
    return np.asarray(squares.sum(axis=-1) / (n_words * (n_words - 1)))


def _jackknife(residual: Floats, denominator: Floats) -> Floats:
    """Influence of each cluster on its ratio by leaving it out, ``(G, P)``."""
    size = len(residual)
    with np.errstate(invalid="ignore", divide="ignore"):
        without = -residual / (denominator.sum(axis=0) - denominator)
        return np.asarray((without.mean(axis=0) - without) * (size - 1) / size)


def correction(size: int) -> float:
    """What makes a variance over so many clusters unbiased; NaN for one."""
    return size / (size - 1) if size > 1 else np.nan


def _check(denominator: Floats, draws: Draws) -> None:
    if len(denominator) != len(draws.units):
        raise ValueError(
            f"bootstrap: {len(denominator)} clusters, but draws of {len(draws.units)} units. "
            "Both must be the same clusters. Make the draws from the names of these clusters."
        )


def joined(parts: list[Inference]) -> Inference:
    """Chunks of problems, one after another."""
    limits = zip(*(part.intervals for part in parts), strict=True)
    others = zip(*(part[1:] for part in parts), strict=True)
    intervals = Intervals(*(np.concatenate(column) for column in limits))
    return Inference(intervals, *(np.concatenate(column, axis=-1) for column in others))


_DRAWS = 10_000


class RelativeChange(NamedTuple):
    """A relative change in percent with its 95 % limits, and what it rests on."""

    percent: float
    low: float
    high: float
    n_samples: int
    n_clusters: int


def _numbers(values: ArrayLike, name: str) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64).ravel()
    except (TypeError, ValueError) as problem:
        raise UsageError(
            f"relative_change: {name}: {problem}. The Dice of each sample is needed, such as "
            "[0.8, 0.6]. Give a list or an array of numbers."
        ) from None


def relative_change(
    before: ArrayLike,
    after: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
) -> RelativeChange:
    """The paper's relative Dice change, ``100 (mean(after) - mean(before)) / mean(before)``.

    The interval is a studentised bootstrap of clusters; a sample in which either value is
    not a number is left out.

    Args:
        before: Dice of each sample with its own prompt, ``(N,)`` in [0, 1].
        after: Dice of the same samples with the changed prompt, ``(N,)``.
        clusters: Patient, video or image of each sample; every sample is one when None.
        seed: Of the bootstrap.

    Returns:
        Percent. Limits are NaN with fewer than two clusters, all is NaN where the mean before
        is 0 or no sample is left.

    Raises:
        UsageError: The lengths differ, or a value is no number.

    Example:
        >>> relative_change([0.8, 0.6, 0.7, 0.9], [0.8, 0.3, 0.7, 0.9]).percent
        -10.0
    """
    old, new = _numbers(before, "before"), _numbers(after, "after")
    names = list(range(len(old))) if clusters is None else list(clusters)
    if not len(old) == len(new) == len(names):
        of = "" if clusters is None else f", {len(names)} clusters"
        raise UsageError(
            f"relative_change: {len(old)} values before, {len(new)} after{of}. One of each a "
            "sample is needed. Give arrays of one length."
        )
    is_known = np.isfinite(old) & np.isfinite(new)
    kept = [name for name, known in zip(names, is_known, strict=True) if known]
    index = {name: number for number, name in enumerate(dict.fromkeys(kept))}
    places = np.array([index[name] for name in kept], dtype=np.intp)
    sums = [
        np.bincount(places, values[is_known], len(index)).astype(np.float64)
        for values in (old, new)
    ]
    if not kept or sums[0].sum() == 0:
        return RelativeChange(np.nan, np.nan, np.nan, len(kept), len(index))
    draws = cluster_draws("arrays", [str(n) for n in range(len(index))], count=_DRAWS, seed=seed)
    found = ratio_inference((sums[1] - sums[0])[:, None], sums[0][:, None], draws=draws).intervals
    percent, low, high = (
        round(100 * float(v[0]), 10) for v in (found.estimate, found.low, found.high)
    )
    return RelativeChange(percent, low, high, len(kept), len(index))

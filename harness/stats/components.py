"""How much of what single changes differ by is due to words, images and prompt indices.

Conventions: the model of one cell is ``change = mean + image + word + prompt index + rest``,
all random and crossed; the change is Dice after less Dice before. Variances are Henderson's
method 1: sums of squares of each factor's means, set equal to their expectations, which is
unbiased for unequal numbers, too. Shares are fractions of the total; a negative estimate
counts as 0. A factor with one level has no share.

References:
    C. R. Henderson, Estimation of variance and covariance components, Biometrics
    9(2):226-252, 1953. doi:10.2307/3001853
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.stats.draws import Floats

FACTORS = {
    "sample": "variance_images",
    "word": "variance_words",
    "prompt_index": "variance_prompt_index",
}
"""Factors and the summary's columns of their shares."""


def varied_changes(cases: pl.DataFrame) -> pl.DataFrame:
    """Changes of the cases that have a word, or a prompt index above 0; a chunk's add up."""
    return cases.filter(
        pl.col("dice").is_not_null(),
        pl.max_horizontal(pl.col("word").max(), pl.col("prompt_index").max()).over("cell") > 0,
    ).select("cell", *FACTORS, change=pl.col("dice") - pl.col("reference"))


def variance_shares(changes: pl.DataFrame) -> pl.DataFrame:
    """Shares of each cell, ``cell`` and the columns of `FACTORS`.

    Args:
        changes: Of `varied_changes`.
    """
    rows = []
    for (cell,), own in changes.group_by("cell", maintain_order=True):
        levels = [np.unique(own[f].to_numpy(), return_inverse=True)[1] for f in FACTORS]
        rows.append((cell, *shares(own["change"].to_numpy(), levels)))
    schema = {"cell": pl.UInt32} | dict.fromkeys(FACTORS.values(), pl.Float64)
    return pl.DataFrame(rows, schema=schema, orient="row")


def shares(values: Floats, factors: Sequence[NDArray[np.intp]]) -> list[float]:
    """Share of the variance of `values` that each crossed factor accounts for.

    Args:
        values: ``(n,)``.
        factors: For each factor the level of every value, numbered from 0.

    Returns:
        A share for each factor, NaN for one with a single level, or where nothing varies.

    Example:
        >>> images, words = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
        >>> [round(x, 6) for x in shares(np.array([0.0, 1.0, 0.0, 1.0]), [images, words])]
        [0.0, 1.0]
    """
    used = [f for f in factors if f.max(initial=0) > 0]
    if not used:
        return [np.nan] * len(factors)
    variances = np.clip(_henderson(values - values.mean(), used), 0, None)
    total = variances.sum()
    found = iter(variances / total if total > 0 else np.full(len(variances), np.nan))
    return [float(next(found)) if f.max(initial=0) > 0 else np.nan for f in factors]


def _henderson(centred: Floats, factors: list[NDArray[np.intp]]) -> Floats:
    """Variances of the factors and of the rest, ``(F + 1,)``."""
    n = len(centred)
    sizes = [np.bincount(f) for f in factors]
    between = [
        (np.bincount(f, centred) ** 2 / size).sum() for f, size in zip(factors, sizes, strict=True)
    ]
    spread = np.array([(size.astype(float) ** 2).sum() / n for size in sizes])
    matrix = np.zeros((len(factors) + 1, len(factors) + 1))
    for row, (first, size) in enumerate(zip(factors, sizes, strict=True)):
        met = [_incidence(first, size, other) for other in factors]
        matrix[row, :-1] = np.array(met) - spread
        matrix[row, -1] = len(size) - 1
    matrix[-1, :-1], matrix[-1, -1] = n - spread, n - 1
    squares = np.array([*between, (centred**2).sum()])
    return np.asarray(np.linalg.lstsq(matrix, squares, rcond=None)[0])


def _incidence(first: NDArray[np.intp], size: NDArray[np.intp], second: NDArray[np.intp]) -> float:
    """Sum over level pairs of (values in both)^2 / (values in the first)."""
    width = int(second.max()) + 1
    pairs, both = np.unique(first * width + second, return_counts=True)
    return float((both.astype(float) ** 2 / size[pairs // width]).sum())

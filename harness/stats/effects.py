"""Figures beside the relative change: catastrophic drops, and descriptive tests of no change.

Conventions: everything starts from the sums of each (cell, unit). Shares are fractions,
p-values two-sided. The tests here describe and decide nothing: their null hypothesis, no
change in any unit, is not what an expectation asks.

References:
    E. L. Korn and B. I. Graubard, Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data, Survey Methodology 24(2):193-201, 1998.
    F. Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1(6):80-83, 1945.
"""

import numpy as np
import polars as pl

from harness.stats.draws import Floats

_TIE = 1e-12
_BLOCK = 400_000


def unit_figures(sums: pl.DataFrame, units: pl.DataFrame, *, count: int, seed: int) -> pl.DataFrame:
    """``catastrophic_share`` with its limits, ``wilcoxon_p`` and ``sign_flip_p``, a row a cell.

    Args:
        sums: Of each (cell, unit), in order, as `harness.stats.reduce.Reduced.units`.
        units: ``unit, dataset, split``.
        count: Random sign vectors.
        seed: Non-negative.
    """
    rows = []
    for (cell,), own in sums.group_by("cell", maintain_order=True):
        n, change = own["n"].to_numpy(), (own["dice"] - own["reference"]).to_numpy()
        share = clustered_share(own["catastrophic"].to_numpy(), own["n_catastrophic"].to_numpy())
        rows.append((cell, *share, wilcoxon_p(change[n > 0] / n[n > 0])))
    names = ("catastrophic_share", "catastrophic_share_low", "catastrophic_share_high")
    schema = {"cell": pl.UInt32} | dict.fromkeys((*names, "wilcoxon_p"), pl.Float64)
    found = pl.DataFrame(rows, schema=schema, orient="row")
    flipped = _sign_flips(sums, units, count=count, seed=seed)
    return found.join(flipped, on="cell", how="left", maintain_order="left")


def _sign_flips(sums: pl.DataFrame, units: pl.DataFrame, *, count: int, seed: int) -> pl.DataFrame:
    """`sign_flip_p` of all cells, those of one set with the same signs."""
    changes = sums.select("cell", "unit", change=pl.col("dice") - pl.col("reference"))
    placed = changes.join(units, on="unit", how="left", maintain_order="left")
    parts = []
    for _, own in placed.group_by("dataset", "split", maintain_order=True):
        cells, column = np.unique(own["cell"].to_numpy(), return_inverse=True)
        numbers, row = np.unique(own["unit"].to_numpy(), return_inverse=True)
        matrix = np.zeros((len(numbers), len(cells)))
        matrix[row, column] = own["change"].to_numpy()
        values = sign_flip_p(matrix, count=count, seed=seed)
        parts.append(pl.DataFrame({"cell": cells, "sign_flip_p": values}))
    schema = pl.Schema({"cell": pl.UInt32, "sign_flip_p": pl.Float64})
    return pl.concat([pl.DataFrame(schema=schema), *(part.cast(schema) for part in parts)])


def clustered_share(events: Floats, sizes: Floats) -> tuple[float, float, float]:
    """A share of clustered samples with 95 % limits that do not collapse where none occurred.

    Clopper-Pearson limits for the effective number of samples; without an event, or with
    nothing else, that number is the number of clusters, the least it can be.

    Args:
        events: Of each cluster, ``(G,)``; may be fractions.
        sizes: Samples of each cluster, ``(G,)``.

    Returns:
        The share, its lower and its upper limit; NaN without a sample.

    Example:
        >>> share, low, high = clustered_share(np.zeros(20), np.ones(20))
        >>> share, low, round(high, 3)
        (0.0, 0.0, 0.168)
    """
    from scipy.special import betaincinv

    kept = sizes > 0
    events, sizes = events[kept], sizes[kept]
    n_clusters, total = len(sizes), sizes.sum()
    if not n_clusters:
        return np.nan, np.nan, np.nan
    share = float(events.sum() / total)
    effective = float(n_clusters)
    if 0 < share < 1 and n_clusters > 1:
        square = ((events - share * sizes) ** 2).sum() / total**2
        effective = min(share * (1 - share) / square, float(total)) if square > 0 else total
    seen = share * effective
    low = betaincinv(seen, effective - seen + 1, 0.025) if seen > 0 else 0.0
    high = betaincinv(seen + 1, effective - seen, 0.975) if seen < effective else 1.0
    return share, float(low), float(high)


def wilcoxon_p(changes: Floats) -> float:
    """Wilcoxon's signed-rank test of changes that are symmetric around 0; 1 if all are 0."""
    from scipy.stats import wilcoxon

    if not len(changes):
        return np.nan
    return float(wilcoxon(changes).pvalue) if np.any(changes) else 1.0


def sign_flip_p(changes: Floats, *, count: int, seed: int) -> Floats:
    """Permutation test that flips the sign of each unit's change at random.

    Args:
        changes: Summed change of each unit, ``(G, P)``; 0 where a problem lacks a unit.
        count: Random sign vectors; the smallest p-value is ``1 / (count + 1)``.
        seed: Non-negative.

    Returns:
        p-values ``(P,)``, 1 where nothing changes.
    """
    rng = np.random.default_rng(seed)
    least = np.abs(changes.sum(axis=0)) - _TIE * np.abs(changes).sum(axis=0)
    beyond = np.zeros(changes.shape[1])
    rows = max(1, _BLOCK // max(len(changes), 1))
    for start in range(0, count, rows):
        size = (min(rows, count - start), len(changes))
        signs = 2.0 * rng.integers(0, 2, size=size, dtype=np.int8) - 1
        beyond += (np.abs(signs @ changes) >= least).sum(axis=0)
    return np.asarray((1 + beyond) / (1 + count))

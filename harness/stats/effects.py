"""Share of catastrophic drops with limits that do not collapse where none occurred.

References:
    E. L. Korn and B. I. Graubard, Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data, Survey Methodology 24(2):193-201, 1998.
"""

import numpy as np
import polars as pl

from harness.stats.draws import Floats

_SHARE = tuple(f"catastrophic_share{end}" for end in ("", "_low", "_high"))


def catastrophic_shares(sums: pl.DataFrame) -> pl.DataFrame:
    """``catastrophic_share`` with its limits, a row a cell.

    Args:
        sums: Of each (cell, unit), in order, as `harness.stats.reduce.Reduced.units`.
    """
    rows = [
        (cell, *clustered_share(own["catastrophic"].to_numpy(), own["n_catastrophic"].to_numpy()))
        for (cell,), own in sums.group_by("cell", maintain_order=True)
    ]
    schema = {"cell": pl.UInt32} | dict.fromkeys(_SHARE, pl.Float64)
    return pl.DataFrame(rows, schema=schema, orient="row")


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

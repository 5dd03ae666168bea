"""Means of the distances between contours, and how many cases have none.

Conventions: see `harness.engine.surface` for what is measured. Means are over cases, which weigh
the same, without intervals: they describe and decide nothing. A mean leaves out the cases whose
value is undefined, so that ``n_one_empty``, those where exactly one mask is empty (a missed lesion,
or a mask where none should be), stands beside it.
"""

import polars as pl

from harness.stats.coding import PLAN_KEYS
from harness.stats.pairs import CELL_KEYS

MEASURES = ("hausdorff_px", "hd95_px", "nsd")
"""Columns of scores and summary: distances in pixels, and a share."""


def surface_means(
    plan: pl.DataFrame | pl.LazyFrame, scores: pl.DataFrame | pl.LazyFrame
) -> pl.DataFrame:
    """Means of `MEASURES` and the counts beside them, of each cell.

    Args:
        plan: As in the run directory.
        scores: As in the run directory.

    Returns:
        `CELL_KEYS`, `MEASURES`, ``n_one_empty`` and ``n_surface``: cases with two masks.
    """
    predicted, true = pl.col("n_pred") > 0, pl.col("n_gt") > 0
    measured = scores.lazy().filter(pl.col("status") == "done")
    return (
        plan.lazy()
        .select("case_id", *PLAN_KEYS)
        .join(measured.select("case_id", "model_id", "n_pred", "n_gt", *MEASURES), on="case_id")
        .group_by(CELL_KEYS)
        .agg(
            pl.col(MEASURES).fill_nan(None).mean(),
            n_one_empty=(predicted != true).sum().cast(pl.Int64),
            n_surface=(predicted & true).sum().cast(pl.Int64),
        )
        .collect()
        .sort(CELL_KEYS)
    )

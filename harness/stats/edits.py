"""How far the edits of each cell move a model's text embedding.

Conventions: means weigh every case the same. A shift is null where the model shows no
embedding.
"""

import polars as pl

from harness.stats.coding import PLAN_KEYS
from harness.stats.pairs import CELL_KEYS

_PAIR = ("text", "original_text")


def text_shifts(
    plan: pl.DataFrame | pl.LazyFrame, texts: pl.DataFrame | None
) -> pl.DataFrame | None:
    """``text_shift`` of each cell whose edits a model embedded.

    Args:
        plan: As in the run directory.
        texts: How texts reach each model, as in the run directory.

    Returns:
        `CELL_KEYS` and ``text_shift``; None where nothing was embedded.
    """
    if texts is None or "shift" not in texts.columns:
        return None
    embedded = texts.select("model_id", *_PAIR, "shift").drop_nulls("shift")
    if embedded.is_empty():
        return None
    n = pl.col("n")
    return (
        plan.lazy()
        .select(*PLAN_KEYS, text="prompt", original_text="original_prompt")
        .join(embedded.select(_PAIR).unique().lazy(), on=_PAIR, how="semi")
        .group_by(*PLAN_KEYS, *_PAIR)
        .agg(n=pl.len().cast(pl.Float64))
        .join(embedded.lazy(), on=_PAIR)
        .group_by(CELL_KEYS)
        .agg(text_shift=(n * pl.col("shift")).sum() / n.sum())
        .collect()
        .sort(CELL_KEYS)
    )

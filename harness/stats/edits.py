"""How the prompts of each cell reach a model: how far edits move it, and how many are cut.

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


def prompts_cut(
    plan: pl.DataFrame | pl.LazyFrame, texts: pl.DataFrame | None
) -> pl.DataFrame | None:
    """``n_truncated`` of each cell that holds a prompt longer than a model's token limit.

    A case counts when its own prompt or its original's is cut: of both it may then be another
    part that reaches the model, whether or not its edit does.

    Args:
        plan: As in the run directory.
        texts: How texts reach each model, as in the run directory.

    Returns:
        `CELL_KEYS` and ``n_truncated``; None where nothing is cut.
    """
    if texts is None or "truncated" not in texts.columns:
        return None
    cut = texts.filter("truncated").select("model_id", "text").unique()
    if cut.is_empty():
        return None
    prompts = [
        plan.lazy().select(*PLAN_KEYS, "case_id", text=pl.col(column))
        for column in ("prompt", "original_prompt")
    ]
    return (
        pl.concat(prompts)
        .join(cut.lazy(), on="text")
        .group_by(CELL_KEYS)
        .agg(n_truncated=pl.col("case_id").n_unique().cast(pl.Int64))
        .collect()
        .sort(CELL_KEYS)
    )

"""Refusal against Dice over thresholds, from the counts that a run with ``--thresholds`` keeps.

Conventions: masks hold what is strictly above a threshold; cases weigh the same. What an own mask
of nothing, or a probe with an empty right mask, asks for is absent; originals with a target are
present. Limits of the refusal rate are those of `harness.stats.intervals.share_limit`.
"""

import math
from typing import Any

import numpy as np
import polars as pl

from harness.metrics import REFUSAL_PIXELS
from harness.runs.store import THRESHOLDS
from harness.stats.intervals import mcc, share_limit
from harness.stats.refusal import why_no_refusal
from harness.suite.schema import Statistics

CURVE_KEYS = ("model_id", "dataset", "prompts", "prompt_type")


def threshold_curve(
    plan: pl.LazyFrame, scores: pl.LazyFrame, curves: pl.LazyFrame, settings: Statistics
) -> pl.DataFrame:
    """Refusal against Dice over thresholds, from counts alone.

    A threshold is *chosen* by the mean Dice of present targets, as validation data are commonly
    used: of the split called ``val``, where a run has one, else of each half of the clusters.

    Args:
        plan: As in the run directory.
        scores: As in the run directory: true areas and sizes are taken from them.
        curves: ``model_id, case_id, n_pred, tp``, a list of 19 counts each.
        settings: Of the suite.

    Returns:
        One row a (`CURVE_KEYS`, threshold): ``dice``, ``refusal_rate`` with limits,
        ``miss_rate``, ``mcc``, ``dice_mcc``, ``refusal`` (what the verdict would be there) and
        ``chosen``: in how many of the choices, of one or two, this threshold won.
    """
    cases = _at_thresholds(plan, scores, curves, settings)
    rows = []
    for key, group in cases.group_by(CURVE_KEYS, maintain_order=True):
        rows += [dict(zip(CURVE_KEYS, key, strict=True)) | row for row in _curve(group, settings)]
    return pl.DataFrame(rows, infer_schema_length=None)


def _at_thresholds(
    plan: pl.LazyFrame, scores: pl.LazyFrame, curves: pl.LazyFrame, settings: Statistics
) -> pl.DataFrame:
    """Originals and prompts for absent things, a row a (case, threshold)."""
    area = settings.refusal_area
    original = pl.col("probe") == "original"
    known = scores.select("model_id", "case_id", "n_gt", pixels=pl.col("height") * pl.col("width"))
    absent = (pl.col("expected_mask") == "empty") | (pl.col("n_gt") == 0)
    limit = pl.max_horizontal(area * pl.col("pixels"), pl.lit(REFUSAL_PIXELS))
    both = 2 * pl.col("tp") / (pl.col("n_pred") + pl.col("n_gt"))
    lone = pl.lit(list(THRESHOLDS))
    return (
        plan.filter(original | (pl.col("expected_mask") == "empty"))
        .select("case_id", *CURVE_KEYS[1:], "split", "cluster_id")
        .join(plan.select("case_id", "expected_mask"), on="case_id")
        .join(curves, on="case_id")
        .join(known, on=["model_id", "case_id"])
        .with_columns(threshold=lone, absent=absent, limit=limit)
        .explode("n_pred", "tp", "threshold")
        .with_columns(
            refused=pl.when("absent").then(pl.col("n_pred") <= pl.col("limit")).cast(pl.Float64),
            missed=pl.when(~pl.col("absent"))
            .then(
                pl.col("n_pred")
                <= pl.when(pl.col("n_gt") > pl.col("limit")).then("limit").otherwise(0)
            )
            .cast(pl.Float64),
            dice=pl.when(~pl.col("absent")).then(both),
        )
        .sort(*CURVE_KEYS, "threshold", "split", "cluster_id", "case_id")
        .collect()
    )


def _curve(cases: pl.DataFrame, settings: Statistics) -> list[dict[str, Any]]:
    choices = _choices(cases)
    rows = []
    for (threshold,), own in cases.group_by("threshold", maintain_order=True):
        sums = own.group_by("split", "cluster_id", maintain_order=True).agg(
            pl.col("refused").sum(), n=pl.col("refused").count()
        )
        asked = sums.filter(pl.col("n") > 0)
        rate = low = high = math.nan
        if asked.height:
            rate, limit = share_limit(
                asked["refused"].to_numpy(), asked["n"].to_numpy().astype(float)
            )
            low, high = (float(v) for v in limit(np.array([0.975, 0.025])))
        figures = _means(own)
        blocked = why_no_refusal(asked.height, figures["miss_rate"], settings)
        bound = settings.least_refusal
        verdict = "refuses" if low > bound else "hallucinates" if high < bound else "cannot tell"
        rows.append(
            {"threshold": threshold, **figures, "refusal_rate": rate}
            | {"refusal_rate_low": low, "refusal_rate_high": high}
            | {
                "refusal": "not asked"
                if not asked.height
                else "cannot tell"
                if blocked
                else verdict
            }
            | {"chosen": choices.count(threshold), "n_choices": len(choices)}
        )
    return rows


def _means(cases: pl.DataFrame) -> dict[str, float]:
    """Means over cases of one threshold."""
    refused, missed, dice_of = (
        cases[c].drop_nulls().to_numpy() for c in ("refused", "missed", "dice")
    )
    dice = float(dice_of.mean()) if len(dice_of) else math.nan
    miss = float(missed.mean()) if len(missed) else math.nan
    rate = float(refused.mean()) if len(refused) else math.nan
    both = mcc(rate, miss, len(refused), len(missed)) if len(refused) and len(missed) else math.nan
    return {"dice": dice, "miss_rate": miss, "mcc": both, "dice_mcc": dice * both}


def _choices(cases: pl.DataFrame) -> list[float]:
    """The thresholds that validation data would choose: of a ``val`` split, or of two halves."""
    validation = [cases.filter(pl.col("split") == "val")]
    if validation[0].is_empty():
        clusters = cases.select("split", "cluster_id").unique().sort("split", "cluster_id")
        half = clusters.with_row_index("number").with_columns(half=pl.col("number") % 2)
        halved = cases.join(half, on=["split", "cluster_id"])
        validation = [halved.filter(pl.col("half") == k) for k in (0, 1)]
    found = []
    for own in validation:
        figures = {t: _means(rows) for (t,), rows in own.group_by("threshold", maintain_order=True)}
        known = {t: f["dice"] for t, f in figures.items() if math.isfinite(f["dice"])}
        if known:
            found.append(max(known, key=lambda t: (known[t], -abs(t - 0.5))))
    return found

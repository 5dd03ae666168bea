"""The columns of a summary: their names, units and order.

Conventions: a name ends in its unit: ``_percent`` of the reference Dice, ``_points``
(100 times a difference of Dice); Dice, agreement and shares are fractions without a
suffix. ``_low`` and ``_high`` are 95 % limits of the studentised bootstrap, ``_low90`` and
``_high90`` its 90 % limits. Counts begin with ``n_``.

- ``word_error``: the words' part of a standard error, 0 where words are fixed.
- ``smallest_effect``: the true change that data like these would show in 4 of 5 studies.
- ``worst_change``: of the mean over samples of the lowest Dice among a sample's variants, of
  which there are ``worst_of`` on average; more variants make it lower.
- ``catastrophic_share``: share of variants that lose more than half of their original's Dice,
  where that is at least the floor; Clopper-Pearson limits for clustered data.
- ``named_gain``: Dice with the named target's mask less Dice with the own mask, both after the
  change. ``decisive_change``: the relative change over the same samples, those where the
  attribute alone tells two targets of one image apart.
- ``harmonic_dice``: harmonic mean of the Dice in and out of distribution.
- ``text_shift``: how far the text embedding moves, in units of the distance between two prompts.
- ``hausdorff_px``, ``hd95_px``, ``nsd``: means over cases, where the suite asks for them;
  ``n_surface`` cases have two masks, in ``n_one_empty`` exactly one mask is empty.
- ``n_truncated``: cases whose prompt, or whose original prompt, the model's token limit cuts;
  ``n_cut_away`` of them differ in nothing that reaches the model.
- ``expectation``, ``verdict``: the first of the probe's; all of them are in ``verdicts.json``.
"""

from typing import Any

import numpy as np
import polars as pl

from harness.stats.limits import Intervals

TOO_LOW = "baseline too low"
"""How every reason of `why_too_low` begins."""

_LIMITS = ("low", "high")
_RELATIVE = (
    *_LIMITS,
    "low90",
    "high90",
    "percentile_low",
    "percentile_high",
    "bca_low",
    "bca_high",
    "standard_error",
)


def _with_limits(name: str, unit: str, limits: tuple[str, ...] = _LIMITS) -> dict[str, Any]:
    return {f"{name}{unit}": pl.Float64} | {f"{name}_{x}{unit}": pl.Float64 for x in limits}


def _counts(*names: str) -> dict[str, Any]:
    return {f"n_{name}": pl.Int64 for name in names}


SUMMARY_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(
        ("model_id", "model", "dataset", "split", "prompts", "prompt_type", "probe"), pl.String
    ),
    **dict.fromkeys(("attribute", "perturbation", "meaning", "expected_mask"), pl.String),
    **_with_limits("relative_change", "_percent", _RELATIVE),
    "relative_change_word_error_percent": pl.Float64,
    "relative_change_clusters_percent": pl.Float64,
    **_with_limits("change", "_points"),
    **_with_limits("dice", ""),
    **_with_limits("reference_dice", ""),
    "smallest_effect_percent": pl.Float64,
    "sample_ratio_percent": pl.Float64,
    **_with_limits("worst_change", "_percent"),
    "worst_of": pl.Float64,
    **_with_limits("catastrophic_share", ""),
    **_with_limits("agreement", ""),
    "originals_empty_share": pl.Float64,
    "dice_named": pl.Float64,
    **_with_limits("named_gain", "_points"),
    **_with_limits("decisive_change", "_percent"),
    "false_positive_share": pl.Float64,
    **_with_limits("harmonic_dice", ""),
    "text_shift": pl.Float64,
    **dict.fromkeys(("hausdorff_px", "hd95_px", "nsd"), pl.Float64),
    **_counts("samples", "clusters", "words", "cases", "failed", "missing", "original_lost"),
    **_counts("undefined", "both_empty", "not_applicable", "sample_ratios"),
    **_counts("truncated", "cut_away", "same_tokens", "one_empty", "surface"),
    **_counts("samples_agreement", "samples_named", "clusters_named"),
    **_counts("samples_false_positive", "shared_images"),
    "not_applicable": pl.String,
    "in_distribution": pl.String,
    "control": pl.String,
    **_with_limits("control_change", "_percent"),
    **_with_limits("beyond_control", "_percent"),
    "cluster_kind": pl.String,
    "resampled": pl.String,
    "verdict_allowed": pl.Boolean,
    "expectation": pl.String,
    "verdict": pl.String,
    "reason": pl.String,
    "notes": pl.List(pl.String),
    "threshold": pl.Float64,
    "signature": pl.String,
}
"""One row a (model, dataset, split, prompts, prompt type, probe, attribute)."""


def with_all_columns(summary: pl.DataFrame) -> pl.DataFrame:
    """A summary that an earlier version wrote, with the columns it lacks: 0 or undefined."""
    lacking = {c: t for c, t in SUMMARY_SCHEMA.items() if c not in summary.columns}
    return summary.with_columns(
        pl.lit(0 if c.startswith("n_") else None, dtype=t).alias(c) for c, t in lacking.items()
    )


def limit_columns(
    name: str,
    unit: str,
    found: Intervals,
    *,
    place: int | slice = slice(None),
    scale: float = 1,
    low: float = -np.inf,
    high: float = np.inf,
) -> dict[str, Any]:
    """Estimate and 95 % limits under their column names.

    Args:
        name: Of the figure.
        unit: Suffix.
        found: Intervals.
        place: Which problem, or all.
        scale: What a fraction is multiplied with.
        low: Smallest possible value, after scaling: a limit beyond it is cut off.
        high: Largest possible value.
    """
    values = {"": found.estimate, "_low": found.low, "_high": found.high}
    return {
        f"{name}{key}{unit}": np.clip(scale * value[place], low, high)
        for key, value in values.items()
    }


def relative_columns(
    found: Intervals, place: int | slice = slice(None), *, offset: float = 1
) -> dict[str, Any]:
    """A relative change in percent with all its limits; no Dice can lose more than 100 %.

    Args:
        found: Intervals of a ratio, or of a ratio less 1.
        place: Which problem, or all.
        offset: What "no change" is in `found`.
    """
    limits = {
        f"relative_change_{name}_percent": 100 * (getattr(found, name)[place] - offset)
        for name in _RELATIVE[:-1]
    }
    limits["relative_change_percent"] = 100 * (found.estimate[place] - offset)
    columns = {name: np.maximum(values, -100) for name, values in limits.items()}
    return columns | {"relative_change_standard_error_percent": 100 * found.standard_error[place]}


def why_too_low(reference: Intervals, place: int | slice, floor: float) -> Any:
    """Why no change may be given relative to a reference Dice; empty where one may.

    This is the one floor of every verb. The mean Dice itself may be below it, or its lower 95 %
    limit alone: then the true Dice may be next to nothing. One cluster has no limit, and the
    mean decides; a mean of exactly 0 is always too low.

    Args:
        reference: Mean Dice of the originals.
        place: Which problem, or all.
        floor: Of the suite's statistics.

    Returns:
        Texts of the shape of `place`.
    """
    low, estimate = reference.low[place], reference.estimate[place]
    found = np.where(low < floor, f"{TOO_LOW}: lower limit of Dice under {floor:g}", "")
    found = np.where(estimate < floor, f"{TOO_LOW}: Dice under {floor:g}", found)
    found = np.where(estimate <= 0, f"{TOO_LOW}: Dice is 0", found)
    return str(found) if found.ndim == 0 else found


def changed_percent(after: pl.Expr, before: pl.Expr, floor: float) -> pl.Expr:
    """A relative change in percent of figures without limits; null where `before` is too low."""
    return pl.when((before >= floor) & (before > 0)).then(100 * (after / before - 1))

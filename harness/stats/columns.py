"""The rows of a summary: names, units and order of their columns, and one row a cell.

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
- ``named_gain``: Dice on the new target minus Dice on the old one, both after the
  change. ``decisive_change``: the relative change over the same samples, those where the
  attribute alone tells two targets of one image apart.
- ``harmonic_dice``: harmonic mean of the Dice in and out of distribution.
- ``refusal_rate``: share of samples whose mask is empty where the right one is (see
  `harness.stats.refusal`), ``miss_rate`` where it is not; ``false_positive_area`` of the picture is
  painted where nothing should be, ``aligned_share`` of it on the mask of the original prompt;
  ``mcc`` and ``dice_mcc`` are of both; ``absent_kind`` says what kind of thing was asked for.
- ``text_shift``: how far the text embedding moves, in units of the distance between two prompts.
- ``hausdorff_px``, ``hd95_px``, ``nsd``: means over cases, where the suite asks for them;
  ``n_surface`` cases have two masks, in ``n_one_empty`` exactly one mask is empty.
- ``n_truncated``: cases whose prompt, or whose original prompt, the model's token limit cuts;
  ``n_cut_away`` of them differ in nothing that reaches the model.
- ``n_seeds``: checkpoints of a recipe, 0 for a single one; ``seed_deviation_``: standard deviation
  of the seeds' own figures; ``seed_share``: the seeds' share of the squared standard error.
- ``expectation``, ``verdict``: the first of the probe's; all of them are in ``verdicts.json``.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl

from harness.metrics import signature
from harness.stats.inference import Inference, Intervals
from harness.stats.intervals import MINIMUM_WORDS, catastrophic_shares
from harness.stats.pairs import ModelFacts, Pairs
from harness.stats.power import degrees_of_freedom, smallest_effect
from harness.stats.refusal import refusal_columns
from harness.stats.relative import ClusterSums
from harness.stats.verdicts import MOST_EMPTY
from harness.suite.schema import Statistics, Suite

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
    "absent_kind": pl.String,
    **_with_limits("refusal_rate", ""),
    **_with_limits("miss_rate", ""),
    **_with_limits("false_positive_area", ""),
    **_with_limits("aligned_share", ""),
    "elsewhere_share": pl.Float64,
    **_with_limits("mcc", ""),
    **_with_limits("dice_mcc", ""),
    **_with_limits("harmonic_dice", ""),
    "text_shift": pl.Float64,
    **dict.fromkeys(("hausdorff_px", "hd95_px", "nsd"), pl.Float64),
    **_counts("samples", "clusters", "words", "cases", "failed", "missing", "original_lost"),
    **_counts("undefined", "both_empty", "not_applicable", "sample_ratios"),
    **_counts("truncated", "cut_away", "same_tokens", "one_empty", "surface"),
    **_counts("samples_agreement", "samples_named", "clusters_named"),
    **_counts("samples_refusal", "clusters_refusal", "samples_present", "shared_images", "seeds"),
    **dict.fromkeys(("seed_deviation_dice", "seed_deviation_percent", "seed_share"), pl.Float64),
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

    Values are multiplied with `scale`, and cut off below `low` and above `high`.
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

    `offset` is what "no change" is in `found`: 1 for ratios, 0 for ratios minus 1.
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
    """
    low, estimate = reference.low[place], reference.estimate[place]
    found = np.where(low < floor, f"{TOO_LOW}: lower limit of Dice under {floor:g}", "")
    found = np.where(estimate < floor, f"{TOO_LOW}: Dice under {floor:g}", found)
    found = np.where(estimate <= 0, f"{TOO_LOW}: Dice is 0", found)
    return str(found) if found.ndim == 0 else found


def changed_percent(after: pl.Expr, before: pl.Expr, floor: float) -> pl.Expr:
    """A relative change in percent of figures without limits; null where `before` is too low."""
    return pl.when((before >= floor) & (before > 0)).then(100 * (after / before - 1))


CUT_AWAY = "edits cut away by the model's token limit"
"""Reason of a probe none of whose edits reaches the model: it is not robust, it is not tested."""

_NO_KIND = "kind not stated"


def cell_rows(
    pairs: Pairs,
    sums: ClusterSums,
    solved: Mapping[str, Inference],
    low: np.ndarray,
    *,
    settings: Statistics,
    n_seeds: Mapping[str, int] = MappingProxyType({}),
) -> pl.DataFrame:
    """A row for each cell that the plan holds, with its number in ``cell``."""
    rows = pairs.cells
    for frame in (sums.counted, sums.figures, catastrophic_shares(sums.units)):
        rows = rows.join(frame, on="cell", how="left", maintain_order="left")
    figures = _limit_columns(solved) | {"too_low": low}
    figures |= _smallest(rows, solved["relative"], n_seeds)
    rows = rows.with_columns(pl.Series(name, v) for name, v in figures.items())
    is_original = pl.col("probe") == "original"
    own = ("catastrophic_share", "catastrophic_share_low", "catastrophic_share_high", "worst_of")
    rows = rows.with_columns(pl.when(~is_original).then(c).alias(c) for c in own)
    rows = refusal_columns(rows, solved)
    return _with_reasons(rows, settings)


def _smallest(
    rows: pl.DataFrame, relative: Inference, n_seeds: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """The smallest relative change that the data of each cell could show, in percent."""
    error, words = relative.intervals.standard_error, relative.word_error
    of_seeds = rows["model_id"].replace_strict(n_seeds, default=0, return_dtype=pl.Int64)
    freedom = degrees_of_freedom(
        error,
        words,
        n_clusters=rows["n_clusters"].fill_null(0).to_numpy(),
        n_words=rows["n_words"].fill_null(0).to_numpy(),
        seed_error=relative.seed_error,
        n_seeds=of_seeds.to_numpy(),
    )
    return {
        "smallest_effect_percent": 100 * smallest_effect(error, freedom),
        "relative_change_word_error_percent": 100 * words,
    }


def low_baselines(solved: Mapping[str, Inference], floor: float) -> np.ndarray:
    """Of each cell why its baseline is too low, empty where it is not or where it has none."""
    return np.asarray(why_too_low(solved["reference"].intervals, slice(None), floor))


def _limit_columns(solved: Mapping[str, Inference]) -> dict[str, np.ndarray]:
    """Columns with limits for all cells; an original is its own reference."""
    found = {name: one.intervals for name, one in solved.items()}
    dice, reference = found["dice"], found["reference"]
    is_original = np.isnan(reference.estimate)
    reference = Intervals(
        *(np.where(is_original, d, r) for d, r in zip(dice, reference, strict=True))
    )
    changes = {"worst_change": found["worst"], "decisive_change": found["decisive"]}
    less = {
        name: Intervals(one.estimate - 1, one.standard_error, *(x - 1 for x in one[2:]))
        for name, one in changes.items()
    }
    return {
        **relative_columns(found["relative"]),
        **limit_columns("change", "_points", found["points"], scale=100, low=-100, high=100),
        **limit_columns("dice", "", dice, low=0, high=1),
        **limit_columns("reference_dice", "", reference, low=0, high=1),
        **limit_columns("agreement", "", found["agreement"], low=0, high=1),
        **limit_columns(
            "named_gain", "_points", found["named_gain"], scale=100, low=-100, high=100
        ),
        **_together(
            limit_columns(name, "_percent", one, scale=100, low=-100) for name, one in less.items()
        ),
    }


def _together(columns: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: values for one in columns for name, values in one.items()}


def _with_reasons(rows: pl.DataFrame, settings: Statistics) -> pl.DataFrame:
    """Say why a figure is missing, what limits it, and whether a verdict may be built on it."""
    few = pl.col("n_clusters").fill_null(0) < settings.minimum_clusters
    empty = pl.col("originals_empty_share") > MOST_EMPTY
    fixed_words = pl.col("n_words").is_between(1, MINIMUM_WORDS - 1)
    share = (100 * pl.col("originals_empty_share")).round(0).cast(pl.Int64)
    notes = [
        pl.when(fixed_words).then(pl.lit("for these words only")),
        pl.when(few).then(pl.lit(f"under {settings.minimum_clusters} clusters: no verdict")),
        pl.when(empty).then(pl.format("mask empty for {} % of originals: no verdict", share)),
    ]
    crossed = pl.when(pl.col("n_words") >= MINIMUM_WORDS).then(pl.lit("words x clusters"))
    return rows.with_columns(reason=_reason()).with_columns(
        relative_change_clusters_percent=pl.when(pl.col("reason").is_null()).then(
            "relative_change_clusters_percent"
        ),
        notes=pl.concat_list(notes).list.drop_nulls(),
        resampled=crossed.otherwise(pl.lit("clusters")),
        verdict_allowed=~few & ~empty.fill_null(False) & pl.col("reason").is_null(),
    )


def _reason() -> pl.Expr:
    nothing = pl.col("n_samples").fill_null(0) == 0
    return (
        pl.when(pl.col("too_low") != "")
        .then("too_low")
        .when(nothing & (pl.col("n_missing") == pl.col("n_cases")))
        .then(pl.lit("not scored yet"))
        .when(nothing & (pl.col("n_cut_away") > 0))
        .then(pl.lit(CUT_AWAY))
        .when(nothing & (pl.col("n_undefined") > 0))
        .then(pl.lit("Dice undefined: both masks empty"))
        .when(nothing)
        .then(pl.lit("every case failed"))
    )


def add_names(
    rows: pl.DataFrame, models: Sequence[ModelFacts], suite: Suite, kinds: Mapping[str, str]
) -> pl.DataFrame:
    """Names, thresholds and signatures beside figures; undefined ones become NaN."""
    names = {m.model_id: m.name for m in models}
    thresholds = {m.model_id: m.threshold for m in models}
    datasets = rows["dataset"].unique().to_list()
    signatures = {
        f"{m.model_id}\n{name or ''}": signature(suite.metric, m.threshold, m.rule(name))
        for m in models
        for name in datasets
    }
    perturbations = {p.name: p.perturbation for p in suite.probes}
    model = pl.col("model_id")
    return rows.with_columns(
        model=model.replace_strict(names, return_dtype=pl.String),
        threshold=model.replace_strict(thresholds, return_dtype=pl.Float64),
        signature=pl.concat_str(
            model, pl.col("dataset").fill_null(""), separator="\n"
        ).replace_strict(signatures, return_dtype=pl.String),
        cluster_kind=pl.col("dataset").replace_strict(
            kinds, default=_NO_KIND, return_dtype=pl.String
        ),
        perturbation=pl.col("perturbation").fill_null(
            pl.col("probe").replace_strict(perturbations, default=None, return_dtype=pl.String)
        ),
        notes=pl.col("notes").fill_null([]),
        verdict_allowed=pl.col("verdict_allowed").fill_null(False),
    ).with_columns(pl.selectors.float().fill_null(np.nan))

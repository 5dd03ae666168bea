"""The rows of a run's summary: one for each model, dataset, prompt type, probe and attribute.

Conventions: see `harness.stats.columns` for names and units. Undefined figures are NaN
with a ``reason``; what was not measured is counted. Equal plans and scores give equal
summaries, whatever the order of their rows. Figures over all attributes of a probe are not pooled.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import polars as pl

from harness.metrics import signature
from harness.stats.away import rows_away
from harness.stats.columns import (
    SUMMARY_SCHEMA,
    limit_columns,
    relative_columns,
    why_too_low,
)
from harness.stats.effects import catastrophic_shares
from harness.stats.facts import ModelFacts
from harness.stats.intervals import MINIMUM_WORDS, Solved
from harness.stats.limits import Intervals
from harness.stats.pairs import CELL_KEYS, Pairs
from harness.stats.phrases import MOST_EMPTY
from harness.stats.power import degrees_of_freedom, smallest_effect
from harness.stats.reduce import Reduced
from harness.suite.schema import Statistics, Suite

CUT_AWAY = "edits cut away by the model's token limit"
"""Reason of a probe none of whose edits reaches the model: it is not robust, it is not tested."""

_NO_KIND = "kind not stated"


def cell_rows(
    pairs: Pairs,
    left: Reduced,
    solved: Mapping[str, Solved],
    low: np.ndarray,
    *,
    settings: Statistics,
) -> pl.DataFrame:
    """A row for each cell that the plan holds, with its number in ``cell``.

    Args:
        pairs: Cells and units.
        left: What is left of the cases.
        solved: Intervals of all quantities.
        low: Of `low_baselines`.
        settings: Draws, seed and the least number of clusters.
    """
    rows = pairs.cells
    for frame in (left.counted, left.figures, catastrophic_shares(left.units)):
        rows = rows.join(frame, on="cell", how="left", maintain_order="left")
    figures = _measured(solved) | {"too_low": low}
    figures |= _smallest(rows, solved["relative"])
    rows = rows.with_columns(pl.Series(name, v) for name, v in figures.items())
    is_original = pl.col("probe") == "original"
    own = ("catastrophic_share", "catastrophic_share_low", "catastrophic_share_high", "worst_of")
    rows = rows.with_columns(pl.when(~is_original).then(c).alias(c) for c in own)
    return _judged(rows, settings)


def completed(
    rows: pl.DataFrame,
    pairs: Pairs,
    left: Reduced,
    *,
    models: Sequence[ModelFacts],
    not_applicable: pl.DataFrame,
    suite: Suite,
    kinds: Mapping[str, str],
) -> pl.DataFrame:
    """The whole summary: with rows away from training, rows without a case, and facts.

    Args:
        rows: Of `cell_rows`.
        pairs: Cells and units.
        left: What is left of the cases.
        models: Those that are summarised.
        not_applicable: What made no variant, with reasons.
        suite: Metric, statistics, and whether rows away from training are wanted.
        kinds: What a dataset's clusters are.
    """
    parts = [_shaped(rows)]
    if suite.out_of_distribution:
        away = rows_away(pairs, left.originals, models=models, settings=suite.statistics)
        parts.append(_from_rows(away))
    parts.append(_with_nothing(not_applicable, pairs))
    whole = _with_not_applicable(pl.concat(parts), not_applicable)
    return with_facts(whole, models, suite, kinds).sort(CELL_KEYS, nulls_last=False)


def _smallest(rows: pl.DataFrame, relative: Solved) -> dict[str, np.ndarray]:
    """The smallest relative change that the data of each cell could show, in percent."""
    error, words = relative.intervals.standard_error, relative.word_error
    freedom = degrees_of_freedom(
        error,
        words,
        n_clusters=rows["n_clusters"].fill_null(0).to_numpy(),
        n_words=rows["n_words"].fill_null(0).to_numpy(),
    )
    return {
        "smallest_effect_percent": 100 * smallest_effect(error, freedom),
        "relative_change_word_error_percent": 100 * words,
    }


def low_baselines(solved: Mapping[str, Solved], floor: float) -> np.ndarray:
    """Of each cell why its baseline is too low, empty where it is not or where it has none."""
    return np.asarray(why_too_low(solved["reference"].intervals, slice(None), floor))


def _measured(solved: Mapping[str, Solved]) -> dict[str, np.ndarray]:
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


def _judged(rows: pl.DataFrame, settings: Statistics) -> pl.DataFrame:
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


def _shaped(rows: pl.DataFrame) -> pl.DataFrame:
    """The columns of the summary, those that are not there yet as null."""
    missing = [pl.lit(None).alias(c) for c in SUMMARY_SCHEMA if c not in rows.columns]
    return rows.with_columns(missing).select(pl.col(c).cast(t) for c, t in SUMMARY_SCHEMA.items())


def _from_rows(rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    plain = [{k: _plain(v) for k, v in row.items()} for row in rows]
    return _shaped(pl.DataFrame(plain, schema=SUMMARY_SCHEMA, orient="row"))


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic | np.ndarray) else value


def _with_nothing(not_applicable: pl.DataFrame, pairs: Pairs) -> pl.DataFrame:
    """Rows of the cells that have no case at all: they are counted, not dropped."""
    cells = (
        not_applicable.select(CELL_KEYS[1:])
        .unique()
        .join(pairs.cells.select("model_id").unique(), how="cross")
        .join(pairs.cells, on=CELL_KEYS, how="anti", nulls_equal=True)
    )
    counts = [pl.lit(0).alias(c) for c in SUMMARY_SCHEMA if c.startswith("n_")]
    return _shaped(
        cells.with_columns(counts).with_columns(
            n_shared_images=None,
            reason=pl.lit("not applicable"),
            verdict_allowed=pl.lit(False),
            notes=pl.lit([], dtype=pl.List(pl.String)),
        )
    )


def _with_not_applicable(rows: pl.DataFrame, not_applicable: pl.DataFrame) -> pl.DataFrame:
    keys = list(CELL_KEYS[1:])
    counted = (
        not_applicable.group_by(*keys, "reason")
        .agg(pl.col("n_samples").sum().cast(pl.Int64))
        .sort("n_samples", "reason", descending=[True, False])
        .group_by(keys, maintain_order=True)
        .agg(
            n=pl.col("n_samples").sum(),
            text=pl.format("{} ({})", "reason", "n_samples").str.join("; "),
        )
    )
    joined = rows.join(counted, on=keys, how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(
        n_not_applicable=pl.coalesce("n", "n_not_applicable", pl.lit(0)),
        not_applicable=pl.coalesce("text", "not_applicable"),
    ).drop("n", "text")


def with_facts(
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

"""The summary of a run: one row for each model, dataset, prompt type, probe and attribute.

Conventions: see `harness.stats.columns` for names and units. Undefined figures are NaN
with a ``reason``; what was not measured is counted. Equal plans and scores give equal
summaries, whatever the order of their rows. Figures over all attributes of a probe are not pooled.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from harness.metrics import EMPTY_SCORES, signature
from harness.stats.away import rows_away
from harness.stats.columns import (
    SUMMARY_SCHEMA,
    TOO_LOW,
    limit_columns,
    relative_columns,
    too_low,
)
from harness.stats.facts import ModelFacts
from harness.stats.intervals import MINIMUM_WORDS, cell_intervals
from harness.stats.limits import Intervals
from harness.stats.pairs import CELL_KEYS, Pairs, paired
from harness.stats.relative import cell_means, cluster_sums, nested_means
from harness.suites import Statistics, Suite

MOST_EMPTY = 0.2
"""Share of originals with an empty mask above which a model gets no verdict."""

CUT_AWAY = "edits cut away by the model's token limit"
"""Reason of a probe none of whose edits reaches the model: it is not robust, it is not tested."""

_NO_KIND = "kind not stated"


def summarise(
    plan: pl.DataFrame,
    scores: pl.DataFrame,
    *,
    models: Sequence[ModelFacts],
    not_applicable: pl.DataFrame,
    suite: Suite,
    cluster_kinds: Mapping[str, str] | None = None,
    texts: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Summarise a run, finished or not.

    Args:
        plan: Cases, as in the run directory.
        scores: Scores, as in the run directory; rows of other models are ignored.
        models: The models to summarise.
        not_applicable: What made no variant, with reasons.
        suite: Its metric and statistics are used.
        cluster_kinds: What a dataset's clusters are: ``patient``, ``sequence``,
            ``sequence (estimated)``, ``image (assumed independent)``.
        texts: How texts reach each model, as in the run directory; cases whose edits a
            model's token limit cuts away are counted and left out of every figure.

    Returns:
        A frame with `SUMMARY_SCHEMA`, sorted by its keys. The probe ``original`` holds
        Dice of the original prompts, ``out_of_distribution`` the change away from the
        sets of training, if the suite asks for it.

    Raises:
        RunError: A case is scored twice for one model, or counts are impossible.
    """
    settings = suite.statistics
    models = list({m.model_id: m for m in models}.values())
    pairs = paired(plan, scores, models=models, empty=EMPTY_SCORES[suite.metric.empty], texts=texts)
    nested = nested_means(pairs.cases)
    sums = cluster_sums(nested.samples)
    found = cell_intervals(pairs, nested, sums, count=settings.draws, seed=settings.seed)
    rows = (
        pairs.cells.join(_counted(pairs), on="cell", how="left", maintain_order="left")
        .join(
            cell_means(nested.samples, sums, floor=settings.dice_floor),
            on="cell",
            how="left",
            maintain_order="left",
        )
        .with_columns(pl.Series(name, v) for name, v in _measured(found, settings).items())
    )
    parts = [_shaped(_judged(rows, settings))]
    if suite.out_of_distribution:
        away = rows_away(pairs, nested.samples, models=models, settings=settings)
        parts.append(_from_rows(away))
    parts.append(_with_nothing(not_applicable, pairs))
    whole = _with_not_applicable(pl.concat(parts), not_applicable)
    whole = _with_facts(whole, models, suite, cluster_kinds or {})
    return whole.sort(CELL_KEYS, nulls_last=False)


def _counted(pairs: Pairs) -> pl.DataFrame:
    """How many cases of each cell were planned, and what became of them."""
    lost = ("failed", "missing", "original_lost", "undefined", "cut_away")
    flags = (*lost, "both_empty", "same_tokens")
    worded = pl.col("dice").is_not_null() & (pl.col("word") > 0)
    return pairs.cases.group_by("cell", maintain_order=True).agg(
        pl.len().alias("n_cases"),
        *(pl.col(flag).sum().alias(f"n_{flag}") for flag in flags),
        pl.col("word").filter(worded).n_unique().alias("n_words"),
        pl.col("perturbation", "meaning").first(),
        pl.col("expected_mask").unique().sort().str.join("+"),
    )


def _measured(found: Mapping[str, Intervals], settings: Statistics) -> dict[str, np.ndarray]:
    """Columns with limits for all cells; an original is its own reference."""
    dice, reference = found["dice"], found["reference"]
    is_original = np.isnan(reference.estimate)
    reference = Intervals(
        *(np.where(is_original, d, r) for d, r in zip(dice, reference, strict=True))
    )
    undefined = too_low(reference, slice(None), settings.dice_floor) & ~is_original
    relative = Intervals(*(np.where(undefined, np.nan, x) for x in found["relative"]))
    return {
        **relative_columns(relative),
        **limit_columns("change", "_points", found["points"], scale=100, low=-100, high=100),
        **limit_columns("dice", "", dice, low=0, high=1),
        **limit_columns("reference_dice", "", reference, low=0, high=1),
        **limit_columns("agreement", "", found["agreement"], low=0, high=1),
        "too_low": undefined,
    }


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
        pl.when(pl.col("too_low"))
        .then(pl.lit(TOO_LOW))
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


def _with_facts(
    rows: pl.DataFrame, models: Sequence[ModelFacts], suite: Suite, kinds: Mapping[str, str]
) -> pl.DataFrame:
    """Names, thresholds and signatures; undefined figures become NaN."""
    names = {m.model_id: m.name for m in models}
    thresholds = {m.model_id: m.threshold for m in models}
    signatures = {m.model_id: signature(suite.metric, m.threshold) for m in models}
    perturbations = {p.name: p.perturbation for p in suite.probes}
    model = pl.col("model_id")
    return rows.with_columns(
        model=model.replace_strict(names, return_dtype=pl.String),
        threshold=model.replace_strict(thresholds, return_dtype=pl.Float64),
        signature=model.replace_strict(signatures, return_dtype=pl.String),
        cluster_kind=pl.col("dataset").replace_strict(
            kinds, default=_NO_KIND, return_dtype=pl.String
        ),
        perturbation=pl.col("perturbation").fill_null(
            pl.col("probe").replace_strict(perturbations, default=None, return_dtype=pl.String)
        ),
        notes=pl.col("notes").fill_null([]),
        verdict_allowed=pl.col("verdict_allowed").fill_null(False),
    ).with_columns(pl.selectors.float().fill_null(np.nan))

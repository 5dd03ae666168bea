"""Per-cell estimates and intervals of a run, before anything is decided.

Conventions: see `harness.stats.pairs` for cells, `harness.stats.intervals` for quantities,
`harness.engine.surface` for the distances between contours. Means of text shifts and of contour
distances are over cases, which weigh the same, without intervals: they describe and decide
nothing. A mean of distances leaves out the cases whose value is undefined, so that
``n_one_empty``, those where exactly one mask is empty (a missed lesion, or a mask where none
should be), stands beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from harness.metrics import EMPTY_SCORES
from harness.stats.answers import answer_note, widen_by_answers
from harness.stats.coding import PLAN_KEYS
from harness.stats.columns import add_names, cell_rows, low_baselines
from harness.stats.inference import Inference
from harness.stats.intervals import RELATIVE, cell_intervals
from harness.stats.pairs import CELL_KEYS, ModelFacts, Pairs, pair
from harness.stats.refusal import rates
from harness.stats.relative import ClusterSums, reduce
from harness.stats.seeds import add_seeds, as_recipes, expand, pool_seeds, seed_columns
from harness.suite.schema import Statistics, Suite

FEWEST_DRAWS = 100


@dataclass(frozen=True, slots=True)
class Estimates:
    """Per-cell estimates and intervals."""

    pairs: Pairs  # each variant joined with its baseline
    sums: ClusterSums  # over units
    # Intervals of each quantity for all cells; what is relative to a baseline too low is undefined
    # in them, so that no verb can tell it.
    solved: Mapping[str, Inference]
    rows: pl.DataFrame  # a row a cell, with its number in ``cell``
    named: pl.DataFrame  # the same with names, signatures and kinds of clusters
    by_seed: pl.DataFrame  # of `harness.stats.seeds.Pooled`


def estimate(
    plan: pl.DataFrame | pl.LazyFrame,
    scores: pl.DataFrame | pl.LazyFrame,
    *,
    models: Sequence[ModelFacts],
    suite: Suite,
    cluster_kinds: Mapping[str, str] | None = None,
    texts: pl.DataFrame | None = None,
) -> Estimates:
    """Go through a run's cases once and solve for every interval.

    Raises:
        RunError: A case is scored twice for one model, or counts are impossible.
    """
    settings = suite.statistics
    empty = EMPTY_SCORES[suite.metric.empty]

    def paired(part: pl.DataFrame | pl.LazyFrame) -> Pairs:
        return pair(
            part,
            scores,
            models=expand(models),
            empty=empty,
            floor=settings.dice_floor,
            refusal_area=settings.refusal_area,
            texts=texts,
        )

    pairs = paired(plan)
    pairs, sums, by_seed = pool_seeds(pairs, reduce(pairs), models)
    solved, answers = widen_by_answers(
        plan,
        _solved(pairs, sums, settings, settings.draws),
        lambda part: _alone(paired(part), models),
    )
    solved = dict(solved)
    solved |= rates(sums.units, n_cells=pairs.cells.height)
    solved, spreads = add_seeds(solved, by_seed)
    low = low_baselines(solved, settings.dice_floor)
    solved = {
        name: one.without(low != "") if name in RELATIVE else one for name, one in solved.items()
    }
    n_seeds = {m.model_id: len(m.seeds) for m in models}
    rows = cell_rows(pairs, sums, solved, low, settings=settings, n_seeds=n_seeds)
    rows = seed_columns(rows, spreads, models)
    scores = as_recipes(scores, models)
    if texts is not None:
        texts = None if texts.is_empty() else as_recipes(texts, models).lazy().collect()
    rows = _beside(rows, text_shifts(plan, texts), text_shift=pl.Float64)
    rows = _beside(rows, prompts_cut(plan, texts), n_truncated=pl.Int64)
    surface = None if set(suite.metric.columns) <= {"iou"} else surface_means(plan, scores)
    counts = dict.fromkeys(("n_one_empty", "n_surface"), pl.Int64)
    rows = _beside(rows, surface, **dict.fromkeys(MEASURES, pl.Float64), **counts)
    if answers is not None:
        rows = rows.join(answer_note(answers), on="cell", how="left", maintain_order="left")
        told = pl.concat_list("notes", "answer_note").list.drop_nulls()
        rows = rows.with_columns(notes=told).drop("answer_note")
    named = add_names(rows, models, suite, cluster_kinds or {})
    return Estimates(pairs, sums, solved, rows, named, by_seed)


def _solved(
    pairs: Pairs, sums: ClusterSums, settings: Statistics, count: int
) -> dict[str, Inference]:
    return cell_intervals(
        sums.units,
        sums.words,
        cells=pairs.cells,
        units=pairs.plan.units,
        words=pairs.plan.words,
        count=count,
        seed=settings.seed,
    )


def _alone(pairs: Pairs, models: Sequence[ModelFacts]) -> dict[str, Inference]:
    """The figures of one answer to each case; of their intervals nothing is used."""
    pairs, sums, _ = pool_seeds(pairs, reduce(pairs), models)
    return _solved(pairs, sums, Statistics(), FEWEST_DRAWS)


def _beside(
    rows: pl.DataFrame, found: pl.DataFrame | None, **columns: type[pl.DataType]
) -> pl.DataFrame:
    """Columns of cells put beside rows: counts are 0, figures null where there are none."""
    if found is None:
        rows = rows.with_columns(pl.lit(None, dtype).alias(c) for c, dtype in columns.items())
    else:
        rows = rows.join(found, on=CELL_KEYS, how="left", nulls_equal=True, maintain_order="left")
    return rows.with_columns(
        pl.col(c).fill_null(0) for c, dtype in columns.items() if dtype == pl.Int64
    )


_PAIR = ("text", "original_text")


def text_shifts(
    plan: pl.DataFrame | pl.LazyFrame, texts: pl.DataFrame | None
) -> pl.DataFrame | None:
    """``text_shift`` of each cell whose edits a model embedded.

    None where nothing was embedded.
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

    None where nothing is cut.
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


MEASURES = ("hausdorff_px", "hd95_px", "nsd")
"""Columns of scores and summary: distances in pixels, and a share."""


def surface_means(
    plan: pl.DataFrame | pl.LazyFrame, scores: pl.DataFrame | pl.LazyFrame
) -> pl.DataFrame:
    """Means of `MEASURES` and the counts beside them, of each cell.

    ``n_one_empty`` and ``n_surface``: cases with one mask that is empty, and with two masks.
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

"""What a run's counts give before anything is decided: sums, intervals, a row a cell.

Conventions: see `harness.stats.pairs` for cells, `harness.stats.intervals` for quantities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from harness.metrics import EMPTY_SCORES
from harness.stats.edits import prompts_cut, text_shifts
from harness.stats.facts import ModelFacts
from harness.stats.intervals import RELATIVE, Solved, cell_intervals
from harness.stats.pairs import CELL_KEYS, Pairs, paired
from harness.stats.reduce import Reduced, reduced
from harness.stats.summary import cell_rows, low_baselines, with_facts
from harness.stats.surface import MEASURES, surface_means
from harness.suite.schema import Suite


@dataclass(frozen=True, slots=True)
class Measured:
    """A run in figures, from which verdicts are made.

    Attributes:
        pairs: Every case beside its own original.
        left: What is left of the cases: sums over units.
        solved: Intervals of each quantity for all cells; what is relative to a baseline too low
            is undefined in them, so that no verb can tell it.
        rows: A row a cell, with its number in ``cell``.
        named: The same with names, signatures and kinds of clusters.
    """

    pairs: Pairs
    left: Reduced
    solved: Mapping[str, Solved]
    rows: pl.DataFrame
    named: pl.DataFrame


def measured(
    plan: pl.DataFrame | pl.LazyFrame,
    scores: pl.DataFrame | pl.LazyFrame,
    *,
    models: Sequence[ModelFacts],
    suite: Suite,
    cluster_kinds: Mapping[str, str] | None = None,
    texts: pl.DataFrame | None = None,
) -> Measured:
    """Go through a run's cases once and solve for every interval.

    Args:
        plan: Cases, as in the run directory.
        scores: Scores, as in the run directory; rows of other models are ignored.
        models: The models to measure, each once.
        suite: Its metric and statistics are used.
        cluster_kinds: What a dataset's clusters are.
        texts: How texts reach each model, as in the run directory.

    Raises:
        RunError: A case is scored twice for one model, or counts are impossible.
    """
    settings = suite.statistics
    empty = EMPTY_SCORES[suite.metric.empty]
    pairs = paired(plan, scores, models=models, empty=empty, floor=settings.dice_floor, texts=texts)
    left = reduced(pairs)
    solved = cell_intervals(
        left.units,
        left.words,
        cells=pairs.cells,
        units=pairs.plan.units,
        words=pairs.plan.words,
        count=settings.draws,
        seed=settings.seed,
    )
    low = low_baselines(solved, settings.dice_floor)
    solved = {
        name: one.without(low != "") if name in RELATIVE else one for name, one in solved.items()
    }
    rows = cell_rows(pairs, left, solved, low, settings=settings)
    rows = _beside(rows, text_shifts(plan, texts), text_shift=pl.Float64)
    rows = _beside(rows, prompts_cut(plan, texts), n_truncated=pl.Int64)
    surface = None if set(suite.metric.columns) <= {"iou"} else surface_means(plan, scores)
    counts = dict.fromkeys(("n_one_empty", "n_surface"), pl.Int64)
    rows = _beside(rows, surface, **dict.fromkeys(MEASURES, pl.Float64), **counts)
    named = with_facts(rows, models, suite, cluster_kinds or {})
    return Measured(pairs, left, solved, rows, named)


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

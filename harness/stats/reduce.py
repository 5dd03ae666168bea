"""From the cases of a run to sums over units: everything that intervals and figures need.

Conventions: cases are read in chunks of whole clusters, and what is kept of a chunk is small:
sums over (cell, unit), over (cell, unit, word), and a row of totals a cell.
"""

from dataclasses import dataclass

import polars as pl

from harness.stats.pairs import Pairs
from harness.stats.relative import Nested, cell_figures, cell_totals, cluster_sums, nested_means

_FLAGS = (
    *("failed", "missing", "original_lost", "undefined", "cut_away"),
    *("both_empty", "same_tokens"),
)


@dataclass(frozen=True, slots=True)
class Reduced:
    """What is left of a run's cases.

    Attributes:
        figures: Of `harness.stats.relative.cell_figures`, a row a cell.
        counted: What became of each cell's cases, a row a cell.
        units: Sums over the samples of each (cell, unit), in order.
        words: How far each (cell, unit, word) lies from the sums over all words, in order.
        originals: ``cell, cluster, unit, sample, dice`` of the original prompts.
    """

    figures: pl.DataFrame
    counted: pl.DataFrame
    units: pl.DataFrame
    words: pl.DataFrame
    originals: pl.DataFrame


def reduced(pairs: Pairs) -> Reduced:
    """Go through all cases once.

    Raises:
        RunError: A (model, case) has two scores, or counts are impossible.
    """
    unit_of = pairs.plan.clusters.select("cluster", "unit")
    original = pairs.cells.filter(pl.col("probe") == "original").select("cell")
    parts: dict[str, list[pl.DataFrame]] = {}
    for cases in pairs.chunks():
        for name, frame in _of_chunk(cases, unit_of, original, floor=pairs.floor).items():
            parts.setdefault(name, []).append(frame)
    whole = {name: pl.concat(frames) for name, frames in parts.items()}
    return Reduced(
        figures=cell_figures(_summed(whole["totals"], ["cell"])),
        counted=_counted(whole["counted"], whole["used_words"]),
        units=_summed(whole["units"], ["cell", "unit"]),
        words=_summed(whole["words"], ["cell", "unit", "word"]),
        originals=whole["originals"].sort("cell", "sample"),
    )


def _of_chunk(
    cases: pl.DataFrame, unit_of: pl.DataFrame, original: pl.DataFrame, *, floor: float
) -> dict[str, pl.DataFrame]:
    nested: Nested = nested_means(cases)
    sums = cluster_sums(nested.samples)
    worded = pl.col("dice").is_not_null() & (pl.col("word") > 0)
    own = nested.samples.drop_nulls("dice").join(original, on="cell", how="semi")
    own = own.select("cell", "cluster", "sample", "dice")
    return {
        "totals": cell_totals(nested.samples, sums, floor=floor),
        "counted": cases.group_by("cell", maintain_order=True).agg(pl.col(_FLAGS).sum()),
        "used_words": cases.filter(worded).select("cell", "word").unique(),
        "units": _to_units(sums, unit_of, ["cell", "unit"]),
        "words": _to_units(nested.words, unit_of, ["cell", "unit", "word"]),
        "originals": own.join(unit_of, on="cluster", how="left"),
    }


def _to_units(frame: pl.DataFrame, unit_of: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    joined = frame.join(unit_of, on="cluster", how="left", maintain_order="left").drop("cluster")
    return joined.group_by(keys, maintain_order=True).agg(pl.exclude(keys).sum())


def _summed(frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Rows of several chunks added up, in the order of their keys."""
    summed = frame.group_by(keys, maintain_order=True).agg(pl.exclude(keys).sum())
    return summed.sort(keys)


def _counted(flags: pl.DataFrame, used_words: pl.DataFrame) -> pl.DataFrame:
    words = used_words.unique().group_by("cell").agg(n_words=pl.len())
    counts = _summed(flags, ["cell"]).rename({flag: f"n_{flag}" for flag in _FLAGS})
    return counts.join(words, on="cell", how="left").with_columns(pl.col("n_words").fill_null(0))

"""Sums over clusters of one run, or of two runs of one plan case by case.

Conventions: one row a (summary row, cluster): `SUM_KEYS`, ``cluster`` and `SUMS`. Means nest as in
`harness.stats.relative`. The names of clusters are those that the bootstrap resamples.
"""

from collections.abc import Iterator

import polars as pl

from harness.stats.coding import PLAN_KEYS
from harness.stats.pairs import Pairs
from harness.stats.relative import cluster_sums, nested_means

SUM_KEYS = PLAN_KEYS
SUMS = ("n", "reference", "dice", "n_named", "own_named", "dice_named")
"""Samples with both Dice, sums of original and changed Dice; the same where a target is named."""

_NAMED = ("dice_named", "own_named", "reference_named")
_KNOWN = {"dice": ("dice", "reference"), "dice_named": _NAMED}


def named_sums(units: pl.DataFrame, pairs: Pairs) -> pl.DataFrame:
    """Sums of each (cell, unit) of one model, under the names of their rows and clusters.

    Args:
        units: ``cell, unit`` and `SUMS`, as `harness.stats.reduce.Reduced` has them.
        pairs: Of the same run and one model.
    """
    named = pairs.plan.units.select("unit", cluster="name")
    return (
        units.join(pairs.cells.select("cell", *SUM_KEYS), on="cell")
        .join(named, on="unit")
        .select(*SUM_KEYS, "cluster", *SUMS)
        .sort(*SUM_KEYS, "cluster", nulls_last=False)
    )


def matched_sums(new: Pairs, old: Pairs) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sums of two runs of one plan over the cases that both of them have.

    Args:
        new: One model of a run.
        old: One model of another run, whose plan is the same.

    Raises:
        ValueError: The two plans hold other cases.
    """
    parts: tuple[list[pl.DataFrame], list[pl.DataFrame]] = ([], [])
    for both in _matched(new, old):
        for frames, cases, pairs in zip(parts, both, (new, old), strict=True):
            sums = cluster_sums(nested_means(cases).samples)
            unit_of = pairs.plan.clusters.select("cluster", "unit")
            frames.append(sums.join(unit_of, on="cluster").drop("cluster"))
    found = []
    for frames, pairs in zip(parts, (new, old), strict=True):
        keys = ["cell", "unit"]
        units = pl.concat(frames).group_by(keys).agg(pl.exclude(keys).sum())
        found.append(named_sums(units, pairs))
    return found[0], found[1]


def _matched(new: Pairs, old: Pairs) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Chunks of both runs, a value kept only where the other run has it as well."""
    for left, right in zip(new.chunks(), old.chunks(), strict=True):
        if not left["case_id"].equals(right["case_id"]):
            raise ValueError("matching: the two runs hold other cases. Compare them by cluster.")
        yield _where_known(left, right), _where_known(right, left)


def _where_known(own: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    columns = []
    for key, names in _KNOWN.items():
        known = other[key].is_not_null()
        columns += [pl.when(known).then(pl.col(name)).alias(name) for name in names]
    return own.with_columns(columns)

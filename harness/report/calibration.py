"""What models do where one attribute alone decides: the instrument's own check, as a table.

A split that bears an attribute's name holds scenes in which this attribute alone tells
two targets apart. There the opposite word names the other target: a model that uses
the word loses nearly all its Dice with the first one, a model that does not loses nothing.

Conventions: changes are percent of Dice with 95 % limits. What they mean is said by the
language verdicts of `harness.stats.listening`, in their own sentences.
"""

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from harness.report.sections import interval, number
from harness.stats.language import LanguageVerdict

Row = dict[str, Any]


def sentences(language: Sequence[LanguageVerdict]) -> list[str]:
    """One sentence for each model and data set on which words were changed."""
    return [verdict.reason for verdict in language if verdict.evidence]


def table(summary: pl.DataFrame, *, intervals: bool = True) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a model a row; a deciding attribute a column, then Dice on whole sets.

    Args:
        summary: A run's summary.
        intervals: Whether the limits stand beside each change; a narrow page has no room.
    """
    deciding = summary.filter(
        pl.col("perturbation") == "antonym",
        pl.col("attribute") == pl.col("split"),
        pl.col("n_samples") > 0,
    ).rows(named=True)
    models = list(dict.fromkeys(row["model"] for row in deciding))
    cells = {(r["model"], r["attribute"]): _cell(r, intervals=intervals) for r in deciding}
    originals = summary.filter(pl.col("probe") == "original", pl.col("split") == "test")
    for row in originals.iter_rows(named=True):
        cells[row["model"], f"Dice {row['dataset']}"] = number(row["dice"], 3)
    names = dict.fromkeys(name for _, name in cells)
    return ["model", *names], [[m, *(cells.get((m, name), "-") for name in names)] for m in models]


def _cell(row: Row, *, intervals: bool) -> str:
    """``-86 [-88, -80]``, or the change alone; as it stands where it is no number."""
    figures = [row[f"relative_change{end}_percent"] for end in ("", "_low", "_high")]
    if not math.isfinite(sum(figures)):
        return interval(row, "relative_change", "_percent", 1)
    change, low, high = (str(round(value)) for value in figures)
    return f"{change} [{low}, {high}]" if intervals else change

"""What models do where one attribute alone decides: the instrument's own check, in words.

A split that bears an attribute's name holds scenes in which this attribute alone tells
two targets apart. There the opposite word names the other target: a model that uses
the word loses nearly all its Dice with the first one, a model that does not loses nothing.

Conventions: changes are percent of Dice with 95 % limits. *Listens* means limits wholly
below `MOVED`, *does not listen* limits wholly within +/- `UNMOVED`; anything else, too few
clusters for a verdict and too low a baseline are left open. These are readings of
intervals, not verdicts with error rates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from harness.report.sections import interval, number

MOVED, UNMOVED = -10.0, 3.0
Row = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """One model where one attribute decides."""

    model: str
    attribute: str
    change: str
    percent: float
    low: float
    high: float
    enough: bool

    @property
    def kind(self) -> str:
        """``listens``, ``does not listen`` or ``unclear``."""
        if not self.enough or not math.isfinite(self.low + self.high):
            return "unclear"
        if self.high < MOVED:
            return "listens"
        return "does not listen" if max(abs(self.low), abs(self.high)) <= UNMOVED else "unclear"


def readings(summary: pl.DataFrame) -> list[Reading]:
    """Every (model, attribute) of a run's deciding splits, under the opposite word."""
    rows = summary.filter(
        pl.col("perturbation") == "antonym",
        pl.col("attribute") == pl.col("split"),
        pl.col("n_samples") > 0,
    )
    return [
        Reading(
            model=row["model"],
            attribute=row["attribute"],
            change=interval(row, "relative_change", "_percent", 1),
            percent=row["relative_change_percent"],
            low=row["relative_change_low_percent"],
            high=row["relative_change_high_percent"],
            enough=bool(row["verdict_allowed"]),
        )
        for row in rows.iter_rows(named=True)
    ]


def sentence(model: str, found: Sequence[Reading]) -> str:
    """One sentence in plain English about one model."""
    by_kind: dict[str, list[str]] = {}
    for reading in found:
        by_kind.setdefault(reading.kind, []).append(reading.attribute)
    parts = []
    if heard := by_kind.get("listens"):
        parts.append(f"listens to {_listed(heard)}: the opposite word moves its mask away")
    if deaf := by_kind.get("does not listen"):
        none = "nothing" if len(deaf) == len(found) else _listed(deaf)
        parts.append(
            "listens to nothing: whichever word changes, its masks score the same"
            if none == "nothing"
            else f"does not listen to {none}"
        )
    if unclear := by_kind.get("unclear"):
        why = "too few scenes, or a change neither small nor large"
        parts.append(f"cannot be judged on {_listed(unclear)} ({why})")
    return f"{model} {'; '.join(parts)}."


def sentences(summary: pl.DataFrame) -> list[str]:
    """One sentence per model, in the order of the summary."""
    found = readings(summary)
    models = list(dict.fromkeys(reading.model for reading in found))
    return [sentence(model, [r for r in found if r.model == model]) for model in models]


def table(summary: pl.DataFrame, *, intervals: bool = True) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a model a row; a deciding attribute a column, then Dice on whole sets.

    Args:
        summary: A run's summary.
        intervals: Whether the limits stand beside each change; a narrow page has no room.
    """
    found = readings(summary)
    models = list(dict.fromkeys(reading.model for reading in found))
    cells = {(r.model, r.attribute): _cell(r, intervals=intervals) for r in found}
    originals = summary.filter(pl.col("probe") == "original", pl.col("split") == "test")
    for row in originals.iter_rows(named=True):
        cells[row["model"], f"Dice {row['dataset']}"] = number(row["dice"], 3)
    names = dict.fromkeys(name for _, name in cells)
    return ["model", *names], [[m, *(cells.get((m, name), "-") for name in names)] for m in models]


def _cell(reading: Reading, *, intervals: bool) -> str:
    """``-86 [-88, -80]``, or the change alone; as it stands where it is no number."""
    if not math.isfinite(reading.percent + reading.low + reading.high):
        return reading.change
    change, low, high = (
        str(round(value)) for value in (reading.percent, reading.low, reading.high)
    )
    return f"{change} [{low}, {high}]" if intervals else change


def _listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last

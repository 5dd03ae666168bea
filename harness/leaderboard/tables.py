"""The tables of the board: per set, per probe, and everything of one model.

Conventions: see `harness.report.sheet`; figures are rounded for reading, the data behind a table
have ten significant digits, which every machine computes alike. Changes are percent of the
original Dice.
"""

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from harness.leaderboard.board import Row
from harness.leaderboard.standing import Spread, spread
from harness.records import Meaning
from harness.report.sections import number
from harness.report.sheet import Cell, Sheet, count_cell, figure_cell, text_cells

_SET = ("dataset", "split")


def spread_cell(found: Spread | None) -> Cell:
    """``mean (least to most)``; the mean alone where it is of one figure.

    Example:
        >>> spread_cell(Spread(-50.0, -100.0, 0.0, 5))
        Cell(text='-50.0 (-100 to 0)', key='-50')
    """
    if found is None or found.count == 0:
        return Cell("-")
    text = number(found.mean, 1)
    if found.count > 1:
        text += f" ({number(found.least, 0)} to {number(found.most, 0)})"
    return Cell(text, f"{found.mean:.6g}")


def _stable(data: pl.DataFrame) -> pl.DataFrame:
    return data.with_columns(pl.selectors.float().round_sig_figs(_DIGITS))


_DIGITS = 10


def dice_sheet(rows: Sequence[Row]) -> Sheet:
    """Dice of the original prompts, a column a set."""
    frames = [_originals(row) for row in rows]
    sets = frames[0].select(_SET).rows() if frames else []
    header = ("model", *(f"{d}/{s}" for d, s in sets))
    body = tuple(
        (*text_cells([row.submission.name]), *(_dice_cell(frame, one) for one in sets))
        for row, frame in zip(rows, frames, strict=True)
    )
    data = pl.concat(
        [
            frame.with_columns(model=pl.lit(row.submission.name))
            for row, frame in zip(rows, frames, strict=True)
        ]
        or [pl.DataFrame({"model": []})]
    )
    return Sheet(
        "dice-by-set", "Dice of the original prompts, set by set", header, body, 1, _stable(data)
    )


def _originals(row: Row) -> pl.DataFrame:
    columns = (*_SET, "dice", "dice_low", "dice_high", "n_samples", "n_clusters")
    rows = row.assessment.summary.filter(pl.col("probe") == "original")
    return rows.select(columns).sort(_SET)


def _dice_cell(frame: pl.DataFrame, one: tuple[str, str]) -> Cell:
    row = frame.filter(pl.col("dataset") == one[0], pl.col("split") == one[1])
    return figure_cell(*_three(row.row(0, named=True), "dice", 3)) if row.height else Cell("-")


def _three(row: dict[str, Any], name: str, digits: int, unit: str = "") -> tuple[Any, ...]:
    return row[f"{name}{unit}"], digits, row[f"{name}_low{unit}"], row[f"{name}_high{unit}"]


def kept_sheet(rows: Sequence[Row]) -> Sheet:
    """What edits that keep the meaning do to Dice, a column a probe."""
    own = [
        r.assessment.summary.filter(pl.col("meaning") == Meaning.PRESERVED, pl.col("n_cases") > 0)
        for r in rows
    ]
    probes = list(dict.fromkeys(name for frame in own for name in frame["probe"]))
    body = tuple(
        (
            *text_cells([row.submission.name, row.standing.steadiness]),
            *(spread_cell(spread(frame.filter(pl.col("probe") == p))) for p in probes),
        )
        for row, frame in zip(rows, own, strict=True)
    )
    title = "Edits that keep the meaning: change of Dice in %, mean and range over the sets"
    columns = ("model", *_SET, "probe", "attribute", "relative_change_percent", "verdict")
    data = pl.concat([f.select(columns) for f in own] or [pl.DataFrame({"model": []})])
    return Sheet("meaning-kept", title, ("model", "steadiness", *probes), body, 2, _stable(data))


def model_sheet(row: Row) -> Sheet:
    """Every probe on every set, of one model."""
    header = ("dataset", "split", "probe", "attribute", "meaning", "holds?")
    header += ("change % [95 %]", "points", "Dice [95 %]", "agreement", "Dice with the named mask")
    header += ("samples", "clusters", "not applicable")
    rows = row.assessment.summary.sort("dataset", "split", "probe", "attribute")
    body = tuple(_model_cells(one) for one in rows.iter_rows(named=True))
    data = _stable(rows.drop("notes"))
    return Sheet("figures", "Every probe on every set", header, body, 6, data)


_SAID = {"holds": "yes", "fails": "no", "inconclusive": "open"}


def _model_cells(row: dict[str, Any]) -> tuple[Cell, ...]:
    words = [row["dataset"], row["split"], row["probe"], row["attribute"], row["meaning"]]
    said = _SAID.get(row["verdict"] or "", row["reason"] or "-")
    return (
        *text_cells(words),
        Cell(said),
        figure_cell(*_three(row, "relative_change", 1, "_percent")),
        figure_cell(row["change_points"], 1),
        figure_cell(*_three(row, "dice", 3)),
        figure_cell(row["agreement"], 3),
        figure_cell(row["dice_named"], 3),
        count_cell(row["n_samples"]),
        count_cell(row["n_clusters"]),
        count_cell(row["n_not_applicable"]),
    )


def dice_text(row: Row) -> str:
    """``0.912 [0.900, 0.921]``, or a dash."""
    if not math.isfinite(row.dice.estimate):
        return "-"
    return figure_cell(row.dice.estimate, 3, row.dice.low, row.dice.high).text

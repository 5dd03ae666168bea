"""The tables of the board: per set, per probe, and everything of one model.

Conventions: see `harness.report.sheet`; figures are rounded for reading, the data behind a table
have ten significant digits, which every machine computes alike. Changes are percent of the
original Dice.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from harness.leaderboard.board import Row
from harness.leaderboard.standing import Spread, spread
from harness.leaderboard.submission import CLAIMS
from harness.records import Meaning
from harness.report.attribute_chart import attribute_figure
from harness.report.figure import Figure
from harness.report.scatter import agreement_figure, away_figure
from harness.report.sections import number
from harness.report.sheet import Cell, Sheet, figure_cell, text_cells
from harness.report.sheets import away_sheet, originals_sheet, probes_sheet

_SET = ("dataset", "split")


def spread_cell(found: Spread | None) -> Cell:
    """``mean (least to most)``; the mean alone where it is of one figure.

    Example:
        >>> spread_cell(Spread(-50.0, -100.0, 0.0, 5))
        Cell(text='-50.0 (-100 to 0)', key='-50')
    """
    if found is None or found.n_rows == 0:
        return Cell("-")
    text = number(found.mean, 1)
    if found.n_rows > 1:
        text += f" ({number(found.least, 0)} to {number(found.most, 0)})"
    return Cell(text, f"{found.mean:.6g}")


def stable(data: pl.DataFrame) -> pl.DataFrame:
    """Data as files hold them: ten digits, in which machines agree, and no empty column."""
    rounded = data.with_columns(pl.selectors.float().fill_nan(None).round_sig_figs(_DIGITS))
    return rounded.select(s for s in rounded.iter_columns() if s.null_count() < len(s))


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
        "dice-by-set", "Dice of the original prompts, set by set", header, body, 1, stable(data)
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
    return Sheet("meaning-kept", title, ("model", "steadiness", *probes), body, 2, stable(data))


def model_sheets(row: Row) -> list[Sheet]:
    """Every figure of one model, in the tables of its report."""
    summary = row.assessment.summary
    found = [originals_sheet(summary), probes_sheet(summary), away_sheet(summary)]
    return [_of_one_model(sheet) for sheet in found if sheet.rows]


_IN_FILES = dict.fromkeys((*CLAIMS, "meaning", "agreement_low", "agreement_high", "reason"))


def _of_one_model(sheet: Sheet) -> Sheet:
    """A table without its first column, which names the model."""
    rows = tuple(cells[1:] for cells in sheet.rows)
    data = stable(sheet.data.select(c for c in _IN_FILES if c in sheet.data.columns))
    return replace(sheet, header=sheet.header[1:], rows=rows, n_text=sheet.n_text - 1, data=data)


def model_figures(row: Row) -> list[Figure]:
    """The figures of one model's report that need nothing but its summary."""
    summary, names = row.assessment.summary, {row.facts.model_id: row.submission.name}
    found = (
        attribute_figure(summary, names),
        agreement_figure(summary, names),
        away_figure(summary, names),
    )
    return [replace(figure, data=stable(figure.data)) for figure in found if figure is not None]


def dice_text(row: Row) -> str:
    """``0.912 [0.900, 0.921]``, or a dash."""
    if not math.isfinite(row.dice.estimate):
        return "-"
    return figure_cell(row.dice.estimate, 3, row.dice.low, row.dice.high).text

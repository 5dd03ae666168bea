"""The tables and charts of the site: per set, per probe, and everything of one model.

Conventions: see `harness.report.sheet`; figures are rounded for reading, the data behind a table
have ten significant digits, which every machine computes alike. Changes are percent of the
original Dice.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from harness.leaderboard.board import Row
from harness.leaderboard.standing import Spread, spread_of_changes
from harness.leaderboard.submission import CLAIMS
from harness.records import Meaning
from harness.report.attribute_chart import attribute_figure
from harness.report.figure import Figure
from harness.report.scatter import agreement_figure, away_figure
from harness.report.sections import number
from harness.report.sheet import Cell, Sheet, figure_cell, text_cells
from harness.report.sheets import away_sheet, originals_sheet, probes_sheet

_SET = ("dataset", "split")


def spread_cell(spread: Spread | None) -> Cell:
    """``mean (least to most)``; the mean alone where there is one figure.

    Example:
        >>> spread_cell(Spread(-50.0, -100.0, 0.0, 5))
        Cell(text='-50.0 (-100 to 0)', key='-50')
    """
    if spread is None or spread.n_rows == 0:
        return Cell("-")
    text = number(spread.mean, 1)
    if spread.n_rows > 1:
        text += f" ({number(spread.least, 0)} to {number(spread.most, 0)})"
    return Cell(text, f"{spread.mean:.6g}")


def round_data(data: pl.DataFrame) -> pl.DataFrame:
    """Data behind a table or chart: ten digits, in which machines agree, and no empty column."""
    rounded = data.with_columns(pl.selectors.float().fill_nan(None).round_sig_figs(10))
    return rounded.select(s for s in rounded.iter_columns() if s.null_count() < len(s))


def dice_sheet(rows: Sequence[Row]) -> Sheet:
    """Dice of the original prompts, a column a set."""
    columns = (*_SET, "dice", "dice_low", "dice_high", "n_samples", "n_clusters")
    names = [row.submission.name for row in rows]
    originals = pl.col("probe") == "original"
    frames = [r.assessment.summary.filter(originals).select(columns).sort(_SET) for r in rows]
    sets = frames[0].select(_SET).rows()
    body = tuple(
        (*text_cells([name]), *(_dice_cell(frame, one) for one in sets))
        for name, frame in zip(names, frames, strict=True)
    )
    data = pl.concat(f.with_columns(model=pl.lit(n)) for n, f in zip(names, frames, strict=True))
    return Sheet(
        name="dice-by-set",
        title="Dice of the original prompts, set by set",
        header=("model", *(f"{dataset}/{split}" for dataset, split in sets)),
        rows=body,
        n_text=1,
        data=round_data(data),
    )


def _dice_cell(frame: pl.DataFrame, one: tuple[str, str]) -> Cell:
    row = frame.filter(pl.col("dataset") == one[0], pl.col("split") == one[1])
    if not row.height:
        return Cell("-")
    dice, low, high = row.select("dice", "dice_low", "dice_high").row(0)
    return figure_cell(dice, 3, low, high)


def preserved_sheet(rows: Sequence[Row]) -> Sheet:
    """What edits that keep the meaning do to Dice, a column a probe."""
    keeps = pl.col("meaning") == Meaning.PRESERVED
    own = [r.assessment.summary.filter(keeps, pl.col("n_cases") > 0) for r in rows]
    probes = list(dict.fromkeys(name for frame in own for name in frame["probe"]))
    body = tuple(
        (
            *text_cells([row.submission.name, row.standing.steadiness]),
            *(spread_cell(spread_of_changes(frame.filter(pl.col("probe") == p))) for p in probes),
        )
        for row, frame in zip(rows, own, strict=True)
    )
    columns = ("model", *_SET, "probe", "attribute", "relative_change_percent", "verdict")
    return Sheet(
        name="meaning-kept",
        title="Edits that keep the meaning: change of Dice in %, mean and range over the sets",
        header=("model", "steadiness", *probes),
        rows=body,
        n_text=2,
        data=round_data(pl.concat(f.select(columns) for f in own)),
    )


def model_sheets(row: Row) -> list[Sheet]:
    """The tables of one model's report, without the column that names the model."""
    summary = row.assessment.summary
    sheets = (originals_sheet(summary), probes_sheet(summary), away_sheet(summary))
    return [
        replace(
            sheet,
            header=sheet.header[1:],
            rows=tuple(cells[1:] for cells in sheet.rows),
            n_text=sheet.n_text - 1,
            data=round_data(sheet.data.select(c for c in _IN_FILES if c in sheet.data.columns)),
        )
        for sheet in sheets
        if sheet.rows
    ]


_IN_FILES = dict.fromkeys((*CLAIMS, "meaning", "agreement_low", "agreement_high", "reason"))


def model_figures(row: Row) -> list[Figure]:
    """The charts of one model's report that need nothing but its summary."""
    summary, names = row.assessment.summary, {row.facts.model_id: row.submission.name}
    charts = [draw(summary, names) for draw in (attribute_figure, agreement_figure, away_figure)]
    return [replace(chart, data=round_data(chart.data)) for chart in charts if chart is not None]


def dice_text(row: Row) -> str:
    """``0.912 [0.900, 0.921]``, or a dash."""
    if not math.isfinite(row.dice.estimate):
        return "-"
    return figure_cell(row.dice.estimate, 3, row.dice.low, row.dice.high).text

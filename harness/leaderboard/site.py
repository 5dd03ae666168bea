"""Writes the leaderboard as static pages, each of which needs nothing but itself.

Conventions: ``index.html``, a page a track, ``<track>/<name>.html`` for each model with its badge
``<track>/<name>.svg``, ``submit.html``, and ``board.json``, the same for programs. Pages hold no
times, so that equal submissions give equal pages. Texts of strangers are escaped, and only http(s)
addresses become links. ``built.json`` has a hash of all that pages are made from. Data behind
tables have ten significant digits, which every machine computes alike.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from harness.cards import load_dataset_card
from harness.files import shipped
from harness.files.canonical import canonical
from harness.files.writing import replace_together, write_json, writing
from harness.leaderboard.beside import (
    BADGES,
    REFUSAL_BADGES,
    render_others,
    shared_with_training,
)
from harness.leaderboard.board import FLAGS, SUBMISSIONS, Board, Row
from harness.leaderboard.flags import State, today
from harness.leaderboard.log import BUILT, Log
from harness.leaderboard.standing import (
    LISTENING_BRITTLE,
    LISTENING_STEADY,
    Spread,
    spread_of_changes,
)
from harness.leaderboard.submission import CLAIMS, WITH_THE_HARNESS
from harness.leaderboard.tracks import suite_of, track_names
from harness.records import Meaning
from harness.report import page
from harness.report.charts import listening_map, listening_points
from harness.report.figure import Figure
from harness.report.sheet import Sheet, figure_cell, number, text_cells
from harness.report.sheets import away_sheet, originals_sheet, probes_sheet, refusal_sheet
from harness.report.summary_charts import agreement_figure, attribute_figure, away_figure

TEMPLATES = Path(__file__).with_name("templates")

FLAG_BADGES: Mapping[State, str] = {
    "spot-checked": "good",
    "verified": "calm",
    "unverified": "mute",
    "disputed": "bad",
}


def safe_link(address: str | None) -> str | None:
    """The address if it may become a link, else None.

    Example:
        >>> safe_link("https://example.org/a"), safe_link("javascript:alert(1)")
        ('https://example.org/a', None)
    """
    is_safe = address is not None and re.fullmatch(r"https?://[!-~]{1,300}", address)
    return address if is_safe and not set(str(address)) & set("\"'<>\\`") else None


def render_pages(boards: Sequence[Board]) -> dict[str, str]:
    """Render every page of the site, by its path."""
    # What anyone can run stands first.
    boards = sorted(boards, key=lambda b: (not b.track.is_pinned, b.track.name))
    tracks = [board.track for board in boards]
    shared = {"tracks": tracks, "badges": BADGES, "flag_badges": FLAG_BADGES}
    shared |= {"refusal_badges": REFUSAL_BADGES, "placed": (LISTENING_STEADY, LISTENING_BRITTLE)}
    rendered = {
        "index.html": _render("index.html.j2", boards=boards, root="", **shared),
        "submit.html": _render("submit.html.j2", root="", **shared),
    }
    for board in boards:
        name = board.track.name
        content = _board_content(board)
        rendered[f"{name}.html"] = _render("board.html.j2", root="", **shared, **content)
        for row in board.rows:
            content = _model_content(board, row)
            path = f"{name}/{row.submission.name}.html"
            rendered[path] = _render("model.html.j2", root="../", **shared, **content)
    return rendered


def _render(template: str, **content: Any) -> str:
    own = page.environment(TEMPLATES)
    own.filters.update(link=safe_link, spread=spread_cell)
    own.globals.update(with_the_harness=WITH_THE_HARNESS, shared_with_training=shared_with_training)
    return page.rendered(template, TEMPLATES, **content)


def _board_content(board: Board) -> dict[str, Any]:
    rows = board.rows
    shown = {probe for row in rows for probe in row.changes} - {"preserved"}
    planned = [probe.name for probe in suite_of(board.track).probes if probe.name in shown]
    groups = [(board.models, True), (board.controls, False)]
    return {
        "board": board,
        "track": board.track,
        "groups": [(group, is_ranked) for group, is_ranked in groups if group],
        "probes": [*planned, *sorted(shown - set(planned))],
        "cards": {one.name: load_dataset_card(one.name) for one in board.track.datasets},
        "dice_text": dice_text,
        "asks_refusal": any(row.standing.refusal != "not asked" for row in rows),
        "map": _map(rows, board.track.decided_by),
        "sheets": [dice_sheet(rows), preserved_sheet(rows)] if rows else [],
    }


def _map(rows: Sequence[Row], datasets: Sequence[str]) -> Any:
    """The listening map of all rows on the sets that decide, numbered in the board's order."""
    if not rows:
        return None
    points = pl.concat([listening_points(row.assessment) for row in rows])
    numbers = {row.facts.model_id: n for n, row in enumerate(rows, start=1)}
    chart = listening_map(points.filter(pl.col("dataset").is_in(datasets)), numbers=numbers)
    return None if chart is None else replace(chart, data=round_data(chart.data))


def _model_content(board: Board, row: Row) -> dict[str, Any]:
    return {
        "track": board.track,
        "row": row,
        "dice_text": dice_text,
        "map": _map([row], sorted(set(row.assessment.summary["dataset"]))),
        "figures": model_figures(row),
        "sheets": model_sheets(row),
        "verdicts": [v for v in row.assessment.language if v.is_asked],
    }


_SET = ("dataset", "split")


def spread_cell(spread: Spread | None) -> str:
    """``mean (least to most)``; the mean alone where there is one figure.

    Example:
        >>> spread_cell(Spread(-50.0, -100.0, 0.0, 5))
        '-50.0 (-100 to 0)'
    """
    if spread is None or spread.n_rows == 0:
        return "-"
    text = number(spread.mean, 1)
    if spread.n_rows > 1:
        text += f" ({number(spread.least, 0)} to {number(spread.most, 0)})"
    return text


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


def _dice_cell(frame: pl.DataFrame, one: tuple[str, str]) -> str:
    row = frame.filter(pl.col("dataset") == one[0], pl.col("split") == one[1])
    if not row.height:
        return "-"
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
    draws = (originals_sheet, probes_sheet, refusal_sheet, away_sheet)
    sheets = [draw(summary) for draw in draws]
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
    return figure_cell(row.dice.estimate, 3, row.dice.low, row.dice.high)


def write_site(folder: Path, boards: Sequence[Board]) -> list[Path]:
    """Write everything, remove what is of rows that are gone, and return the pages' paths.

    Raises:
        SubmissionError: The log's earlier lines are not what they were; nothing is written.
    """
    log = Log.of_board(folder)
    pages = render_pages(boards)
    content = pages | render_others(boards)
    for old in _files_of(folder):
        if old.relative_to(folder).as_posix() not in content:
            with writing(folder):
                old.unlink()
    replace_together({folder / name: text.encode() for name, text in content.items()})
    log.follow({f"{b.track.name}/{r.submission.name}": r.sha256 for b in boards for r in b.rows})
    built = {"made_from_sha256": source_sha256(folder), "pages": sorted(pages)}
    write_json(folder / BUILT, built | {"on": today().isoformat(), "log": log.head})
    return [folder / name for name in pages]


def _files_of(folder: Path) -> Iterator[Path]:
    yield from folder.glob("*.html")
    for name in track_names():
        for ending in ("html", "svg"):
            yield from (folder / name).glob(f"*.{ending}")


def source_sha256(folder: Path, *, read: Callable[[Path], bytes] = Path.read_bytes) -> str:
    """Hash of everything that pages are made from: submissions, flags, tracks and templates."""
    sources = [
        (folder, [*sorted((folder / SUBMISSIONS).glob("*/*/*")), folder / FLAGS]),
        (shipped("suites"), sorted((shipped("suites") / "tracks").rglob("*.*"))),
        (TEMPLATES, sorted(TEMPLATES.glob("*"))),
        (page.TEMPLATES, [page.TEMPLATES / n for n in ("base.html.j2", "parts.html.j2")]),
        (page.TEMPLATES, [page.TEMPLATES / n for n in ("page.js", "style.css")]),
    ]
    listed = [
        (path.relative_to(root).as_posix(), hashlib.sha256(read(path)).hexdigest())
        for root, paths in sources
        for path in paths
        if path.is_file()
    ]
    return hashlib.sha256(canonical(listed)).hexdigest()

"""Writes the leaderboard as static pages, each of which needs nothing but itself.

Conventions: ``index.html``, a page a track, ``<track>/<name>.html`` for each model, and
``submit.html``. Pages hold no times, so that equal submissions give equal pages. Every text of a
stranger is escaped and its invisible characters are shown; only addresses that begin with http(s)
become links. ``built.json`` has a hash of everything that pages are made from.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from harness.canonical import canonical
from harness.cards import load_dataset_card
from harness.files import shipped
from harness.leaderboard.board import FLAGS, SUBMISSIONS, Board, Row
from harness.leaderboard.flags import State
from harness.leaderboard.standing import (
    CANNOT_TELL,
    LISTENING_BRITTLE,
    LISTENING_STEADY,
    UNMOVED,
)
from harness.leaderboard.submission import WITH_THE_HARNESS
from harness.leaderboard.tables import (
    dice_sheet,
    dice_text,
    model_figures,
    model_sheets,
    preserved_sheet,
    round_data,
    spread_cell,
)
from harness.leaderboard.tracks import suite_of, track_names
from harness.report import page
from harness.report.charts import listening_map, listening_points

TEMPLATES = Path(__file__).with_name("templates")
BUILT = "built.json"

BADGES: Mapping[str, str] = {
    LISTENING_STEADY: "good",
    LISTENING_BRITTLE: "calm",
    UNMOVED: "bad",
    CANNOT_TELL: "mute",
}
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
    own.globals.update(with_the_harness=WITH_THE_HARNESS)
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
        "verdicts": [v for v in row.assessment.language if v.evidence],
    }


def write_site(folder: Path, boards: Sequence[Board]) -> list[Path]:
    """Write every page, remove those of rows that are gone, and return the paths written."""
    content = render_pages(boards)
    for old in _pages_of(folder):
        if old.relative_to(folder).as_posix() not in content:
            old.unlink()
    for name, text in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    built = {"made_from_sha256": source_sha256(folder), "pages": sorted(content)}
    (folder / BUILT).write_text(json.dumps(built, indent=1) + "\n", encoding="utf-8")
    return [folder / name for name in content]


def _pages_of(folder: Path) -> Iterator[Path]:
    yield from folder.glob("*.html")
    for name in track_names():
        yield from (folder / name).glob("*.html")


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

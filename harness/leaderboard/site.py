"""Writes the leaderboard as static pages, each of which needs nothing but itself.

Conventions: ``index.html``, a page a track, ``<track>/<name>.html`` for each model, and
``submit.html``. Pages hold no times, so that equal submissions give equal pages. Every text of a
stranger is escaped and its invisible characters are shown; only addresses that begin with http(s)
become links. ``built.json`` has a hash of everything that pages are made from.
"""

import hashlib
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
    kept_sheet,
    model_figures,
    model_sheets,
    spread_cell,
    stable,
)
from harness.leaderboard.tracks import suite_of, track_names
from harness.report import page
from harness.report.charts import listening_map, listening_points
from harness.writing import replace_together, write_json, writing

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


def link_of(address: str | None) -> str | None:
    """An address that may become a link, else None.

    Example:
        >>> link_of("https://example.org/a"), link_of("javascript:alert(1)")
        ('https://example.org/a', None)
    """
    is_safe = address is not None and re.fullmatch(r"https?://[!-~]{1,300}", address)
    return address if is_safe and not set(str(address)) & set("\"'<>\\`") else None


def pages(boards: Sequence[Board]) -> dict[str, str]:
    """Every page of the site, by its path.

    Args:
        boards: Of `harness.leaderboard.board.boards`.
    """
    # What anyone can run stands first.
    boards = sorted(boards, key=lambda b: (not b.track.is_pinned, b.track.name))
    tracks = [board.track for board in boards]
    shared = {"tracks": tracks, "badges": BADGES, "flag_badges": FLAG_BADGES}
    found = {
        "index.html": _rendered("index.html.j2", boards=boards, root="", **shared),
        "submit.html": _rendered("submit.html.j2", root="", **shared),
    }
    for board in boards:
        name = board.track.name
        content = _board_content(board)
        found[f"{name}.html"] = _rendered("board.html.j2", root="", **shared, **content)
        for row in board.rows:
            content = _model_content(board, row)
            path = f"{name}/{row.submission.name}.html"
            found[path] = _rendered("model.html.j2", root="../", **shared, **content)
    return found


def _rendered(template: str, **content: Any) -> str:
    own = page.environment(TEMPLATES)
    own.filters.update(link=link_of, spread=spread_cell)
    own.globals.update(with_the_harness=WITH_THE_HARNESS)
    return page.rendered(template, TEMPLATES, **content)


def _board_content(board: Board) -> dict[str, Any]:
    rows = board.rows
    there = {probe for row in rows for probe in row.changes} - {"preserved"}
    planned = [probe.name for probe in suite_of(board.track).probes if probe.name in there]
    probes = [*planned, *sorted(there - set(planned))]
    return {
        "board": board,
        "track": board.track,
        "groups": [(rows_of, is_ranked) for rows_of, is_ranked in _groups(board) if rows_of],
        "probes": probes,
        "cards": {one.name: load_dataset_card(one.name) for one in board.track.datasets},
        "dice_text": dice_text,
        "map": _map(rows, board.track.decided_by),
        "sheets": [dice_sheet(rows), kept_sheet(rows)] if rows else [],
    }


def _groups(board: Board) -> Iterator[tuple[tuple[Row, ...], bool]]:
    yield board.models, True
    yield board.controls, False


def _map(rows: Sequence[Row], datasets: Sequence[str]) -> Any:
    """The listening map of all rows on the sets that decide, numbered in the board's order."""
    if not rows:
        return None
    points = pl.concat([listening_points(row.assessment) for row in rows])
    numbers = {row.facts.model_id: n for n, row in enumerate(rows, start=1)}
    found = listening_map(points.filter(pl.col("dataset").is_in(datasets)), numbers=numbers)
    return None if found is None else replace(found, data=stable(found.data))


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
    """Write every page, and remove those of rows that are gone.

    Returns:
        The pages' paths.
    """
    content = pages(boards)
    for old in _pages_of(folder):
        if old.relative_to(folder).as_posix() not in content:
            with writing(folder):
                old.unlink()
    replace_together({folder / name: text.encode() for name, text in content.items()})
    write_json(folder / BUILT, {"made_from_sha256": made_from(folder), "pages": sorted(content)})
    return [folder / name for name in content]


def _pages_of(folder: Path) -> Iterator[Path]:
    yield from folder.glob("*.html")
    for name in track_names():
        yield from (folder / name).glob("*.html")


def made_from(folder: Path, *, read: Callable[[Path], bytes] = Path.read_bytes) -> str:
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

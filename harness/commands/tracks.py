"""Plan and truth of a track for the verbs of the leaderboard."""

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from harness.auditing.samples import read_sets
from harness.commands.progress import Terminal
from harness.errors import UsageError
from harness.leaderboard.tracks import (
    Reference,
    Track,
    measured_reference,
    pinned_reference,
    suite_of,
)
from harness.plan.build import Plan, PlannedSet, build_plan

TrackRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        envvar="VLSM_DATA_ROOT",
        help="Folder above the datasets' own; needed where a track's data are not the project's.",
    ),
]


class Planned(NamedTuple):
    """A track's suite on a copy of its data."""

    plan: Plan
    sets: list[PlannedSet]


def planned(track: Track, root: Path, *, quiet: bool = False) -> Planned:
    """Plan a track's suite on the data below `root`; generated sets are painted there."""
    suite = suite_of(track)
    sets = read_sets(suite, root, listener=Terminal(quiet=quiet))
    return Planned(build_plan(suite, sets), sets)


def reference_of(track: Track, root: Path | None, *, quiet: bool = False) -> Reference:
    """What submissions to a track are held against: pinned, or measured on a copy of its data."""
    if track.is_pinned:
        return pinned_reference(track)
    if root is None:
        raise UsageError(
            f"--data-root: not given. The pictures of the track {track.name!r} belong to others, "
            "so that its plan and truth are made from a copy of the data. Give the folder above "
            "the data sets."
        )
    plan, sets = planned(track, root, quiet=quiet)
    return measured_reference(track, plan, sets, root=root)

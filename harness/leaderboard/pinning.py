"""Pins a track of generated data: writes its plan and truth beside its file.

Conventions: what is written is what `harness.leaderboard.tracks.pinned_reference` reads. The two
hashes are to be put into the track's file by hand, on purpose: a track whose plan changes is
another track, to which no old row belongs.
"""

import json
from pathlib import Path
from typing import NamedTuple

import polars as pl

from harness.files import shipped
from harness.leaderboard.tracks import Track, truth_sha256
from harness.plan import Plan
from harness.writing import replace_together, smallest_parquet


class Pins(NamedTuple):
    """The hashes that a track's file must name."""

    plan_sha256: str
    truth_sha256: str


def pin(track: Track, plan: Plan, truth: pl.DataFrame, *, folder: Path | None = None) -> Pins:
    """Write plan and truth of a track.

    Args:
        track: The track.
        plan: Of its suite.
        truth: Of its samples.
        folder: Where to; beside the track's file when None.
    """
    place = folder or shipped("suites") / "tracks" / track.name
    text = json.dumps(dict(plan.sources), indent=1, sort_keys=True, ensure_ascii=False)
    replace_together(
        {
            place / "plan.parquet": smallest_parquet(plan.cases),
            place / "not_applicable.parquet": smallest_parquet(plan.not_applicable),
            place / "truth.parquet": smallest_parquet(truth),
            place / "sources.json": f"{text}\n".encode(),
        }
    )
    return Pins(plan.sha256, truth_sha256(truth))

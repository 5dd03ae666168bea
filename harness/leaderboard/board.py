"""Builds the boards: every submission verified anew, ranked, with its flag.

Conventions: submissions lie in ``submissions/<track>/<name>/``, flags in ``flags.yaml`` beside
them. Nothing is taken from a submission that was not verified in the same process.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from harness.errors import SubmissionError
from harness.leaderboard.flags import Flag, read_flags, today
from harness.leaderboard.standing import (
    CLASSES,
    Limits,
    Spread,
    Standing,
    changes_by_probe,
    classify,
    mean_dice,
    ranks,
)
from harness.leaderboard.submission import RunFacts, Submission
from harness.leaderboard.tracks import Reference, Track, load_track, track_names
from harness.leaderboard.verification import open_submission, verify
from harness.stats.assessment import Assessment

SUBMISSIONS, FLAGS = "submissions", "flags.yaml"
UNFLAGGED = "no flag of this content: nobody but this page's builder recomputed it"


@dataclass(frozen=True)
class Row:
    """One model on one track.

    `dice` is of the original prompts, the mean over the sets; `changes` are by probe; `rank` is
    within the class, 0 for a control, which has none; `lapsed` says why its flag has expired.
    """

    submission: Submission
    facts: RunFacts
    sha256: str
    flag: Flag
    standing: Standing
    dice: Limits
    changes: dict[str, Spread]
    assessment: Assessment
    rank: int = 0
    is_tied: bool = False
    lapsed: str = ""


@dataclass(frozen=True)
class Board:
    """One track with its rows, models in order and controls apart."""

    track: Track
    models: tuple[Row, ...]
    controls: tuple[Row, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """All of them, models first."""
        return self.models + self.controls


def build_boards(
    folder: Path,
    reference_of: Callable[[Track], Reference],
    *,
    tick: Callable[[], None],
    on: date | None = None,
) -> list[Board]:
    """Build the board of every track from the submissions in a folder; a refused one is an error.

    `reference_of` gives plan and truth of a track and is called only where it has submissions;
    `tick` is called once a submission; flags are those that hold `on` a day, today by default.
    """
    root = folder / SUBMISSIONS
    known = track_names()
    for stray in sorted(root.glob("*")):
        if stray.name not in known:
            raise SubmissionError(
                f"{stray}: no folder of a track. Submissions lie in {root}/TRACK/NAME, tracks are "
                f"{', '.join(known)}. Move or remove it."
            )
    flags = read_flags(folder / FLAGS)
    built = []
    for track in map(load_track, known):
        rows, reference = [], None
        for path in sorted((root / track.name).glob("*")):
            reference = reference or reference_of(track)
            flag = flags.get(f"{track.name}/{path.name}")
            rows.append(build_row(path, reference, flag, on=on))
            tick()
        built.append(rank_rows(track, rows))
    return built


def build_row(
    folder: Path, reference: Reference, flag: Flag | None, *, on: date | None = None
) -> Row:
    """Verify a submission and make its row; if it is refused, the error has every reason."""
    opened = open_submission(folder)
    submission, track = opened.submission, reference.track
    if submission is not None and (submission.track, submission.name) != (track.name, folder.name):
        raise SubmissionError(
            f"{folder}: a submission of {submission.name!r} to {submission.track!r}. It lies in "
            "the folder of its track and name. Move it there."
        )
    verification = verify(opened, reference)
    if verification.accepted is None:
        reasons = "\n".join(f"  {text}" for text in verification.reasons)
        raise SubmissionError(
            f"{folder}: refused. A board shows accepted submissions alone. Remove the folder, or "
            f"have it repaired:\n{reasons}"
        )
    accepted = verification.accepted
    own = current_flag(flag, opened.digest)
    return Row(
        submission=accepted.submission,
        facts=accepted.facts,
        sha256=opened.digest,
        flag=own,
        lapsed=own.lapsed(on or today()),
        standing=classify(accepted.assessment.language, track.decided_by),
        dice=mean_dice(accepted.assessment.summary),
        changes=changes_by_probe(accepted.assessment),
        assessment=accepted.assessment,
    )


def current_flag(flag: Flag | None, digest: str) -> Flag:
    """The flag, if it is of files with this digest; else *unverified*."""
    if flag is not None and flag.sha256 == digest:
        return flag
    return Flag(sha256=digest, state="unverified", on="1970-01-01", note=UNFLAGGED)


def rank_rows(track: Track, rows: Sequence[Row]) -> Board:
    """Order rows by class, then by Dice, and rank them; controls stand apart."""
    ordered: list[Row] = []
    for label in CLASSES:
        group = [r for r in rows if r.standing.label == label and not r.submission.control]
        group.sort(key=_by_dice)
        taken = ranks([row.dice for row in group])
        ordered += [
            replace(row, rank=rank, is_tied=taken.count(rank) > 1)
            for row, rank in zip(group, taken, strict=True)
        ]
    controls = sorted((r for r in rows if r.submission.control), key=_by_dice)
    return Board(track, tuple(ordered), tuple(controls))


def _by_dice(row: Row) -> tuple[float, str]:
    """High first; what is undefined last."""
    estimate = row.dice.estimate
    return (-estimate if math.isfinite(estimate) else math.inf), row.submission.name

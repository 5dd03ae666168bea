"""Collects the rows of a board: every submission verified anew, ordered, with its flag.

Conventions: submissions lie in ``submissions/<track>/<name>/``, flags in ``flags.yaml`` beside
them. Nothing is taken from a submission that was not verified in the same process.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import SubmissionError
from harness.leaderboard.flags import Flag, read_flags
from harness.leaderboard.standing import (
    CLASSES,
    Limits,
    Spread,
    Standing,
    changes,
    dice_of,
    places,
    standing,
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

    Attributes:
        submission: What its authors say.
        facts: How its numbers were made.
        sha256: Of the submission.
        flag: What came out of verifying it.
        standing: Its class.
        dice: Of the original prompts, mean over the sets.
        changes: By probe, see `harness.leaderboard.standing.changes`.
        assessment: Everything that follows from its counts.
        place: Within its class; 0 for a control, which has none.
        is_tied: Whether another row has the same place.
    """

    submission: Submission
    facts: RunFacts
    sha256: str
    flag: Flag
    standing: Standing
    dice: Limits
    changes: dict[str, Spread]
    assessment: Assessment
    place: int = 0
    is_tied: bool = False


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


def boards(
    folder: Path, reference_of: Callable[[Track], Reference], *, tick: Callable[[], None]
) -> list[Board]:
    """Every track with the submissions that lie in a folder.

    Args:
        folder: Of the board.
        reference_of: Gives plan and truth of a track; asked only where it has submissions.
        tick: Called once a submission.

    Raises:
        SubmissionError: A submission is refused, or lies in the folder of no track.
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
    found = []
    for track in map(load_track, known):
        places_of = sorted(p for p in (root / track.name).glob("*"))
        reference = reference_of(track) if places_of else None
        rows = []
        for place in places_of:
            assert reference is not None  # there is one wherever there are submissions
            rows.append(row_of(place, reference, flags.get(f"{track.name}/{place.name}")))
            tick()
        found.append(arranged(track, rows))
    return found


def row_of(folder: Path, reference: Reference, flag: Flag | None) -> Row:
    """Verify a submission and read off what the board shows.

    Raises:
        SubmissionError: It is refused; the message has every reason.
    """
    opened = open_submission(folder)
    submission, facts, track = opened.submission, opened.facts, reference.track
    if submission is not None and (submission.track, submission.name) != (track.name, folder.name):
        raise SubmissionError(
            f"{folder}: a submission of {submission.name!r} to {submission.track!r}. It lies in "
            "the folder of its track and name. Move it there."
        )
    found = verify(opened, reference)
    assessment = found.assessment
    if not found.is_accepted or submission is None or facts is None or assessment is None:
        reasons = "\n".join(f"  {text}" for text in found.reasons)
        raise SubmissionError(
            f"{folder}: refused. A board shows accepted submissions alone. Remove the folder, or "
            f"have it repaired:\n{reasons}"
        )
    return Row(
        submission=submission,
        facts=facts,
        sha256=opened.digest,
        flag=valid_flag(flag, opened.digest),
        standing=standing(assessment.language, track.decided_by),
        dice=dice_of(assessment.summary),
        changes=changes(assessment),
        assessment=assessment,
    )


def valid_flag(flag: Flag | None, digest: str) -> Flag:
    """The flag of a submission, if it is of these very files."""
    if flag is not None and flag.sha256 == digest:
        return flag
    return Flag(sha256=digest, state="unverified", on="1970-01-01", note=UNFLAGGED)


def arranged(track: Track, rows: Sequence[Row]) -> Board:
    """Rows in the order of a board: by class, then by Dice, with places; controls apart."""
    ordered: list[Row] = []
    for label in CLASSES:
        group = [r for r in rows if r.standing.label == label and not r.submission.control]
        group.sort(key=_by_dice)
        taken = places([row.dice for row in group])
        ordered += [
            replace(row, place=place, is_tied=taken.count(place) > 1)
            for row, place in zip(group, taken, strict=True)
        ]
    controls = sorted((r for r in rows if r.submission.control), key=_by_dice)
    return Board(track, tuple(ordered), tuple(controls))


def _by_dice(row: Row) -> tuple[float, str]:
    """High first; what is undefined last."""
    estimate = row.dice.estimate
    return (-estimate if math.isfinite(estimate) else math.inf), row.submission.name

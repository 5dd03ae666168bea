"""What lies beside the pages of a board: a badge a row, and ``board.json`` for programs."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.leaderboard.board import Board, Row
from harness.leaderboard.standing import CANNOT_TELL, LISTENING_BRITTLE, LISTENING_STEADY, UNMOVED

BADGES: Mapping[str, str] = {
    LISTENING_STEADY: "good",
    LISTENING_BRITTLE: "calm",
    UNMOVED: "bad",
    CANNOT_TELL: "mute",
}
REFUSAL_BADGES: Mapping[str, str] = {
    "refuses": "good",
    "hallucinates": "bad",
    "cannot tell": "mute",
}


def render_others(boards: Sequence[Board]) -> dict[str, str]:
    """What lies beside the pages, by its path: a badge a row, and the boards for programs."""
    badges = {
        f"{board.track.name}/{row.submission.name}.svg": badge(row)
        for board in boards
        for row in board.rows
    }
    return badges | {"board.json": board_json(boards)}


def board_json(boards: Sequence[Board]) -> str:
    """All rows for programs, as boards order them; a control's rank is 0, the undefined null."""
    found = [
        {
            "track": board.track.name,
            "plan_sha256": board.track.plan_sha256,
            "rows": [_row_record(row) for row in board.rows],
        }
        for board in boards
    ]
    content = {"version": 1, "tracks": found}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _row_record(row: Row) -> dict[str, Any]:
    own, stands = row.submission, row.standing
    limits = [float(f"{v:.10g}") if math.isfinite(v) else None for v in row.dice]
    return {
        "name": own.name,
        "control": own.control,
        "class": None if own.control else stands.label,
        "rank": row.rank,
        "tied": row.is_tied,
        "language": stands.language,
        "steadiness": stands.steadiness,
        "refusal": stands.refusal,
        "heard": list(stands.heard),
        "unheard": list(stands.unheard),
        "dice": dict(zip(("estimate", "low", "high"), limits, strict=True)),
        "trained_on": list(own.trained_on),
        "model_id": row.facts.model_id,
        "submission_sha256": row.sha256,
        "training_overlap": shared_with_training(row)._asdict(),
        "registration": row.facts.registration and row.facts.registration.model_dump(),
        "flag": {
            "state": "expired" if row.lapsed else row.flag.state,
            "was": row.flag.state,
            "on": row.flag.on,
            "harness": row.flag.harness,
            "expires": row.flag.expires,
        },
    }


class Shared(NamedTuple):
    """What a row's model was trained on of its track.

    `sets` of the track that its authors name, `copies` of `audited` pictures that its run found
    among the training pictures; None where none were at hand. Both are said by the submitter.
    """

    sets: list[str]
    copies: int | None
    audited: int | None
    patients: int | None

    @property
    def text(self) -> str:
        """For a model's page."""
        if self.copies is None:
            return f"{', '.join(self.sets)}; pictures not compared" if self.sets else "-"
        found = f"{self.copies} of {self.audited} pictures"
        found += f", {self.patients} patients" if self.patients else ""
        return f"{', '.join(self.sets) or 'no set by name'}; {found}"

    @property
    def note(self) -> str:
        """For a cell of the board, below what the model was trained on."""
        named = f"{len(self.sets)} of these on this track"
        if self.copies is None:
            return f"{named}, pictures not compared" if self.sets else ""
        return f"{named}, {self.copies} of {self.audited} pictures"


def shared_with_training(row: Row) -> Shared:
    """What a model was trained on of what the track audits it with."""
    own = set(row.assessment.summary["dataset"])
    sets = sorted(own & set(row.submission.trained_on))
    known = row.facts.training_overlap
    if known is None:
        return Shared(sets, None, None, None)
    audited = {one.audited: one.n_audited for one in known}
    copies = sum(one.n_copies for one in known)
    return Shared(sets, copies, sum(audited.values()), sum(one.n_patients for one in known))


_COLOURS = {"good": "#2f7d32", "calm": "#2f5fa8", "bad": "#a33030", "mute": "#5c5c5c"}
_LETTER = 6.4
"""Width in pixels of a letter of 11 px, on average."""


def badge(row: Row) -> str:
    """A picture of a row's class and refusal for a README; it holds no text of a submission."""
    label = "control" if row.submission.control else row.standing.label
    tone = "mute" if row.submission.control else BADGES[label]
    if row.standing.refusal in REFUSAL_BADGES and row.standing.refusal != CANNOT_TELL:
        label += f", {row.standing.refusal}"
    title = f"prompt use: {label}"
    left, right = (round(_LETTER * len(text)) + 12 for text in ("prompt use", label))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-label="{title}"><title>{title}</title>'
        f'<rect width="{left}" height="20" fill="#333"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{_COLOURS[tone]}"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" '
        f'text-anchor="middle"><text x="{left / 2:g}" y="14">prompt use</text>'
        f'<text x="{left + right / 2:g}" y="14">{label}</text></g></svg>\n'
    )

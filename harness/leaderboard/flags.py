"""Outcomes of verification, kept where no submitter writes.

Conventions: one flag a submission and content, in a YAML file beside the submissions; a flag of
another hash says nothing of a folder. States: *unverified* (no flag), *verified* (all aggregates
follow from possible counts), *spot-checked* (a drawn part was rerun with the weights, too),
*disputed* (a rerun gave other counts) and *refused*, which no board shows. A check lapses after a
year, and with the harness's series (0.1, 0.2, 1, 2 ...): boards say *expired*, and what it was. One
on other data needs no such rule, since a track whose plan or truth changes refuses old rows.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import yaml
from pydantic import Field, StringConstraints

from harness._version import __version__
from harness.cards import Sha256, Strict
from harness.errors import SubmissionError
from harness.files import read_yaml, validate
from harness.files.writing import write_text

if TYPE_CHECKING:
    from harness.leaderboard.spot_check import SpotCheck
    from harness.leaderboard.verification import Verification

LASTS = timedelta(days=365)
Day = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$")]
State = Literal["unverified", "verified", "spot-checked", "disputed", "refused"]


class Flag(Strict):
    """The outcome for the submission whose files have this hash; `note` tells of a rerun."""

    sha256: Sha256
    state: State
    on: Day
    harness: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+[0-9A-Za-z.+-]{0,30}$")] | None = (
        None
    )
    note: Annotated[str, StringConstraints(max_length=1000)] = ""

    @property
    def expires(self) -> str | None:
        """The first day on which a check says nothing more; None of what is no check."""
        if self.state not in ("verified", "spot-checked"):
            return None
        return (_day(self.on) + LASTS).isoformat()

    def lapsed(self, on: date) -> str:
        """Why the check says nothing on a day; empty where it does, or never did."""
        if self.expires is None:
            return ""
        if self.harness is not None and _series(self.harness) != _series(__version__):
            return f"by vlsm-harness {self.harness}, this is {__version__}"
        return f"it ended on {self.expires}" if on.isoformat() >= self.expires else ""


def _series(version: str) -> str:
    """What a version may break: the first number, and the second where the first is 0.

    Example:
        >>> _series("0.1.3"), _series("2.0.1")
        ('0.1', '2')
    """
    first, second, *_ = version.split(".")
    return f"0.{second}" if first == "0" else first


def _day(text: str) -> date:
    """A day, early enough for another `LASTS`; one that no calendar has is long gone."""
    try:
        return min(date.fromisoformat(text), date.max - LASTS)
    except ValueError:
        return date(1970, 1, 1)


def today() -> date:
    """The day in UTC."""
    return datetime.now(UTC).date()


class Flags(Strict):
    """A file of flags, by track and name."""

    flags: dict[str, Flag] = Field(default={}, description="track/name -> flag")


def make_flag(verification: "Verification", spot_check: "SpotCheck | None") -> Flag:
    """Flag a submission with what came out of its verification, today."""
    state: State = "verified" if verification.accepted else "refused"
    if spot_check is not None:
        state = "disputed" if spot_check.reasons else "spot-checked"
    return Flag(
        sha256=verification.opened.digest,
        state=state,
        on=today().isoformat(),
        harness=__version__,
        note="" if spot_check is None else spot_check.sentence(),
    )


def read_flags(path: Path) -> Mapping[str, Flag]:
    """The flags of a file; none where it is missing."""
    if not path.is_file():
        return {}
    document = read_yaml(path, error=SubmissionError)
    return validate(document, Flags, error=SubmissionError).flags


def record_flag(path: Path, key: str, flag: Flag) -> None:
    """Write a flag into its file under the key ``track/name``, replacing an earlier one."""
    flags = {**read_flags(path), key: flag}
    content = {
        "flags": {k: flags[k].model_dump(mode="json", exclude_none=True) for k in sorted(flags)}
    }
    head = "# Written by `vlsm-harness verify --record`: what came out, by the submission's hash.\n"
    text = head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    write_text(path, text)

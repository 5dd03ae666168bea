"""Outcomes of verification, kept where no submitter writes.

Conventions: one flag a submission and content, in a YAML file beside the submissions; a flag of
another hash says nothing of a folder. States: *unverified* (no flag), *verified* (all aggregates
follow from possible counts), *spot-checked* (a drawn part was rerun with the weights, too),
*disputed* (a rerun gave other counts) and *refused*, which no board shows.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import yaml
from pydantic import Field, StringConstraints

from harness.cards import Sha256, Strict
from harness.errors import SubmissionError
from harness.files import read_yaml, validate
from harness.files.writing import write_text

if TYPE_CHECKING:
    from harness.leaderboard.spot_check import SpotCheck
    from harness.leaderboard.verification import Verification

State = Literal["unverified", "verified", "spot-checked", "disputed", "refused"]


class Flag(Strict):
    """The outcome for the submission whose files have this hash; `note` tells of a rerun."""

    sha256: Sha256
    state: State
    on: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$")]
    note: Annotated[str, StringConstraints(max_length=1000)] = ""


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
        on=datetime.now(UTC).date().isoformat(),
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
    content = {"flags": {k: flags[k].model_dump(mode="json") for k in sorted(flags)}}
    head = "# Written by `vlsm-harness verify --record`: what came out, by the submission's hash.\n"
    text = head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    write_text(path, text)

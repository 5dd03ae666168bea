"""What came out of verifying submissions, kept where no submitter writes.

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
from harness.writing import write_text

if TYPE_CHECKING:
    from harness.leaderboard.spot_check import SpotCheck
    from harness.leaderboard.verification import Verification

State = Literal["unverified", "verified", "spot-checked", "disputed", "refused"]


class Flag(Strict):
    """The outcome for one submission.

    Attributes:
        sha256: Of the submission's files.
        state: The outcome.
        on: Date.
        note: What was rerun, and what came out of it.
    """

    sha256: Sha256
    state: State
    on: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$")]
    note: Annotated[str, StringConstraints(max_length=1000)] = ""


class Flags(Strict):
    """A file of flags, by track and name."""

    flags: dict[str, Flag] = Field(default={}, description="track/name -> flag")


def flag_of(found: "Verification", checked: "SpotCheck | None") -> Flag:
    """The flag that a verification earns."""
    state: State = "verified" if found.is_accepted else "refused"
    note = ""
    if checked is not None:
        state = "disputed" if checked.reasons else "spot-checked"
        note = checked.sentence()
    today = datetime.now(UTC).date().isoformat()
    return Flag(sha256=found.opened.digest, state=state, on=today, note=note)


def read_flags(path: Path) -> Mapping[str, Flag]:
    """The flags of a file; none where it is missing.

    Raises:
        SubmissionError: The file breaks its schema.
    """
    if not path.is_file():
        return {}
    document = read_yaml(path, error=SubmissionError)
    return validate(document, Flags, error=SubmissionError).flags


def record_flag(path: Path, key: str, flag: Flag) -> None:
    """Put a flag into its file, in the place of an earlier one.

    Args:
        path: The file of flags.
        key: ``track/name`` of the submission.
        flag: Its outcome.
    """
    flags = {**read_flags(path), key: flag}
    content = {"flags": {k: flags[k].model_dump(mode="json") for k in sorted(flags)}}
    head = "# Written by `vlsm-harness verify --record`: what came out, by the submission's hash.\n"
    text = head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    write_text(path, text)

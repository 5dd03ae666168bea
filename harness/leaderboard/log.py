"""The log of a board: what stood on it, when, and what came out of checks; it only grows.

``log.jsonl`` lies beside the submissions. A line is a JSON object, an `Entry`;
`before` is the SHA-256 of the line before it (64 zeros for the first), so that a line that was
changed, removed or put in between breaks the chain. What was cut off at the end is seen by
``built.json``, which keeps the number of lines and the last one's hash: `refuse_shortened`.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from harness._version import __version__
from harness.cards import Sha256, Strict
from harness.errors import SubmissionError
from harness.files import Document, validate
from harness.files.canonical import decoded, parse_json, read_bytes, read_object
from harness.files.writing import append_text, make_folder
from harness.leaderboard.flags import Day, State, today

LOG, BUILT = "log.jsonl", "built.json"
FIRST = "0" * 64
_KEY = r"[A-Za-z0-9_.-]{1,60}/[A-Za-z0-9_.-]{1,60}"
_MOST_BYTES = 64 << 20
_REPAIR = "Restore the file from the history of the repository."


class Entry(Strict):
    """One line: what happened to the submission whose files have this hash."""

    before: Sha256
    on: Day
    harness: Annotated[str, StringConstraints(max_length=40)]
    submission: Annotated[str, StringConstraints(pattern=f"^{_KEY}$")]
    sha256: Sha256
    event: Literal["listed", "withdrawn", "checked"]
    state: State | None = Field(default=None, description="What came out, where it was checked.")


class Head(Strict):
    """What ``built.json`` keeps of a log: the number of lines and the hash of the last one."""

    lines: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Log:
    """The lines of a log, each checked against the one before it."""

    def __init__(self, path: Path, lines: Sequence[str]) -> None:
        self.path, self.lines = path, list(lines)
        self.entries = [self._entry(number) for number in range(1, len(self.lines) + 1)]

    @classmethod
    def read(cls, folder: Path) -> "Log":
        """The log of a board's folder; an empty one where there is none yet.

        Raises:
            SubmissionError: A line is none, or was changed, removed or put in later.
        """
        path = folder / LOG
        if not path.exists():
            return cls(path, [])
        content = read_bytes(path, most=_MOST_BYTES, error=SubmissionError, missing=_REPAIR)
        text = decoded(content, path, error=SubmissionError)
        if text and not text.endswith("\n"):
            raise SubmissionError(
                f"{path}: the last line has no end. A log grows by whole lines. {_REPAIR}"
            )
        return cls(path, text.split("\n")[:-1])

    @classmethod
    def of_board(cls, folder: Path) -> "Log":
        """The same, held against what the board there was built from.

        Raises:
            SubmissionError: As for `read`, or lines at the end are gone.
        """
        log, path = cls.read(folder), folder / BUILT
        if path.is_file():
            again = "Restore the file, or remove it and build the board anew."
            built = read_object(path, error=SubmissionError, missing=again, repair=again)
            if "log" in built:
                head = Document(path, built["log"])
                log.refuse_shortened(validate(head, Head, error=SubmissionError))
        return log

    def _entry(self, number: int) -> Entry:
        where = Path(f"{self.path}:{number}")
        data = parse_json(
            self.lines[number - 1].encode(), where, error=SubmissionError, repair=_REPAIR
        )
        if not isinstance(data, dict):
            raise SubmissionError(f"{where}: no object. A line is a JSON object. {_REPAIR}")
        entry = validate(Document(where, data), Entry, error=SubmissionError)
        wanted = self.hash_of(number - 1)
        if entry.before != wanted:
            raise SubmissionError(
                f"{where}: it follows a line of the hash {entry.before[:12]}, the line before it "
                f"has {wanted[:12]}. Earlier lines were changed, removed or put in; a log only "
                f"grows. {_REPAIR}"
            )
        return entry

    def hash_of(self, number: int) -> str:
        """SHA-256 of a line, counted from 1; that of nothing is 64 zeros."""
        return hashlib.sha256(self.lines[number - 1].encode()).hexdigest() if number else FIRST

    @property
    def head(self) -> dict[str, Any]:
        """For ``built.json``."""
        count = len(self.lines)
        return Head(lines=count, sha256=self.hash_of(count)).model_dump()

    def refuse_shortened(self, head: Head) -> None:
        """Refuse a log that does not begin with the lines that a board was built from."""
        if head.lines > len(self.lines) or self.hash_of(head.lines) != head.sha256:
            raise SubmissionError(
                f"{self.path}: it has {len(self.lines)} lines. The board was built from "
                f"{head.lines}, the last of the hash {head.sha256[:12]}: a log only grows. "
                f"{_REPAIR}"
            )

    def add(self, event: str, submission: str, sha256: str, state: State | None = None) -> None:
        """Write one line more.

        Raises:
            SubmissionError: `submission` is no ``track/name``.
        """
        if re.fullmatch(_KEY, submission) is None:
            raise SubmissionError(
                f"{submission}: no folder of a submission. It lies in TRACK/NAME, of letters, "
                "digits, dots and dashes. Move it there."
            )
        entry = Entry.model_validate(
            {
                "before": self.hash_of(len(self.lines)),
                "on": today().isoformat(),
                "harness": __version__,
                "submission": submission,
                "sha256": sha256,
                "event": event,
                "state": state,
            }
        )
        content = entry.model_dump(mode="json", exclude_none=True)
        line = json.dumps(content, ensure_ascii=False)
        make_folder(self.path.parent)
        append_text(self.path, f"{line}\n")
        self.lines.append(line)
        self.entries.append(entry)

    def listed(self) -> dict[str, str]:
        """Submissions that stand on the board by the log, with their hashes."""
        found: dict[str, str] = {}
        for entry in self.entries:
            if entry.event == "listed":
                found[entry.submission] = entry.sha256
            elif entry.event == "withdrawn":
                found.pop(entry.submission, None)
        return found

    def follow(self, now: Mapping[str, str]) -> None:
        """Add what changed on the board: rows that came, changed, or are gone.

        `now` are the submissions on the board, ``track/name``, with their hashes.
        """
        before = self.listed()
        for name in sorted(before.keys() - now.keys()):
            self.add("withdrawn", name, before[name])
        for name in sorted(now):
            if before.get(name) != now[name]:
                self.add("listed", name, now[name])

"""Reads the folder of a stranger: nothing is followed, nothing executed, nothing without limit.

A file is looked at before it is opened, read once into memory, and everything later is said of
those bytes. Parquet is held against the exact columns and number of rows that are expected, and
first decoded in a process of its own with limited memory (`harness.data.trial`), since a small file
may unfold to a large one. A reader adds what is wrong to a list of reasons.
"""

import io
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from harness.data.trial import survives
from harness.errors import SubmissionError
from harness.files import Document, parse_yaml, validate
from harness.files.canonical import parse_json
from harness.leaderboard.reasons import quoted, reason
from harness.leaderboard.submission import LIMITS, TABLES, RunFacts, Submission, still_to_give
from harness.report.escape import plain

Reasons = list[str]

_REPAIR = "Make the folder anew with `vlsm-harness submit RUN`"
MOST_BYTES = 1 << 30
"""Of one decoded table: ten million cases have 0.8 GB of counts."""


def read_files(folder: Path, reasons: Reasons) -> dict[str, bytes]:
    """The bytes of every file of a submission; no links, folders, unknown or too large files."""
    if folder.is_symlink() or not folder.is_dir():
        raise SubmissionError(
            f"{folder}: no folder. A submission is a folder, no link and no archive. Give the one "
            "that `vlsm-harness submit` wrote."
        )
    found = {}
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        problem = _problem_of(entry)
        if problem:
            reasons.append(problem)
        else:
            found[entry.name] = _bytes_of(Path(entry.path))
    for name in LIMITS:
        if name not in found and not any(text.startswith(f"{name}:") for text in reasons):
            right = f"A submission has the files {', '.join(LIMITS)}"
            reasons.append(reason(name, "no such file", right, _REPAIR))
    return found


def _problem_of(entry: "os.DirEntry[str]") -> str | None:
    name = quoted(entry.name)[1:-1]
    if entry.is_symlink():
        return reason(name, "a link", "Files stand in the folder themselves", "Copy the file there")
    size = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(size.st_mode):
        kind = "a folder" if stat.S_ISDIR(size.st_mode) else "no plain file"
        return reason(name, kind, f"A submission has only {', '.join(LIMITS)}", "Remove it")
    if entry.name not in LIMITS:
        right = f"A submission has only {', '.join(LIMITS)}"
        return reason(name, "unknown file", right, "Remove it")
    if size.st_size > LIMITS[entry.name]:
        found = f"{size.st_size} bytes"
        return reason(name, found, f"At most {LIMITS[entry.name]} bytes are read", _REPAIR)
    return None


def _bytes_of(path: Path) -> bytes:
    """A file's content; a link that was put there meanwhile is not followed."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(handle, "rb") as file:
        return file.read(LIMITS[path.name] + 1)


def read_submission(content: bytes, reasons: Reasons) -> Submission | None:
    """``submission.yaml``, or None where it breaks its schema or a fact is still to be given."""
    path = Path("submission.yaml")
    try:
        document = parse_yaml(content, path, error=SubmissionError)
        waiting = list(still_to_give(document.data))
        for place in waiting:
            where = document.where(_steps(place))
            right = "The authors of a submission say what only they know"
            reasons.append(reason(where, "still to be given", right, "Write it in this line"))
        found = validate(document, Submission, error=SubmissionError)
    except SubmissionError as problem:
        reasons += [_shortened(line) for line in str(problem).splitlines()]
        return None
    return None if waiting else found


_FLAT = "It holds plain texts, lists and numbers, two levels deep"


def _steps(place: str) -> tuple[str | int, ...]:
    """``authors[0]`` -> ``("authors", 0)``."""
    return tuple(int(s) if s.isdigit() else s for s in re.findall(r"[^.\[\]]+", place))


def read_facts(content: bytes, reasons: Reasons) -> RunFacts | None:
    """``run.json``, or None where it breaks its schema."""
    path = Path("run.json")
    try:
        data = parse_json(content, path, error=SubmissionError, repair=f"{_REPAIR}.")
        if not isinstance(data, dict):
            raise SubmissionError(reason("run.json", "no object", _FLAT, _REPAIR))
        return validate(Document(path, data), RunFacts, error=SubmissionError)
    except SubmissionError as problem:
        reasons += [_shortened(line) for line in str(problem).splitlines()]
    return None


def _shortened(line: str, most: int = 400) -> str:
    """A message may quote what a stranger wrote at any length."""
    return plain(line if len(line) <= most else f"{line[:most]}…")


def read_tables(
    files: Mapping[str, bytes], most: Mapping[str, int], reasons: Reasons
) -> dict[str, pl.DataFrame]:
    """The Parquet files with exactly the columns expected and at most `most` rows, by name."""
    here = {name: files[name] for name in TABLES if name in files}
    fine = {
        name: content
        for name, content in _readable(here, reasons).items()
        if _fits(name, content, TABLES[name], most[name], reasons)
    }
    if fine and not survives(list(fine.values()), most_bytes=MOST_BYTES):
        right = "Its columns unfold to a few megabytes"
        found = "decoding ends in an error, or takes more memory or time than is given to it"
        reasons.append(reason(", ".join(fine), found, right, _REPAIR))
        return {}
    return {name: pl.read_parquet(io.BytesIO(content)) for name, content in fine.items()}


def _readable(files: Mapping[str, bytes], reasons: Reasons) -> Mapping[str, bytes]:
    """Those that say what they hold; asking a damaged one can end the process that asks."""

    def tells(*contents: bytes) -> bool:
        return survives(contents, most_bytes=MOST_BYTES, columns=[])

    if not files or tells(*files.values()):
        return files
    found = {name: content for name, content in files.items() if tells(content)}
    for name in files.keys() - found.keys():
        right = "It is the file that `submit` wrote"
        reasons.append(reason(name, "no Parquet file", right, _REPAIR))
    return found


def _fits(name: str, content: bytes, schema: pl.Schema, most: int, reasons: Reasons) -> bool:
    """Whether a file's own account of itself is what is expected; no column is decoded."""
    found = pl.read_parquet_schema(io.BytesIO(content))
    height = pl.scan_parquet(io.BytesIO(content)).select(pl.len()).collect().item()
    told = _column_reasons(name, found, schema)
    if height > most:
        right = f"The track asks for fewer; at most {most} are read"
        told.append(reason(name, f"{height} rows", right, _REPAIR))
    reasons += told
    return not told


def _column_reasons(name: str, found: Mapping[str, Any], schema: pl.Schema) -> Reasons:
    told = []
    for column in list(found)[:50]:
        if column not in schema:
            known = ", ".join(schema)
            what = f"unknown column {quoted(column)}"
            told.append(reason(name, what, f"Its columns are {known}", _REPAIR))
    for column, kind in schema.items():
        if column not in found:
            told.append(reason(f"{name}: {column}", "no such column", f"It is {kind}", _REPAIR))
        elif found[column] != kind:
            what = f"the column is {quoted(found[column])}"
            told.append(reason(f"{name}: {column}", what, f"It is {kind}", _REPAIR))
    return told

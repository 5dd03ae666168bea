"""Writes files in full or not at all, and says so when the disk will not take them.

Conventions: content goes to a hidden temporary name in the same folder, reaches the
disk, and is then renamed. What a killed process leaves behind is a file whose name ends
in `TEMPORARY`; whoever holds the folder may remove it.
"""

import errno
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import RunError

TEMPORARY = ".tmp"

# What a user can repair: no room, a quota, a limit on the size of files, a folder or a
# whole disk that may only be read, a disk or share that broke.
_REPAIRABLE = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE")
    if hasattr(errno, name)
}


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a refusal of the disk into an error that the user can repair.

    Args:
        folder: What the user would look at; it stands first in the message.

    Raises:
        RunError: Something below could not be written.
    """
    try:
        yield
    except OSError as problem:
        if problem.errno not in _REPAIRABLE:
            raise
        raise RunError(
            f"{folder}: cannot be written ({problem.strerror}). The folder must take new files "
            "until the run is complete. Free space or make it writable; the same command then "
            "continues, and nothing that was written is lost."
        ) from problem


def parquet_bytes(frame: pl.DataFrame) -> bytes:
    """A table as the content of a Parquet file.

    polars tells of a full disk in words of its own, now these, now those; bytes that
    Python writes fail with the system's number.
    """
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=True)
    return buffer.getvalue()


def write_parquet(path: Path, frame: pl.DataFrame) -> None:
    """Write a table, all or nothing.

    Raises:
        RunError: The disk refuses it.
    """
    write_bytes(path, parquet_bytes(frame))


def write_json(path: Path, content: Any) -> None:
    """Write JSON, all or nothing.

    Raises:
        RunError: The disk refuses it.
    """
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, all or nothing.

    Raises:
        RunError: The disk refuses it.
    """
    with writing(path.parent), _replaced(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        yield temporary
        # A rename may reach the disk before the content does; a crash in between loses it.
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        # On a full disk half a file would take the room that the next attempt needs. If it
        # cannot be removed, the first problem is still the one to tell.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half written; no other process may be writing."""
    with writing(folder):
        for path in folder.glob(f".*{TEMPORARY}"):
            path.unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether a Parquet file is there and ends as it should; a cut one does not."""
    try:
        pl.read_parquet_schema(path)
    except (OSError, pl.exceptions.PolarsError):
        return False
    return True

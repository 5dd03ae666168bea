"""Writes files in full or not at all, remembers what it wrote, and says when a disk refuses.

Conventions: content goes to a hidden temporary name in the same folder, reaches the
disk, and is then renamed. What a killed process leaves behind is a file whose name ends
in `TEMPORARY`; whoever holds the folder may remove it. Nothing else in the harness writes files.
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import RunError

if TYPE_CHECKING:
    import polars as pl
    from PIL import Image

TEMPORARY = ".tmp"
SUMS = "written.sha256"
ROW_GROUP = 32_768
"""Rows of a long table that are read at once."""


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn a refusal of the system into a `RunError` on `place`, which the user can repair."""
    try:
        yield
    except OSError as problem:
        if problem.errno is None:  # a library's own, which is about content
            raise
        raise RunError(
            f"{place}: cannot be written ({problem.strerror}). A place that takes new files is "
            "needed. Free space, make it writable or choose another; the same command then "
            "continues, and nothing that was written is lost."
        ) from problem


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, where they are not there; returns it."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def refuse_unwritable(place: Path | None, *, is_folder: bool = False) -> None:
    """Before long work: raise what writing a file here, or files into a folder, would raise then.

    Nothing is left of the trial. None is no place, and fine.
    """
    if place is None:
        return
    folder = place if is_folder else place.parent
    with writing(folder):
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        make_folder(folder)
        with writing(place):
            if place.is_dir() and not is_folder:
                place.open("ab").close()  # which the system refuses in its own words
            if is_folder or place.is_file() or not place.exists():
                tempfile.TemporaryFile(dir=folder).close()
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()


@contextmanager
def temporary_folder(*, beside: Path | None = None) -> Iterator[Path]:
    """A folder that is removed afterwards, on the disk of `beside` or where the system has such."""
    where = None if beside is None else make_folder(beside.parent)
    prefix = "vlsm-harness-" if beside is None else f".{beside.name}-"
    with writing(where or Path(os.environ.get("TMPDIR", "TMPDIR"))):
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=where))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def parquet_bytes(frame: "pl.DataFrame", *, metadata: Mapping[str, str] | None = None) -> bytes:
    """A table as the content of a Parquet file, with `metadata` of its own.

    polars tells of a full disk in words of its own, now these, now those; bytes that
    Python writes fail with the system's number.
    """
    buffer = io.BytesIO()
    own = None if metadata is None else dict(metadata)
    frame.write_parquet(buffer, compression="zstd", statistics=True, metadata=own)
    return buffer.getvalue()


def joined_parquet(parts: Sequence[bytes], *, metadata: Mapping[str, str] | None = None) -> bytes:
    """Parquet files of one schema as one; no table is held."""
    import polars as pl

    return sunk_parquet(pl.scan_parquet(list(parts)), metadata=metadata)


def sunk_parquet(rows: "pl.LazyFrame", *, metadata: Mapping[str, str] | None = None) -> bytes:
    """A table that is never held as one, as Parquet in groups of `ROW_GROUP` rows."""
    buffer = io.BytesIO()
    own = None if metadata is None else dict(metadata)
    rows.sink_parquet(
        buffer, compression="zstd", statistics=True, row_group_size=ROW_GROUP, metadata=own
    )
    return buffer.getvalue()


def smallest_parquet(frame: "pl.DataFrame") -> bytes:
    """A table as a small Parquet file, for what is published."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", compression_level=22, statistics=False)
    return buffer.getvalue()


def json_bytes(content: Any) -> bytes:
    """JSON as the content of a file."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def write_parquet(path: Path, frame: "pl.DataFrame") -> None:
    """Write a table, all or nothing."""
    write_bytes(path, parquet_bytes(frame))


def write_json(path: Path, content: Any) -> None:
    """Write JSON, all or nothing."""
    write_bytes(path, json_bytes(content))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, all or nothing."""
    write_bytes(path, text.encode("utf-8"))


def write_picture(path: Path, picture: "Image.Image", *, compress_level: int = 6) -> None:
    """Write a PNG, without waiting for the disk: what is generated can be generated again."""
    held = io.BytesIO()
    picture.save(held, format="PNG", compress_level=compress_level)
    replace_together({path: held.getvalue()}, durable=False)


def append_text(path: Path, text: str) -> None:
    """Write UTF-8 text at the end of a file that belongs to somebody else."""
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, all or nothing; folders above it are made."""
    with writing(path):
        is_special = path.exists() and not path.is_file() and not path.is_dir()
    if is_special:  # such as /dev/null, whose place no file may take
        with writing(path):
            path.write_bytes(content)
        return
    replace_together({path: content})


def replace_together(
    contents: Mapping[Path, bytes],
    *,
    durable: bool = True,
    before: Callable[[], None] = lambda: None,
) -> None:
    """Write files: all are whole on disk before the first takes its name, or none changes.

    If `durable`, wait until the content has reached the disk: a rename may reach it before, and a
    crash in between loses the file. `before` is called when all are written and none has its name.
    """
    waiting = {p: p.with_name(f".{p.name}.{os.getpid()}{TEMPORARY}") for p in contents}
    try:
        for path, content in contents.items():
            make_folder(path.parent)
            with writing(path), waiting[path].open("wb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
        before()
        for path, temporary in waiting.items():
            with writing(path):
                temporary.replace(path)
    except BaseException:
        # On a full disk half a file would take the room that the next attempt needs. If it
        # cannot be removed, the first problem is still the one to tell.
        for temporary in waiting.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half written; no other process may be writing."""
    with writing(folder):
        for path in folder.glob(f".*{TEMPORARY}"):
            path.unlink(missing_ok=True)


class Ledger:
    """The SHA-256 of every file that was written into a folder, so that it can be read again.

    `SUMS` is append-only and in the form of ``sha256sum``; of several lines of a file the last
    one counts. A line is there before the file takes its name, so that a process may be killed at
    any moment: it never leaves a file without its line. A line that is damaged can make a whole
    file look damaged, never the other way round.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sums: dict[str, list[str]] = {}
        self._size = -1
        self._seen: dict[str, tuple[tuple[int, int], str]] = {}

    def write(self, contents: Mapping[str, bytes], *, durable: bool = True) -> list[Path]:
        """Write files together; `contents` by their path below the folder."""
        lines = [f"{hashlib.sha256(content).hexdigest()}  {n}" for n, content in contents.items()]
        paths = {self.folder / name: content for name, content in contents.items()}
        replace_together(paths, durable=durable, before=lambda: self._append(lines))
        return list(paths)

    def _append(self, lines: list[str]) -> None:
        path = self.folder / SUMS
        with writing(path), path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                # A process that was killed here left half a line.
                lines = lines if file.read(1) == b"\n" else ["", *lines]
            file.write("".join(f"{line}\n" for line in lines).encode())

    def knows(self, name: str) -> bool:
        """Whether the file was ever written, be it there or not."""
        return name in self._recorded()

    def problem(self, name: str, *, or_before: bool = False) -> str:
        """What is wrong with a file; empty where nothing is. Its bytes are hashed, not decoded.

        If `or_before`, the content before the last one will do, which a killed process may have
        left.
        """
        path = self.folder / name
        try:
            stat = path.stat()
            key = (stat.st_size, stat.st_mtime_ns)
            if name not in self._seen or self._seen[name][0] != key:
                self._seen[name] = (key, _sha256(path))
        except OSError as problem:
            return f"cannot be read ({problem.strerror})"
        known = self._recorded().get(name)
        if known is None:
            return f"not in {SUMS}: another run's file, or one that was put here by hand"
        if self._seen[name][1] in known[-2 if or_before else -1 :]:
            return ""
        return f"damaged or edited: its SHA-256 is not the one in {SUMS}"

    def _recorded(self) -> Mapping[str, list[str]]:
        path = self.folder / SUMS
        try:
            size = path.stat().st_size
            if size != self._size:
                self._sums, self._size = {}, size
                for line in path.read_bytes().decode(errors="replace").split("\n"):
                    digest, _, name = line.partition("  ")
                    self._sums.setdefault(name, []).append(digest)
        except OSError:
            self._sums, self._size = {}, -1
        return self._sums


def sealed(content: Mapping[str, Any]) -> bytes:
    """JSON that begins with the SHA-256 of the rest of it, for a file that no ledger can keep.

    `content` has at least one key, and none that is ``sha256``.
    """
    body = json_bytes(content).removeprefix(b"{\n")
    return _SEAL % hashlib.sha256(body).hexdigest().encode() + body


def unsealed(content: bytes) -> dict[str, Any] | None:
    """What `sealed` was given; None where it is damaged, edited or was never sealed."""
    size = len(_SEAL % (b"0" * 64))
    body = content[size:]
    if content[:size] != _SEAL % hashlib.sha256(body).hexdigest().encode():
        return None
    found: dict[str, Any] = json.loads(content)
    return {key: value for key, value in found.items() if key != "sha256"}


_SEAL = b'{\n "sha256": "%s",\n'


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

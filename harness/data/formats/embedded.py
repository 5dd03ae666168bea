"""Hugging Face datasets that hold their pictures: saved to disk (Arrow), or as Parquet.

Conventions: a picture is a structure of `bytes` and `path`, or bytes alone. A row has one mask or a
list of them, and as many sentences; one sentence for several masks describes them all. What holds
no pictures is a plain table (`harness.data.formats.tables`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from harness.data.formats.entries import CLASS_ONLY, SENTENCE, Choices, Entry, File, Found, Made
from harness.data.formats.files import Files, split_of
from harness.data.formats.rows import called, texts_of
from harness.data.trial import survives
from harness.errors import DataError
from harness.files.canonical import read_json

MAX_SHARD_BYTES = 1 << 30
MAX_UNFOLDED = 3 << 30
_EXAMPLE = "columns such as `image` (picture), `mask` (picture) and `prompt` (text)"


@dataclass(frozen=True)
class _Columns:
    """The columns by their role; `names` are those of classes, where sentences are numbers."""

    image: str
    mask: str
    prompt: str | None
    cluster: str | None
    names: Sequence[str] = ()


def read_embedded(files: Files, choices: Choices) -> Found | None:
    """The rows of the shards of a folder, or None where no shard holds pictures.

    Raises:
        DataError: A shard cannot be read, or has no column of masks.
    """
    for cached in (_shard, _try):
        cached.cache_clear()  # the files may be others than those of an earlier call
    entries: list[Entry] = []
    notes: list[str] = []
    clusters = None
    for path in files.paths:
        if path.suffix.lower() not in {".parquet", ".arrow"}:
            continue
        schema = _schema(files.path(path))
        pictures = [name for name, kind in schema.items() if _is_picture(kind)]
        if not pictures:
            continue
        columns = _columns(files, path, schema, pictures, choices)
        made = list(_entries(files, path, columns))
        entries += made
        notes.append(f"{path}: {len(made)} targets; columns: {_said(columns)}.")
        clusters = f"column {columns.cluster!r}" if columns.cluster else clusters
    if not entries:
        return None
    shards = dict.fromkeys(note.partition(":")[0] for note in notes)
    return Found("hugging-face", ", ".join(shards), tuple(entries), tuple(notes), clusters=clusters)


def _said(columns: _Columns) -> str:
    return ", ".join(
        f"{role} = {name!r}"
        for role in ("image", "mask", "prompt", "cluster")
        if (name := getattr(columns, role))
    )


def _is_picture(kind: pl.DataType) -> bool:
    if isinstance(kind, pl.List):
        return _is_picture(kind.inner)  # type: ignore[arg-type]
    if isinstance(kind, pl.Struct):
        return {"bytes", "path"} <= {field.name for field in kind.fields}
    return kind == pl.Binary


def _read(
    path: Path, columns: Sequence[str] | None = None, n_rows: int | None = None
) -> pl.DataFrame:
    read = {"parquet": pl.read_parquet, "arrow": pl.read_ipc_stream, "ipc": pl.read_ipc}[
        _form(path)
    ]
    try:
        return read(path, columns=None if columns is None else list(columns), n_rows=n_rows)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as problem:
        raise DataError(
            f"{path}: the shard cannot be read ({str(problem)[:200]}). A whole Parquet file, or "
            "an Arrow stream as `save_to_disk` writes it, is needed. Save the data set again."
        ) from None


def _form(path: Path) -> str:
    """Which of the three forms a shard has: ``save_to_disk`` writes streams."""
    if path.suffix.lower() == ".parquet":
        return "parquet"
    with path.open("rb") as file:
        return "ipc" if file.read(6) == b"ARROW1" else "arrow"


def _schema(path: Path) -> Mapping[str, pl.DataType]:
    if path.stat().st_size > MAX_SHARD_BYTES:
        raise DataError(
            f"{path}: the shard has more than {MAX_SHARD_BYTES:,} bytes. At most so many are read. "
            "Save the data set in more shards: save_to_disk(..., max_shard_size='500MB')."
        )
    if path.suffix.lower() == ".parquet":
        try:
            return pl.read_parquet_schema(path)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
            return {}  # said by the reader of tables
    _try(path)
    return _read(path, n_rows=0).schema


@lru_cache(maxsize=1024)
def _try(path: Path) -> None:
    """Refuse a shard that cannot be decoded in bounded memory, before it is decoded here."""
    if not survives([path.read_bytes()], most_bytes=MAX_UNFOLDED, form=_form(path)):
        raise DataError(
            f"{path}: decoding ends in an error, or the cells unfold to more than "
            f"{MAX_UNFOLDED:,} bytes. At most so many are read. Save the data set again, in more "
            "shards."
        )


def _columns(
    files: Files,
    path: PurePosixPath,
    schema: Mapping[str, pl.DataType],
    pictures: Sequence[str],
    choices: Choices,
) -> _Columns:
    def column(role: str, among: Sequence[str]) -> str | None:
        return choices.columns.get(role) or next(called(role, among), None)

    mask = column("mask", pictures)
    image = column("image", [n for n in pictures if n != mask])
    rest = [name for name in schema if name not in pictures]
    if mask is None and image is not None:
        mask = next((name for name in pictures if name != image), None)
    if image is None or mask is None:
        raise DataError(
            f"{files.path(path)}: pictures stand in the columns {list(pictures)}. One of pictures "
            f"and one of masks are needed: {_EXAMPLE}. Rename them, or write --column "
            "mask=NAME."
        )
    prompt = column("prompt", rest)
    names: tuple[str, ...] = ()
    if prompt is None:
        prompt, names = _classes(files, path, rest)
    return _Columns(image, mask, prompt, column("cluster", rest), names)


def _classes(
    files: Files, path: PurePosixPath, columns: Sequence[str]
) -> tuple[str | None, tuple[str, ...]]:
    """A column of classes and their names, from the information beside the shard."""
    info = files.path(path).parent / "dataset_info.json"
    if not info.is_file():
        return None, ()
    said = read_json(info, error=DataError, missing="", repair="Save the data set again.")
    features = said.get("features") if isinstance(said, dict) else None
    if not isinstance(features, dict):
        return None, ()
    for name in columns:
        kind = features.get(name)
        names = kind.get("names") if isinstance(kind, dict) else None
        if isinstance(names, list) and all(isinstance(one, str) for one in names):
            return name, tuple(names)
    return None, ()


@lru_cache(maxsize=1)
def _shard(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    """The pictures of one shard: entries are written in their order."""
    return _read(path, columns)


@dataclass(frozen=True)
class _Cell:
    """A cell of pictures: read anew when it is written, so that shards are held one at a time."""

    where: str
    place: Path
    columns: tuple[str, ...]
    column: str
    number: int
    inner: int | None = None

    def value(self) -> Any:
        """What stands there: a structure, bytes, a series of them, or None."""
        cell = _shard(self.place, self.columns)[self.column][self.number]
        return cell if self.inner is None else cell[self.inner]

    def content(self) -> bytes:
        """The bytes of its picture."""
        cell = self.value()
        return bytes(cell if isinstance(cell, bytes) else cell["bytes"])

    def file(self, files: Files, *, mask: bool) -> File | None:
        """Its picture, which lies in it or beside the shard."""
        cell = self.value()
        if cell is None:
            return None
        content, path = (cell, None) if isinstance(cell, bytes) else (cell["bytes"], cell["path"])
        if content is None:
            found = files.find(path or "", mask=mask, split=None)
            if len(found) != 1:
                column = f"column {self.column!r}"
                files.refuse_missing(self.where, column, str(path), mask=mask)
            return files.path(found[0])
        name = PurePosixPath((path or "").replace("\\", "/")).name
        return Made(name or f"{self.place.stem}_{self.number:06d}.png", self.content)


def _entries(files: Files, path: PurePosixPath, columns: _Columns) -> Iterator[Entry]:
    place = files.path(path)
    _try(place)
    split = split_of(path.stem) or split_of("/".join(path.parent.parts)) or _saved_split(place)
    texts = [name for name in (columns.prompt, columns.cluster) if name]
    rows = _read(place, texts) if texts else None
    shown = (columns.image, columns.mask)
    for number in range(_shard(place, shown).height):
        where = f"{path}: row {number}"
        image = _Cell(where, place, shown, columns.image, number).file(files, mask=False)
        if image is None:
            raise DataError(
                f"{where}, column {columns.image!r}: no picture. Every row has one: {_EXAMPLE}. "
                "Remove the row."
            )
        cluster = rows[columns.cluster][number] if rows is not None and columns.cluster else None
        said = _sentences(rows, columns, number, where)
        for mask, prompts in _targets(
            files, _Cell(where, place, shown, columns.mask, number), columns, said
        ):
            yield Entry(
                where, image, mask, prompts, split, None if cluster is None else str(cluster)
            )


def _saved_split(place: Path) -> str | None:
    state = place.parent / "state.json"
    if not state.is_file():
        return None
    said = read_json(state, error=DataError, missing="", repair="Save the data set again.")
    split = said.get("_split") if isinstance(said, dict) else None
    return split_of(split) if isinstance(split, str) else None


def _sentences(
    rows: pl.DataFrame | None, columns: _Columns, number: int, where: str
) -> tuple[str, ...]:
    if rows is None or columns.prompt is None:
        return ()
    cell = rows[columns.prompt][number]
    if isinstance(cell, pl.Series):
        cell = cell.to_list()
    if columns.names and isinstance(cell, int) and 0 <= cell < len(columns.names):
        return (columns.names[cell],)
    return texts_of(cell, where, columns.prompt)


def _targets(
    files: Files, cell: _Cell, columns: _Columns, said: Sequence[str]
) -> Iterator[tuple[File | None, dict[str, tuple[str, ...]]]]:
    """The masks of a row with their sentences."""
    rung = CLASS_ONLY if columns.names else SENTENCE
    masks = cell.value()
    if not isinstance(masks, pl.Series):
        yield cell.file(files, mask=True), {rung: tuple(said)} if said else {}
        return
    if len(said) not in {1, len(masks)}:
        raise DataError(
            f"{cell.where}: {len(masks)} masks in {columns.mask!r}, {len(said)} sentences in "
            f"{columns.prompt!r}. A sentence for each mask is needed, or one for all. Repair the "
            "row."
        )
    for inner in range(len(masks)):
        one = replace(cell, inner=inner)
        yield one.file(files, mask=True), {rung: (said[inner if len(said) > 1 else 0],)}

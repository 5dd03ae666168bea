"""Prompts that somebody else perturbed, read from a table: CSV, Parquet or XLSX.

Conventions: one row a (image, perturbation, prompt); several rows of one image and
perturbation are repeats. Rows are counted as a spreadsheet does, the header being row 1.
Blanks around a cell's text are no part of it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from harness.cards import Strict
from harness.data.table_files import MAX_BYTES, READERS
from harness.errors import DataError
from harness.files import inside
from harness.prompts.grammar import MAX_LENGTH

ORIGINAL = "original"
"""Rows of this name hold originals and no variants."""


class Columns(Strict):
    """What the table calls its columns."""

    image: str = "image"
    prompt: str = "prompt"
    perturbation: str = "perturbation"
    mask: str | None = Field(default=None, description="Needed where an image has several targets.")


class TableEntry(Strict):
    """Tables of perturbed prompts for one dataset of a suite.

    Either `file`, whose rows name their perturbation, or `files`, one for each
    perturbation, which need no such column.
    """

    dataset: str
    split: str = "test"
    file: str | None = None
    files: dict[str, str] = {}
    under: Literal["data", "suite"] = Field(
        default="data", description="Where paths begin: the data root, or the suite's own folder."
    )
    columns: Columns = Columns()
    match: Literal["name", "stem"] = Field(
        default="name", description="'stem' compares the names of files without their endings."
    )

    @model_validator(mode="after")
    def _one_form(self) -> "TableEntry":
        if (self.file is None) == (not self.files):
            raise ValueError("give either 'file' or 'files'")
        return self


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table; `where` is its place for messages."""

    where: str
    image: str
    mask: str | None
    perturbation: str
    prompt: str


@dataclass(frozen=True)
class Table:
    """One table that was read."""

    file: str
    sha256: str
    rows: tuple[Row, ...]


def read_tables(entry: TableEntry, folder: Path, *, where: str) -> list[Table]:
    """Read the tables of one entry of a suite.

    Raises:
        DataError: A path leaves `folder`, or a table is missing, too large, of an unknown
            kind, or a cell is not what its column wants.
    """
    listed = entry.files.items() if entry.file is None else [(None, entry.file)]
    return [_read(entry, inside(folder, file, where=where), file, name) for name, file in listed]


def _read(entry: TableEntry, path: Path, file: str, name: str | None) -> Table:
    columns = entry.columns
    wanted = {"image": columns.image, "prompt": columns.prompt}
    if name is None:
        wanted["perturbation"] = columns.perturbation
    if columns.mask is not None:
        wanted["mask"] = columns.mask
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: found a file that ends in {path.suffix!r}. Tables are read from "
            f"{', '.join(sorted(READERS))}. Export the table as one of them."
        )
    content = _content(path)
    rows = tuple(
        _row(dict(zip(wanted, cells, strict=True)), f"{path}: row {number}", wanted, name)
        for number, cells in enumerate(reader(path, list(wanted.values())), start=2)
        if any(cell is not None for cell in cells)
    )
    if not rows:
        raise DataError(f"{path}: the table has no row. At least one is needed. Add rows.")
    return Table(file, hashlib.sha256(content).hexdigest(), rows)


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(
            f"{path}: no such table. The suite takes variants from it. Correct the path, which "
            "begins at the data root (or at the suite's folder, with 'under: suite')."
        )
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise DataError(
            f"{path}: the table has {size:,} bytes. At most {MAX_BYTES:,} are read. Split the file."
        )
    return path.read_bytes()


def _row(cells: Mapping[str, Any], where: str, wanted: Mapping[str, str], name: str | None) -> Row:
    texts = {key: _text(cells[key], key, f"{where}, column {wanted[key]!r}") for key in wanted}
    if len(texts["prompt"]) > MAX_LENGTH:
        raise DataError(
            f"{where}, column {wanted['prompt']!r}: found {len(texts['prompt'])} characters that "
            f"begin {texts['prompt'][:40]!r}. At most {MAX_LENGTH} are read. Shorten the text."
        )
    perturbation = texts["perturbation"] if name is None else name
    return Row(where, texts["image"], texts.get("mask"), perturbation, texts["prompt"])


def _text(cell: Any, kind: str, where: str) -> str:
    # Spreadsheets turn a file name such as 14 into a number.
    if kind in {"image", "mask"} and isinstance(cell, int) and not isinstance(cell, bool):
        return str(cell)
    if isinstance(cell, str) and cell.strip():
        return cell.strip()
    found = "an empty cell" if cell is None or isinstance(cell, str) else repr(cell)[:80]
    raise DataError(
        f"{where}: found {found}. A text is needed; the empty prompt is the perturbation 'empty'. "
        "Fill the cell or remove the row."
    )

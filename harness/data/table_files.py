"""Reads the cells of a table from a file: CSV, Parquet or XLSX.

Conventions: a reader takes a path and the names of columns, and gives the cells of these
columns row by row, None for what is empty. Tables come from strangers: nothing in them is
computed or executed, and sizes are limited before anything is unpacked.
"""

import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import polars as pl

from harness.errors import DataError, nearest

MAX_ROWS = 1_000_000
MAX_BYTES = 256 << 20

Cells = Iterator[Sequence[Any]]


def _csv(path: Path, columns: Sequence[str]) -> Cells:
    with _readable(path):
        frame = pl.read_csv(path, infer_schema=False, n_rows=MAX_ROWS + 1)
    return _of_frame(path, frame, columns)


def _parquet(path: Path, columns: Sequence[str]) -> Cells:
    with _readable(path):
        found = pl.read_parquet_schema(path)
        _refuse_missing(path, list(found), columns)
        frame = pl.read_parquet(path, columns=list(dict.fromkeys(columns)), n_rows=MAX_ROWS + 1)
    return _of_frame(path, frame, columns)


def _of_frame(path: Path, frame: pl.DataFrame, columns: Sequence[str]) -> Cells:
    _refuse_missing(path, frame.columns, columns)
    _refuse_long(path, frame.height)
    return zip(*(frame[name].to_list() for name in columns), strict=True)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as problem:
        raise DataError(
            f"{path}: the table cannot be read ({problem}). A whole file is needed, of the kind "
            "that its ending says, as UTF-8 text for CSV. Export it again."
        ) from None


def _xlsx(path: Path, columns: Sequence[str]) -> Cells:
    """The first sheet, row by row; a formula is refused and never computed."""
    openpyxl = _openpyxl(path)
    try:
        _refuse_hostile_zip(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and the like, which no text needs
            book = openpyxl.load_workbook(path, read_only=True, data_only=False)
            with closing(book):
                yield from _of_sheet(path, book.worksheets[0], columns)
    except _BROKEN_XLSX as problem:
        raise DataError(
            f"{path}: the workbook cannot be read ({type(problem).__name__}: {problem}). A whole "
            "XLSX file is needed. Save it again, or export the sheet as CSV."
        ) from None


def _of_sheet(path: Path, sheet: Any, columns: Sequence[str]) -> Cells:
    lines = iter(sheet.iter_rows())
    header = [_header(cell.value) for cell in next(lines, ())]
    _refuse_missing(path, header, columns)
    places = [header.index(name) for name in columns]
    for number, line in enumerate(lines, start=2):
        _refuse_long(path, number - 1)
        yield [_value(line, place, f"{path}: row {number}", header) for place in places]


_BROKEN_XLSX = (
    *(zipfile.BadZipFile, ParseError, KeyError, ValueError, TypeError, IndexError),
    *(AttributeError, EOFError, OSError, NotImplementedError),
)


def _openpyxl(path: Path) -> Any:
    try:
        import openpyxl
    except ImportError:
        raise DataError(
            f"{path}: a workbook, and openpyxl is not installed. It is needed to read XLSX. "
            "Install it (pip install 'vlsm-harness[tables]'), or export the sheet as CSV."
        ) from None
    return openpyxl


def _refuse_hostile_zip(path: Path) -> None:
    """Refuse what would unpack to gigabytes, and XML that declares entities."""
    with zipfile.ZipFile(path) as archive:
        size = sum(part.file_size for part in archive.infolist())
        if size > MAX_BYTES:
            raise DataError(
                f"{path}: the workbook unpacks to {size:,} bytes. At most {MAX_BYTES:,} are read. "
                "Export the sheet as CSV."
            )
        for part in archive.namelist():
            with archive.open(part) as content:
                # Without the zeros of UTF-16; a declaration can only stand at the beginning.
                start = content.read(1 << 14).replace(b"\0", b"")
            if b"<!DOCTYPE" in start or b"<!ENTITY" in start:
                raise DataError(
                    f"{path}: {part!r} declares a document type. Workbooks have none. "
                    "Save the workbook again, or export the sheet as CSV."
                )


def _header(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _value(line: Sequence[Any], place: int, where: str, header: Sequence[str]) -> Any:
    cell = line[place] if place < len(line) else None
    if cell is not None and cell.data_type in {"f", "e"}:
        kind = "a formula" if cell.data_type == "f" else "an error value"
        raise DataError(
            f"{where}, column {header[place]!r}: found {kind}, {str(cell.value)[:40]!r}. Formulas "
            "are not computed; a text is needed. Paste the values instead."
        )
    return None if cell is None else cell.value


def _refuse_missing(path: Path, found: Sequence[str], columns: Sequence[str]) -> None:
    for name in columns:
        if name not in found:
            names = ", ".join(repr(column) for column in found[:20] if column)
            raise DataError(
                f"{path}: no column {name!r}.{nearest(name, found)} Columns: {names}. Name the "
                "table's columns in the suite: columns: {image: ..., prompt: ..., "
                "perturbation: ...}."
            )


def _refuse_long(path: Path, n_rows: int) -> None:
    if n_rows > MAX_ROWS:
        raise DataError(
            f"{path}: more than {MAX_ROWS:,} rows. At most so many are read. Split the table."
        )


READERS: dict[str, Callable[[Path, Sequence[str]], Cells]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".xlsx": _xlsx,
}

"""Reads the cells of a table from a file: CSV, Parquet or XLSX.

Conventions: a reader takes a path and the names of columns, and gives the cells of these
columns row by row, None for what is empty. Tables come from strangers: nothing in them is
computed or executed, and sizes are limited before anything is unpacked.
"""

import csv
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import polars as pl

from harness.data.trial import survives
from harness.errors import DataError, nearest

MAX_ROWS = 1_000_000
MAX_BYTES = 256 << 20
"""Of the file, and of what it unfolds to."""
MAX_COLUMNS = 1000
MAX_CELLS = 50_000_000
"""Up to the last column that is read, those between included."""
MAX_PARTS = 10_000
"""Of a workbook's archive."""

Cells = Iterator[Sequence[Any]]


def _csv(path: Path, columns: Sequence[str]) -> Cells:
    with _readable(path):
        # Every short row is filled up to the header's width: the header is read first.
        header = _csv_header(path)
        _refuse_wide(path, len(header))
        _refuse_missing(path, header, columns)
        wanted = list(dict.fromkeys(columns))
        frame = pl.read_csv(
            path,
            columns=wanted,
            infer_schema=False,
            n_rows=MAX_ROWS + 1,
            separator=_separator(path),
        )
    return _of_frame(path, frame, columns)


def _csv_header(path: Path) -> list[str]:
    return pl.read_csv(path, infer_schema=False, n_rows=0, separator=_separator(path)).columns


def _separator(path: Path) -> str:
    """What the header is cut into most columns by: a comma, unless another one cuts more."""
    with path.open("rb") as file:
        start = file.readline(_LONGEST_HEADER)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(
            f"{path}: text in UTF-16, as spreadsheets save 'Unicode text'. UTF-8 is needed. Save "
            "it as 'CSV UTF-8'."
        )
    line = start.decode("utf-8-sig", "replace")
    try:
        widths = {one: len(next(csv.reader([line], delimiter=one), [])) for one in _SEPARATORS}
    except csv.Error:
        return _SEPARATORS[0]
    return max(_SEPARATORS, key=lambda one: widths[one])


_SEPARATORS = (",", ";", "\t", "|")
_LONGEST_HEADER = 1 << 20


def columns_of(path: Path) -> list[str]:
    """The names of a table's columns, in their order.

    Raises:
        DataError: The table cannot be read.
    """
    kind = path.suffix.lower()
    if kind == ".xlsx":
        with _workbook(path) as sheet:
            return [name for name in _sheet_header(sheet) if name]
    with _readable(path):
        return list(_parquet_schema(path)) if kind == ".parquet" else _csv_header(path)


def _parquet_schema(path: Path) -> Mapping[str, pl.DataType]:
    """What a file says it holds; asking a damaged one can end the process that asks."""
    if not survives([path.read_bytes()], most_bytes=MAX_BYTES, columns=[]):
        raise DataError(
            f"{path}: not a Parquet file that can be read. A table is needed. Export it again."
        )
    return pl.read_parquet_schema(path)


def _parquet(path: Path, columns: Sequence[str]) -> Cells:
    with _readable(path):
        found = _parquet_schema(path)
        _refuse_missing(path, list(found), columns)
        for name in columns:
            if found[name].is_nested() or found[name] in (pl.Binary, pl.Object):
                raise DataError(
                    f"{path}: the column {name!r} is {str(found[name])[:80]}. Texts are needed. "
                    "Write it as texts."
                )
        _refuse_long(path, pl.scan_parquet(path).select(pl.len()).collect().item())
        wanted = list(dict.fromkeys(columns))
        if not survives([path.read_bytes()], most_bytes=MAX_BYTES, columns=wanted):
            raise DataError(
                f"{path}: decoding ends in an error, or the cells unfold to more than "
                f"{MAX_BYTES:,} bytes. At most so many are read. Export the table again, or split "
                "it."
            )
        frame = pl.read_parquet(path, columns=wanted)
    return _of_frame(path, frame, columns)


def _of_frame(path: Path, frame: pl.DataFrame, columns: Sequence[str]) -> Cells:
    _refuse_missing(path, frame.columns, columns)
    _refuse_long(path, frame.height)
    return zip(*(frame[name].to_list() for name in columns), strict=True)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    # Polars panics on some broken Parquet files, outside the family of its errors.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as problem:
        first = str(problem).partition("\n")[0]
        raise DataError(
            f"{path}: the table cannot be read ({first}). A whole file is needed, of the "
            "kind that its ending says, as UTF-8 text for CSV. Export it again."
        ) from None


def _xlsx(path: Path, columns: Sequence[str]) -> Cells:
    """The first sheet, row by row; a formula is refused and never computed."""
    with _workbook(path) as sheet:
        yield from _of_sheet(path, sheet, columns)


@contextmanager
def _workbook(path: Path) -> Iterator[Any]:
    """The first sheet of a workbook."""
    openpyxl = _openpyxl(path)
    try:
        _refuse_hostile_zip(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and the like, which no text needs
            book = openpyxl.load_workbook(path, read_only=True, data_only=False)
            with closing(book):
                yield book.worksheets[0]
    except _BROKEN_XLSX as problem:
        raise DataError(
            f"{path}: the workbook cannot be read ({type(problem).__name__}: {problem}). A whole "
            "XLSX file is needed. Save it again, or export the sheet as CSV."
        ) from None


def _sheet_header(sheet: Any) -> list[str]:
    return [_header(cell.value) for cell in next(sheet.iter_rows(max_row=1), ())]


def _of_sheet(path: Path, sheet: Any, columns: Sequence[str]) -> Cells:
    header = _sheet_header(sheet)
    _refuse_wide(path, len(header))
    _refuse_missing(path, header, columns)
    places = [header.index(name) for name in columns]
    # A row may name a cell far to the right, and is then filled up to there.
    width = max(places) + 1
    for number, line in enumerate(sheet.iter_rows(min_row=2, max_col=width), start=2):
        _refuse_long(path, number - 1)
        _refuse_wide(path, width, n_rows=number)
        yield [_value(line, place, f"{path}: row {number}", header) for place in places]


_BROKEN_XLSX = (
    *(zipfile.BadZipFile, zlib.error, ParseError, KeyError, ValueError, TypeError, IndexError),
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
    _refuse_many_parts(path)
    with zipfile.ZipFile(path) as archive:
        size = sum(part.file_size for part in archive.infolist())
        if size > MAX_BYTES:
            raise DataError(
                f"{path}: the workbook unpacks to {size:,} bytes. At most {MAX_BYTES:,} are read. "
                "Export the sheet as CSV."
            )
        for part in archive.namelist():
            # A declaration stands before the first element, behind comments of any length.
            if _declares(archive, part):
                raise DataError(
                    f"{path}: {part!r} declares a document type. Workbooks have none. "
                    "Save the workbook again, or export the sheet as CSV."
                )


def _refuse_many_parts(path: Path) -> None:
    """Before the archive's directory is read, of which every entry becomes an object."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        tail = file.read()
    at = tail.rfind(b"PK\5\6")
    n_parts, n_bytes = (
        struct.unpack_from("<HI", tail, at + 10) if 0 <= at < len(tail) - 16 else (0, 0)
    )
    if n_parts > MAX_PARTS or n_bytes > MAX_PARTS * 1024 or b"PK\6\7" in tail:
        raise DataError(
            f"{path}: the archive has {n_parts:,} parts or more. A workbook has a few; at most "
            f"{MAX_PARTS:,} are read. Save the workbook again, or export the sheet as CSV."
        )


_TAIL = (1 << 16) + 22


def _declares(archive: zipfile.ZipFile, part: str) -> bool:
    """Whether XML declares a document type, in any encoding of whole bytes."""
    end = b""
    with archive.open(part) as content:
        while block := content.read(1 << 20):
            block = end + block.replace(b"\0", b"")  # the zeros of UTF-16
            if b"<!DOCTYPE" in block or b"<!ENTITY" in block:
                return True
            end = block[-10:]
    return False


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


def _refuse_wide(path: Path, n_columns: int, *, n_rows: int = 1) -> None:
    if n_columns > MAX_COLUMNS or n_columns * n_rows > MAX_CELLS:
        raise DataError(
            f"{path}: {n_rows:,} rows or more of {n_columns:,} columns. At most {MAX_COLUMNS:,} "
            f"columns and {MAX_CELLS:,} cells are read. Remove the columns that are not needed."
        )


READERS: dict[str, Callable[[Path, Sequence[str]], Cells]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".xlsx": _xlsx,
}

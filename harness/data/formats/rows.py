"""The rows of a table or of a JSON file, whatever it calls its columns.

Conventions: a cell is what the file holds, blanks around texts taken away, None for an empty one.
Rows are counted as a spreadsheet does, the header being row 1; those of JSON from 0.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from harness.cards import PROMPT_TYPES
from harness.data.formats.files import split_of
from harness.data.table_files import MAX_BYTES, MAX_ROWS, READERS, columns_of
from harness.errors import DataError, choose
from harness.files.canonical import decoded, parse_json, read_bytes, read_json

TABLES = tuple(READERS)
ROLES: dict[str, tuple[str, ...]] = {
    "image": (
        *("image", "img", "imagename", "imgname", "imagepath", "imgpath", "imagefile"),
        *("filename", "filepath", "file", "picture", "photo", "path", "imageid", "input"),
    ),
    "mask": (
        *("mask", "maskname", "maskpath", "maskfile", "segmentation", "seg", "groundtruth", "gt"),
        *("label", "labelname", "labelpath", "target", "annotation"),
    ),
    "prompt": (
        *("prompt", "prompts", "description", "descriptions", "text", "texts", "caption"),
        *("captions", "sentence", "sentences", "expression", "expressions", "phrase", "report"),
        *("referringexpression", "query", "findings"),
    ),
    "split": ("split", "subset", "partition", "set", "phase"),
    "cluster": (
        *("cluster", "patient", "patientid", "subject", "subjectid", "participant", "pid"),
        *("case", "caseid", "study", "studyid", "video", "videoid", "sequence", "volume", "group"),
    ),
    "prompt_type": ("prompttype", "rung", "type"),
}
"""What people call the columns, without blanks, dashes and capitals; the first that is there."""

_ASKED = 50


@dataclass(frozen=True)
class Rows:
    """The rows of one file."""

    path: PurePosixPath  # of the file, below the folder
    columns: tuple[str, ...]  # the names of its columns
    rows: Sequence[Mapping[str, Any]]  # by column; what a row lacks is None
    first: int  # number of the first row, for messages
    split: str | None = None  # which split all of them belong to, where the file says so

    def where(self, number: int) -> str:
        """The place of a row, for messages."""
        return f"{self.path}: row {self.first + number}"

    def some(self, column: str) -> list[Any]:
        """The first cells of a column that are not empty."""
        found: list[Any] = []
        for row in self.rows:
            if (cell := row.get(column)) is not None:
                found.append(cell)
            if len(found) == _ASKED:
                break
        return found

    def role_of(self, role: str, fits: Callable[[str], bool]) -> str | None:
        """The column that people would call so, which is not empty and fits."""
        return next((n for n in called(role, self.columns) if self.some(n) and fits(n)), None)


def called(role: str, columns: Sequence[str]) -> Iterator[str]:
    """The columns that people would call so, the usual name first."""
    names = {_plain(name): name for name in reversed(columns)}
    return (names[alias] for alias in ROLES[role] if alias in names)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def read_rows(folder: Path, path: PurePosixPath) -> list[Rows]:
    """The rows of a table, a JSON list, or JSON lines; those of several splits apart.

    Raises:
        DataError: The file cannot be read as such.
    """
    place, kind = folder / path, path.suffix.lower()
    split = split_of(path.stem) or split_of("/".join(path.parent.parts))
    if kind in READERS:
        if place.stat().st_size > MAX_BYTES:
            raise DataError(
                f"{place}: has more than {MAX_BYTES:,} bytes. At most so many are read. Split it."
            )
        columns = columns_of(place)
        cells = READERS[kind](place, columns)
        rows = [dict(zip(columns, map(_trimmed, line), strict=True)) for line in cells]
        return [Rows(path, tuple(columns), rows, 2, split)]
    if kind == ".jsonl":
        return [_of_objects(path, _lines(place), split)]
    content = read_json(
        place,
        error=DataError,
        missing="A list of rows is expected there.",
        repair="Export the file again.",
    )
    return of_json(path, content, split)


def of_json(path: PurePosixPath, content: Any, split: str | None) -> list[Rows]:
    """The rows of JSON: a list of objects, lists by split, or a mapping by picture."""
    if isinstance(content, list):
        is_rows = bool(content) and isinstance(content[0], dict)
        return [_of_objects(path, content, split)] if is_rows else []
    if not isinstance(content, dict):
        return []
    listed = {
        name: value
        for name, value in content.items()
        if isinstance(value, list) and value and isinstance(value[0], dict)
    }
    if listed:
        return [_of_objects(path, rows, split_of(name) or split) for name, rows in listed.items()]
    by_picture = [
        {"image": name} | (value if isinstance(value, dict) else {"prompt": value})
        for name, value in content.items()
        if isinstance(value, str | dict | list)
    ]
    return [_of_objects(path, by_picture, split)]


def _lines(place: Path) -> list[Any]:
    content = read_bytes(place, most=MAX_BYTES, error=DataError, missing="Correct the path.")
    text = decoded(content, place, error=DataError)
    return [
        parse_json(
            line.encode(),
            Path(f"{place}: line {number}"),
            error=DataError,
            repair='A line is an object, such as {"image": "1.png", "prompt": "a polyp"}.',
        )
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]


def _of_objects(path: PurePosixPath, content: Sequence[Any], split: str | None) -> Rows:
    if len(content) > MAX_ROWS:
        raise DataError(f"{path}: more than {MAX_ROWS:,} rows. At most so many are read. Split it.")
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(content):
        if not isinstance(row, dict):
            raise DataError(
                f"{path}: row {number}: found {type(row).__name__}. A row is an object, such as "
                '{"image": "1.png", "mask": "1.png", "prompt": "a polyp"}. Repair the row.'
            )
        rows.append({str(key): _trimmed(value) for key, value in row.items()})
    columns = dict.fromkeys(key for row in rows for key in row)
    return Rows(path, tuple(columns), rows, 0, split)


def _trimmed(cell: Any) -> Any:
    """Spreadsheets turn a name such as 14 into a number, and an empty text is an empty cell."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    if isinstance(cell, int) and not isinstance(cell, bool):
        return str(cell)
    if isinstance(cell, str):
        return cell.strip() or None
    return cell


def texts_of(cell: Any, where: str, column: str) -> tuple[str, ...]:
    """The sentences of a cell: one, or a list.

    Raises:
        DataError: It is neither.
    """
    listed = cell if isinstance(cell, list) else [cell]
    texts = [
        text.get("sent", text.get("raw")) if isinstance(text, dict) else text for text in listed
    ]
    texts = [text.strip() if isinstance(text, str) else text for text in texts if text is not None]
    if not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"{where}, column {column!r}: found {str(cell)[:80]!r}. A sentence or a list of them "
            "is needed, such as 'one small polyp'. Repair the cell."
        )
    return tuple(dict.fromkeys(text for text in texts if text))


def are_prompt_types(cells: Iterable[Any]) -> bool:
    """Whether cells name prompt types, in any case."""
    return all(isinstance(cell, str) and cell.lower() in PROMPT_TYPES for cell in cells)


def given_column(rows: Rows, role: str, name: str) -> str:
    """The column that the user names for a role.

    Raises:
        DataError: There is no such column.
    """
    where = f"{rows.path}: --column {role}={name}"
    return choose(name, rows.columns, kind="column", where=where, error=DataError)

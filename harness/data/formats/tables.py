"""Tables and lists of rows: a picture, its mask, its sentence, and what else they say.

Columns are known by their names and by what their cells hold; without a column of masks each mask
is found beside its picture. So the workbooks of the LViT layout are read as well, whose column
`Image` names a mask.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from harness.cards import PROMPT_TYPES
from harness.data.formats.entries import SENTENCE, Choices, Entry, Found
from harness.data.formats.files import (
    PICTURES,
    VOLUMES,
    Files,
    is_mask,
    is_volume,
    split_name,
    split_of,
)
from harness.data.formats.rows import (
    ROLES,
    TABLES,
    Rows,
    are_prompt_types,
    given_column,
    read_rows,
    texts_of,
)
from harness.data.formats.volumes import label_values, slices
from harness.errors import DataError

_SUFFIXES = (*TABLES, ".jsonl", ".json")


@dataclass(frozen=True)
class _Columns:
    """The columns of a table by their role; `ladder` those that are named like prompt types."""

    image: str
    mask: str | None
    prompt: str | None
    split: str | None
    cluster: str | None
    prompt_type: str | None
    ladder: Mapping[str, str]

    def said(self) -> str:
        """As a note says them."""
        named = [f"{role} = {getattr(self, role)!r}" for role in ROLES if getattr(self, role)]
        return ", ".join([*named, *(f"{k} = {v!r}" for k, v in self.ladder.items())])


def read_tables(files: Files, choices: Choices) -> Found | None:
    """The rows of the tables of a folder, or None where no table speaks of its pictures.

    Raises:
        DataError: A cell names no file, or is no sentence; the message names table, row and column.
    """
    speaking = _tables(files, choices)
    if not speaking:
        return None
    kinds = [rows.path.suffix.lower() for rows, _ in speaking]
    first = next(kind for kind in _SUFFIXES if kind in kinds)
    tables = [one for one, kind in zip(speaking, kinds, strict=True) if kind == first]
    entries: list[Entry] = []
    notes: list[str] = []
    gaps = [
        f"{rows.path}: not used beside {tables[0][0].path}; `data init {files.folder / rows.path}` "
        "reads it alone."
        for (rows, _), kind in zip(speaking, kinds, strict=True)
        if kind != first
    ]
    mixed: list[str] = []
    for rows, columns in tables:
        made = list(_entries(files, rows, columns, choices, mixed))
        entries += [entry for entry in made if any(entry.prompts.values())]
        silent = [entry.where for entry in made if not any(entry.prompts.values())]
        notes.append(f"{rows.path}: {len(rows.rows)} rows; columns: {columns.said()}.")
        nothing = [entry.where for entry in made if entry.mask is None]
        if nothing:
            gaps.append(
                f"{len(nothing)} rows without a mask are kept, with empty ones, first {nothing[0]}."
            )
        if silent:
            gaps.append(f"{len(silent)} rows without a sentence are left out, first {silent[0]}.")
    if mixed:
        gaps.append(
            f"{len(mixed)} volumes hold several labels, first {mixed[0]}: all but 0 are the target "
            "of every sentence; --label 2=tumour takes that one."
        )
    clusters = next((f"column {c.cluster!r}" for _, c in tables if c.cluster), None)
    return Found(
        "table",
        ", ".join(dict.fromkeys(str(rows.path) for rows, _ in tables)),
        tuple(entries),
        tuple(notes),
        tuple(gaps),
        clusters,
    )


def _tables(files: Files, choices: Choices) -> list[tuple[Rows, _Columns]]:
    """The tables that speak of pictures; those of the kind first in `_SUFFIXES` are read."""
    if choices.table is not None:
        wanted = [PurePosixPath(choices.table)]
        if wanted[0] not in files.paths:
            raise DataError(
                f"{files.folder}: no table {choices.table!r}. Its path below the folder is needed, "
                "such as --table pairs.csv. Correct it."
            )
    else:
        wanted = [path for path in files.paths if path.suffix.lower() in _SUFFIXES]
    read, problems = _read(files, wanted)
    known = [(rows, c) for rows in read if (c := _columns(files, rows, choices)) is not None]
    speaking = [(rows, c) for rows, c in known if c.prompt or c.ladder]
    if not speaking:
        speaking = [
            (rows, replace(columns, prompt=name))
            for rows, columns in known
            if (name := _only_text(rows, columns, choices)) is not None
        ]
    if not speaking and problems:
        raise problems[0]
    return speaking


def _read(files: Files, paths: Sequence[PurePosixPath]) -> tuple[list[Rows], list[DataError]]:
    """The rows of files, and what is wrong with those that cannot be read."""
    read: list[Rows] = []
    problems: list[DataError] = []
    for path in paths:
        try:
            read += read_rows(files.folder, path)
        except DataError as problem:
            problems.append(problem)
    return read, problems


def _columns(files: Files, rows: Rows, choices: Choices) -> _Columns | None:
    """The columns of a table that names pictures; None of another one."""
    given = {role: given_column(rows, role, name) for role, name in choices.columns.items()}

    def names_files(name: str, *, mask: bool) -> bool:
        cells = rows.some(name)
        found = [files.find(c, mask=mask, split=None) for c in cells if isinstance(c, str)]
        return 2 * sum(map(bool, found)) >= len(cells) and any(found)

    def column(role: str, fits: Callable[[str], bool]) -> str | None:
        return given.get(role) or rows.role_of(role, fits)

    if not given and (named := next((n for n in rows.columns if _is_file(files, n)), None)):
        raise DataError(
            f"{rows.path}: its first row names the file {named!r}. The first row holds the names "
            "of the columns, such as image,mask,prompt. Write them above it."
        )
    image = column("image", partial(names_files, mask=False)) or next(
        (name for name in rows.columns if names_files(name, mask=False)), None
    )
    if image is None:
        return None
    others = [name for name in rows.columns if name != image]
    return _Columns(
        image=image,
        mask=column("mask", partial(names_files, mask=True))
        or next((name for name in others if names_files(name, mask=True)), None),
        prompt=column("prompt", lambda name: all(map(_is_sentence, rows.some(name)))),
        split=column("split", lambda name: all(split_of(str(c)) for c in rows.some(name))),
        cluster=column("cluster", lambda name: _is_cluster(rows, image, name)),
        prompt_type=column("prompt_type", lambda name: are_prompt_types(rows.some(name))),
        ladder={c.lower(): c for c in rows.columns if c.lower() in PROMPT_TYPES},
    )


def _is_file(files: Files, name: str) -> bool:
    """Whether the name of a column is one of a picture or mask: then it is no name."""
    is_named_so = name.lower().endswith((*PICTURES, *VOLUMES))
    return is_named_so and bool(files.find(name, mask=False, split=None))


def _is_sentence(cell: Any) -> bool:
    return isinstance(cell, str | list | dict)


def _is_cluster(rows: Rows, image: str, name: str) -> bool:
    """Whether each picture has one: a row's own number is no patient."""
    seen: dict[Any, Any] = {}
    return all(isinstance(cell, str) for cell in rows.some(name)) and all(
        seen.setdefault(str(row.get(image)), row.get(name)) == row.get(name) for row in rows.rows
    )


def _only_text(rows: Rows, columns: _Columns, choices: Choices) -> str | None:
    """The column of longest texts, where the user agrees."""
    taken = {columns.image, columns.mask, columns.split, columns.cluster}
    lengths = {
        name: sum(len(cell) for cell in cells if isinstance(cell, str)) / len(cells)
        for name in rows.columns
        if name not in taken and (cells := rows.some(name))
    }
    texts = {name: length for name, length in lengths.items() if length > 0}
    if not texts:
        return None
    return choices.ask(
        f"{rows.path}: which column holds the sentences ({', '.join(texts)})?",
        max(texts, key=lambda name: texts[name]),
    )


def _entries(
    files: Files, rows: Rows, columns: _Columns, choices: Choices, mixed: list[str]
) -> Iterator[Entry]:
    """The rows; `mixed` gets the volumes of several labels of which none is chosen."""
    for number, row in enumerate(rows.rows):
        if all(cell is None for cell in row.values()):
            continue
        where = rows.where(number)
        split = _split(row, columns, rows)
        image = _file(files, rows, where, columns.image, row, mask=False, split=split)
        if image is None:
            raise DataError(
                f"{where}, column {columns.image!r}: found an empty cell. Every row names its "
                "picture, such as 'images/1.png'. Fill the cell or remove the row."
            )
        mask = _mask(files, rows, where, columns, row, image, split)
        cluster = row.get(columns.cluster) if columns.cluster else None
        entry = Entry(
            where,
            files.path(image),
            None if mask is None else files.path(mask),
            _prompts(row, columns, where),
            split or split_of("/".join(image.parent.parts)),
            None if cluster is None else str(cluster),
        )
        yield from slices(entry, choices) if is_volume(image) else [entry]
        several = label_values(entry.mask) if is_volume(image) and not choices.labels else []
        if len(several) > 1 and str(mask) not in (known.split(" ")[0] for known in mixed):
            mixed.append(f"{mask} ({', '.join(map(str, several[:8]))})")


def _split(row: Mapping[str, Any], columns: _Columns, rows: Rows) -> str | None:
    cell = row.get(columns.split) if columns.split else None
    return split_name(str(cell)) if cell is not None else rows.split


def _file(
    files: Files,
    rows: Rows,
    where: str,
    column: str,
    row: Mapping[str, Any],
    *,
    mask: bool,
    split: str | None,
) -> PurePosixPath | None:
    cell = row.get(column)
    if cell is None:
        return None
    found = files.find(str(cell), mask=mask, near=rows.path.parent, split=split)
    if not found:
        files.refuse_missing(where, f"column {column!r}", str(cell), mask=mask)
    if len(found) > 1:
        raise DataError(
            f"{where}, column {column!r}: {str(cell)!r} may be {str(found[0])!r} or "
            f"{str(found[1])!r}. A cell names one file. Write its path below the folder, such as "
            f"{str(found[0])!r}."
        )
    return found[0]


def _mask(
    files: Files,
    rows: Rows,
    where: str,
    columns: _Columns,
    row: Mapping[str, Any],
    image: PurePosixPath,
    split: str | None,
) -> PurePosixPath | None:
    """The row's mask; an empty cell says that nothing in the picture is meant."""
    if columns.mask is not None:
        mask = _file(files, rows, where, columns.mask, row, mask=True, split=split)
        if mask == image:
            files.refuse_missing(
                where, f"column {columns.mask!r}", str(row[columns.mask]), mask=True
            )
        return mask
    named = files.find(str(row[columns.image]), mask=True, near=rows.path.parent, split=split)
    found = [path for path in named if is_mask(path)] or files.masks_of(image)
    if len(found) != 1:
        listed = f"{len(found)} masks, {str(found[0])!r} the first" if found else "no mask"
        raise DataError(
            f"{where}: {listed} for the picture {str(image)!r}. One is needed, named like its "
            "picture in a folder such as 'masks', or in a column `mask`. Add it."
        )
    return found[0]


def _prompts(row: Mapping[str, Any], columns: _Columns, where: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for rung, column in columns.ladder.items():
        if (cell := row.get(column)) is not None:
            found[rung] = texts_of(cell, where, column)
    cell = row.get(columns.prompt) if columns.prompt else None
    if isinstance(cell, dict):
        found |= {
            rung.lower(): texts_of(text, where, f"{columns.prompt}.{rung}")
            for rung, text in cell.items()
            if rung.lower() in PROMPT_TYPES
        }
    elif cell is not None:
        named = row.get(columns.prompt_type) if columns.prompt_type else None
        found[str(named).lower() if named else SENTENCE] = texts_of(
            cell, where, str(columns.prompt)
        )
    return found

"""The rows of one annotation file as the data check sees them, and what a check returns.

Conventions: rows are counted from 0, as in every message about data. Nothing is dropped:
a row that the reader would refuse keeps its place, with the reason. A check maps the rows
it objects to onto what it found there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.cards import DatasetCard
from harness.data.layout import (
    Row,
    annotation_file,
    dataset_folder,
    load_entries,
    parse_row,
    parser,
)
from harness.errors import DataError, PromptError
from harness.records import Prompt


@dataclass(frozen=True)
class SplitRows:
    """One annotation file of a dataset."""

    card: DatasetCard
    split: str  # name of the file without its ending
    entries: tuple[Any, ...]  # the rows as they stand in the file
    rows: tuple[Row | None, ...]  # the same rows, read; None where one cannot be read
    refused: Mapping[int, str]  # why, by row
    images: Path  # folder of the pictures, which need not exist
    masks: Path

    def read(self) -> Iterator[tuple[int, Row]]:
        """The rows that can be read, with their places."""
        return ((place, row) for place, row in enumerate(self.rows) if row is not None)

    def prompts(self) -> Iterator[tuple[int, Prompt]]:
        """Every prompt of every row, with the row's place."""
        for place, row in self.read():
            for prompts in row.prompts.values():
                yield from ((place, prompt) for prompt in prompts)


RowCheck = Callable[[SplitRows], Mapping[int, str]]


@dataclass(frozen=True)
class Defect:
    """One kind of defect: what it is called, what it is told by, and who finds it."""

    title: str
    basis: str
    check: RowCheck


@dataclass(frozen=True)
class Finding:
    """How many rows of a file have one defect."""

    defect: str  # key of the kind
    title: str  # what it means, in words
    dataset: str
    split: str
    n_rows: int  # rows that have it
    n_checked: int  # rows that were looked at
    basis: str  # what it was told by: annotations, files, masks or tokens
    examples: tuple[str, ...] = field(default=())  # some of the rows, as ``row 3: what``


@dataclass(frozen=True)
class Unchecked:
    """What could not be checked, and why."""

    dataset: str
    split: str
    what: str
    why: str


EXAMPLES = 3


def finding(key: str, defect: Defect, rows: SplitRows, *, n_checked: int) -> Finding:
    """Run one check on one file."""
    found = defect.check(rows)
    shown = [f"row {place}: {what}" for place, what in sorted(found.items())[:EXAMPLES]]
    return Finding(
        key,
        defect.title,
        rows.card.name,
        rows.split,
        len(found),
        n_checked,
        defect.basis,
        tuple(shown),
    )


def read_split(card: DatasetCard, root: Path, split: str) -> SplitRows:
    """Read one annotation file, row by row.

    Raises:
        DataError: The file is missing, no JSON or no list of rows.
    """
    folder, path = dataset_folder(card, root), annotation_file(card, root, split)
    parse = parser(card)
    entries = load_entries(path)
    rows: list[Row | None] = []
    refused: dict[int, str] = {}
    for place, entry in enumerate(entries):
        try:
            rows.append(parse_row(entry, f"{path}: row {place}", parse))
        except (DataError, PromptError) as problem:
            rows.append(None)
            refused[place] = str(problem)
    return SplitRows(
        card,
        split,
        tuple(entries),
        tuple(rows),
        refused,
        folder / _folder(card.layout.images, split),
        folder / _folder(card.layout.masks, split),
    )


def _folder(setting: str | dict[str, str], split: str) -> str:
    return setting if isinstance(setting, str) else setting.get(split, "")

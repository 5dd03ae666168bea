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
    """One annotation file of a dataset.

    Attributes:
        card: The dataset's card.
        split: Name of the file without its ending.
        entries: The rows as they stand in the file.
        rows: The same rows, read; None where one cannot be read.
        refused: Why, by row.
        images: Folder of the pictures, which need not exist.
        masks: Folder of the masks, which need not exist.
    """

    card: DatasetCard
    split: str
    entries: tuple[Any, ...]
    rows: tuple[Row | None, ...]
    refused: Mapping[int, str]
    images: Path
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
    """How many rows of a file have one defect.

    Attributes:
        defect: Key of the kind.
        title: What it means, in words.
        dataset: Name of the dataset.
        split: The annotation file.
        n_rows: Rows that have it.
        n_checked: Rows that were looked at.
        basis: What it was told by: annotations, files, masks or tokens.
        examples: Some of the rows, as ``row 3: what``.
    """

    defect: str
    title: str
    dataset: str
    split: str
    n_rows: int
    n_checked: int
    basis: str
    examples: tuple[str, ...] = field(default=())


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

"""The figures that models are compared by, as sums over units that all models share.

Three figures: *original Dice* (one a set), the *relative change* of Dice (one a cell of the
plan) and *steadiness* (one a set): the mean agreement between the masks before and after edits
that preserve the meaning, over samples and cells alike. A model that ignores its prompt is
perfectly steady.

Conventions: a *set* is (dataset, split, prompts, prompt type). Ratios are fractions.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from harness.records import Meaning
from harness.stats.coding import PLAN_KEYS
from harness.stats.contrast import Ratios
from harness.stats.intervals import MINIMUM_WORDS
from harness.stats.pairs import Pairs
from harness.stats.reduce import Reduced

ORIGINAL, CHANGE, STEADINESS = "original_dice", "relative_change", "steadiness"
FIGURES = (ORIGINAL, CHANGE, STEADINESS)
SET_KEYS = PLAN_KEYS[:4]


class Figure(NamedTuple):
    """One figure of every model over the same samples.

    Attributes:
        name: One of `FIGURES`.
        keys: Values of `PLAN_KEYS`; probe and attribute are None where a set is meant.
        meaning: What the change does to the meaning; None for a set.
        units: Numbers of the units, ``(G,)``, in order.
        sides: A model each, ``(G, 1)``, or ``(G, m, 1)`` where words are resampled.
        words: Texts of the m words; empty where words are fixed.
        n_samples: Behind the figure.
        references: Mean Dice of the originals as ratios, a model each.
        empty_shares: Share of originals with an empty mask, a model each.
        fixed_words: Whether it speaks of its few words only.
    """

    name: str
    keys: dict[str, str | None]
    meaning: str | None
    units: np.ndarray
    sides: tuple[Ratios, ...]
    words: tuple[str, ...]
    n_samples: int
    references: tuple[Ratios, ...]
    empty_shares: tuple[float, ...]
    fixed_words: bool


def figures_of(pairs: Pairs, left: Reduced) -> Iterator[Figure]:
    """Every figure, sets in order, within a set by figure, probe and attribute.

    Args:
        pairs: Common cases: every model has the same ones.
        left: What is left of them.
    """
    tables = _Tables(pairs, left)
    cells = pairs.plan.cells
    for _, own in cells.group_by(SET_KEYS, maintain_order=True):
        rows = own.rows(named=True)
        original = next(r for r in rows if r["probe"] == "original")
        yield tables.figure(ORIGINAL, original, ("dice", "n"))
        changed = [r for r in rows if r["probe"] != "original"]
        for row in changed:
            yield tables.figure(CHANGE, row, ("dice", "reference"))
        kept = [r for r in changed if r["meaning"] == Meaning.PRESERVED]
        if kept:
            yield tables.pooled(kept, original)


class _Tables:
    """Sums of each (model, plan cell), looked up."""

    def __init__(self, pairs: Pairs, left: Reduced) -> None:
        self._n_cells = pairs.plan.cells.height
        self._n_models = len(pairs.model_ids)
        self._names = pairs.plan.words
        self._units = {cell: rows for (cell,), rows in left.units.group_by("cell")}
        self._words = {cell: rows for (cell,), rows in left.words.group_by("cell")}
        figures = left.figures.select("cell", "n_samples", "originals_empty_share")
        self._facts = {cell: (n, share) for cell, n, share in figures.iter_rows()}

    def _cells(self, row: dict[str, object]) -> list[int]:
        place = int(str(row["plan_cell"]))
        return [number * self._n_cells + place for number in range(self._n_models)]

    def figure(self, name: str, row: dict[str, object], columns: tuple[str, str]) -> Figure:
        cells = self._cells(row)
        sums = [self._units[c].filter(pl.col("n") > 0).sort("unit") for c in cells]
        words, sides = self._sides(cells, sums, columns, worded=name == CHANGE)
        facts = [self._facts[c] for c in cells]
        n_words = self._n_words(cells[0])
        return Figure(
            name=name,
            keys={k: _text(row[k]) for k in PLAN_KEYS}
            | ({"probe": None, "attribute": None} if name == ORIGINAL else {}),
            meaning=None if name == ORIGINAL else _text(row["meaning"]),
            units=sums[0]["unit"].to_numpy(),
            sides=sides,
            words=words,
            n_samples=facts[0][0],
            references=tuple(_ratios(s, "reference", "n") for s in sums),
            empty_shares=tuple(_share(share) for _, share in facts),
            fixed_words=0 < n_words < MINIMUM_WORDS,
        )

    def pooled(self, rows: list[dict[str, object]], original: dict[str, object]) -> Figure:
        """Agreement over all cells that preserve the meaning."""
        by_model = zip(*(self._cells(row) for row in rows), strict=True)
        sums = [
            pl.concat([self._units[c] for c in cells])
            .group_by("unit")
            .agg(pl.col("agreement", "n_agreement", "reference", "n").sum())
            .filter(pl.col("n_agreement") > 0)
            .sort("unit")
            for cells in by_model
        ]
        facts = [self._facts[c] for c in self._cells(original)]
        return Figure(
            name=STEADINESS,
            keys={k: _text(original[k]) for k in PLAN_KEYS} | {"probe": None, "attribute": None},
            meaning=Meaning.PRESERVED.value,
            units=sums[0]["unit"].to_numpy(),
            sides=tuple(_ratios(s, "agreement", "n_agreement") for s in sums),
            words=(),
            n_samples=facts[0][0],
            references=tuple(_ratios(s, "reference", "n") for s in sums),
            empty_shares=tuple(_share(share) for _, share in facts),
            fixed_words=False,
        )

    def _n_words(self, cell: int) -> int:
        return self._words[cell]["word"].n_unique() if cell in self._words else 0

    def _sides(
        self, cells: list[int], sums: list[pl.DataFrame], columns: tuple[str, str], *, worded: bool
    ) -> tuple[tuple[str, ...], tuple[Ratios, ...]]:
        plain = tuple(_ratios(s, *columns) for s in sums)
        if not worded or self._n_words(cells[0]) < MINIMUM_WORDS:
            return (), plain
        numbers = sorted(self._words[cells[0]]["word"].unique())
        sides = []
        for cell, one, ratios in zip(cells, sums, plain, strict=True):
            own = self._words[cell].filter(pl.col("unit").is_in(one["unit"].implode()))
            deviations = np.zeros((one.height, len(numbers)))
            row = np.searchsorted(one["unit"].to_numpy(), own["unit"].to_numpy())
            column = np.searchsorted(numbers, own["word"].to_numpy())
            deviations[row, column] = own[columns[0]].to_numpy()
            by_word = ratios.numerator[:, None, :] + deviations[:, :, None]
            sides.append(Ratios(by_word, ratios.denominator))
        return tuple(self._names[n] for n in numbers), tuple(sides)


def _ratios(sums: pl.DataFrame, above: str, below: str) -> Ratios:
    numerator, denominator = (sums[c].cast(pl.Float64).to_numpy()[:, None] for c in (above, below))
    return Ratios(numerator, denominator)


def _share(share: float | None) -> float:
    return float("nan") if share is None else share


def _text(value: object) -> str | None:
    return None if value is None else str(value)

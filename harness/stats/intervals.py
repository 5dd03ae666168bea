"""The intervals of every cell of a summary, cells with the same units in one resampling.

Conventions: a *quantity* is a ratio of sums over units: ``dice`` and ``reference``
(mean Dice after the change and of the originals), ``relative`` (their ratio),
``points`` (their difference), ``agreement``, ``worst`` (lowest Dice over the originals'),
and over the samples with a named target ``named_gain`` (Dice with it less Dice with the own
mask) and ``decisive`` (the relative one there); all are fractions, and ratios of Dice are 1
where nothing changes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.stats.bootstrap import crossed_inference, ratio_inference
from harness.stats.draws import Draws, Floats, cluster_draws
from harness.stats.limits import PIVOT_LEVELS, Inference, Intervals

QUANTITIES: Mapping[str, tuple[str, str]] = {
    "reference": ("reference", "n"),
    "dice": ("dice", "n"),
    "relative": ("dice", "reference"),
    "points": ("change", "n"),
    "agreement": ("agreement", "n_agreement"),
    "worst": ("worst", "reference"),
    "named_gain": ("gain", "n_named"),
    "decisive": ("own_named", "reference_named"),
}
"""Numerator and denominator of each quantity, columns of the units' sums."""

RELATIVE = ("relative", "worst", "decisive")
"""Those that say nothing where the Dice of the originals is too low."""

MINIMUM_WORDS = 10
"""With fewer words an interval speaks of these words only: they are not resampled."""

_COUNTS = {"agreement": "n_agreement", "named_gain": "n_named", "decisive": "n_named"}
_WORD_COLUMNS = {"dice": "dice", "relative": "dice", "points": "dice", "agreement": "agreement"}


@dataclass(frozen=True, slots=True)
class Solved:
    """One quantity of all cells: fields of `Inference`, the pivot ``(K, n_cells)``."""

    intervals: Intervals
    pivot: Floats
    n_draws: Floats
    word_error: Floats

    @classmethod
    def nothing(cls, n_cells: int) -> "Solved":
        """NaN for every cell."""
        return cls(
            Intervals(*np.full((len(Intervals._fields), n_cells), np.nan)),
            np.full((len(PIVOT_LEVELS), n_cells), np.nan),
            np.zeros(n_cells),
            np.full(n_cells, np.nan),
        )

    def without(self, cells: NDArray[np.bool_]) -> "Solved":
        """The same with NaN for these cells."""
        intervals = Intervals(*(np.where(cells, np.nan, x) for x in self.intervals))
        word_error = np.where(cells, np.nan, self.word_error)
        return Solved(intervals, np.where(cells, np.nan, self.pivot), self.n_draws, word_error)

    def put(self, cell: int, found: Inference, place: int) -> None:
        """Fill in one cell."""
        for target, values in zip(self.intervals, found.intervals, strict=True):
            target[cell] = values[place]
        self.pivot[:, cell] = found.pivot[:, place]
        self.n_draws[cell], self.word_error[cell] = found.n_draws[place], found.word_error[place]


class _Problem(NamedTuple):
    """One quantity of one cell: sums of its units, and each word's deviation from them."""

    cell: int
    quantity: str
    numerator: Floats
    denominator: Floats
    words: tuple[str, ...]
    deviations: Floats | None


def cell_intervals(
    sums: pl.DataFrame,
    deviations: pl.DataFrame,
    *,
    cells: pl.DataFrame,
    units: pl.DataFrame,
    words: Sequence[str],
    count: int,
    seed: int,
) -> dict[str, Solved]:
    """Intervals of each quantity for all cells.

    Args:
        sums: Of each (cell, unit), in order.
        deviations: Of each (cell, unit, word) from the sums over all words.
        cells: ``cell`` and ``probe``, numbered from 0.
        units: ``unit, dataset, split, name``, numbered from 0.
        words: Text of each word number.
        count: Draws.
        seed: Non-negative.

    Returns:
        For each quantity its arrays over the cells, NaN where a cell has none.
    """
    found = {q: Solved.nothing(cells.height) for q in QUANTITIES}
    groups: dict[bytes, tuple[NDArray[np.uint32], list[_Problem]]] = {}
    for kept, problem in _problems(sums, deviations, cells, words):
        groups.setdefault(kept.tobytes(), (kept, []))[1].append(problem)
    for kept, problems in groups.values():
        draws = _draws(units, kept, count, seed)
        _solve([p for p in problems if p.deviations is None], draws, found)
        crossed = [p for p in problems if p.deviations is not None]
        for named in sorted({p.words for p in crossed}):
            word_draws = cluster_draws("", named, count=count, seed=seed, role="words")
            _solve([p for p in crossed if p.words == named], draws, found, words=word_draws)
    return found


def _problems(
    sums: pl.DataFrame, deviations: pl.DataFrame, cells: pl.DataFrame, names: Sequence[str]
) -> Iterator[tuple[NDArray[np.uint32], _Problem]]:
    sums = sums.with_columns(
        change=pl.col("dice") - pl.col("reference"),
        gain=pl.col("dice_named") - pl.col("own_named"),
    )
    original = set(cells.filter(pl.col("probe") == "original")["cell"])
    words = {cell: rows for (cell,), rows in deviations.group_by("cell", maintain_order=True)}
    for (cell,), rows in sums.group_by("cell", maintain_order=True):
        for quantity in ["dice"] if cell in original else list(QUANTITIES):
            kept = rows.filter(pl.col(_COUNTS.get(quantity, "n")) > 0)
            if kept.height:
                own = words.get(cell) if quantity in _WORD_COLUMNS else None
                yield kept["unit"].to_numpy(), _problem(cell, quantity, kept, own, names)


def _problem(
    cell: int, quantity: str, rows: pl.DataFrame, words: pl.DataFrame | None, names: Sequence[str]
) -> _Problem:
    numerator, denominator = (rows[column].to_numpy() for column in QUANTITIES[quantity])
    numbers = [] if words is None else sorted(words["word"].unique())
    if words is None or len(numbers) < MINIMUM_WORDS:
        return _Problem(cell, quantity, numerator, denominator, (), None)
    words = words.filter(pl.col("unit").is_in(rows["unit"].implode()))
    deviations = np.zeros((rows.height, len(numbers)))
    row = np.searchsorted(rows["unit"].to_numpy(), words["unit"].to_numpy())
    column = np.searchsorted(numbers, words["word"].to_numpy())
    deviations[row, column] = words[_WORD_COLUMNS[quantity]].to_numpy()
    texts = tuple(names[n] for n in numbers)
    return _Problem(cell, quantity, numerator, denominator, texts, deviations)


def _draws(units: pl.DataFrame, kept: NDArray[np.uint32], count: int, seed: int) -> Draws:
    rows = units[kept.tolist()]
    dataset = f"{rows['dataset'][0]}/{rows['split'][0]}"
    return cluster_draws(dataset, rows["name"].to_list(), count=count, seed=seed)


def _solve(
    problems: list[_Problem],
    draws: Draws,
    found: Mapping[str, Solved],
    *,
    words: Draws | None = None,
) -> None:
    """Fill in the intervals of problems that share units (and words)."""
    if not problems:
        return
    numerator = np.column_stack([p.numerator for p in problems])
    denominator = np.column_stack([p.denominator for p in problems])
    if words is None:
        solved = ratio_inference(numerator, denominator, draws=draws)
    else:
        deviations = [p.deviations for p in problems if p.deviations is not None]
        by_word = numerator[:, None, :] + np.stack(deviations, axis=-1)
        solved = crossed_inference(by_word, denominator, clusters=draws, words=words)
    for place, problem in enumerate(problems):
        found[problem.quantity].put(problem.cell, solved, place)

"""The intervals of every cell of a summary, cells with the same clusters in one resampling.

Conventions: a *quantity* is a ratio of sums over clusters: ``dice`` and ``reference``
(mean Dice after the change and of the originals), ``relative`` (their ratio),
``points`` (their difference) and ``agreement``; all are fractions, and ``relative`` is 1
where nothing changes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.stats.bootstrap import crossed_intervals, ratio_intervals
from harness.stats.draws import Draws, Floats, cluster_draws
from harness.stats.limits import Intervals
from harness.stats.pairs import Pairs
from harness.stats.relative import Nested

QUANTITIES: Mapping[str, tuple[str, str]] = {
    "reference": ("reference", "n"),
    "dice": ("dice", "n"),
    "relative": ("dice", "reference"),
    "points": ("change", "n"),
    "agreement": ("agreement", "n_agreement"),
}
"""Numerator and denominator of each quantity, columns of the clusters' sums."""

MINIMUM_WORDS = 10
"""With fewer words an interval speaks of these words only: they are not resampled."""

_WORD_COLUMNS = {"dice": "dice", "relative": "dice", "points": "dice", "agreement": "agreement"}


class _Problem(NamedTuple):
    """One quantity of one cell: sums of its clusters, and each word's deviation from them."""

    cell: int
    quantity: str
    numerator: Floats
    denominator: Floats
    words: tuple[str, ...]
    deviations: Floats | None


def cell_intervals(
    pairs: Pairs, nested: Nested, sums: pl.DataFrame, *, count: int, seed: int
) -> dict[str, Intervals]:
    """Intervals of each quantity for all cells.

    Args:
        pairs: The cases.
        nested: Their means.
        sums: Of `harness.stats.relative.cluster_sums`.
        count: Draws.
        seed: Non-negative.

    Returns:
        For each quantity arrays over the cells, ``(n_cells,)``, NaN where a cell has none.
    """
    found = {
        q: Intervals(*np.full((len(Intervals._fields), pairs.cells.height), np.nan))
        for q in QUANTITIES
    }
    groups: dict[bytes, tuple[NDArray[np.uint32], list[_Problem]]] = {}
    for clusters, problem in _problems(pairs, nested, sums):
        groups.setdefault(clusters.tobytes(), (clusters, []))[1].append(problem)
    for clusters, problems in groups.values():
        draws = _draws(pairs.clusters, clusters, count, seed)
        _solve([p for p in problems if p.deviations is None], draws, found)
        crossed = [p for p in problems if p.deviations is not None]
        for words in sorted({p.words for p in crossed}):
            word_draws = cluster_draws("", words, count=count, seed=seed, role="words")
            _solve([p for p in crossed if p.words == words], draws, found, words=word_draws)
    return found


def _problems(
    pairs: Pairs, nested: Nested, sums: pl.DataFrame
) -> Iterator[tuple[NDArray[np.uint32], _Problem]]:
    sums = sums.sort("cell", "cluster").with_columns(change=pl.col("dice") - pl.col("reference"))
    original = set(pairs.cells.filter(pl.col("probe") == "original")["cell"])
    words = {cell: rows for (cell,), rows in nested.words.group_by("cell", maintain_order=True)}
    for (cell,), rows in sums.group_by("cell", maintain_order=True):
        quantities = ["dice"] if cell in original else list(QUANTITIES)
        for quantity in quantities:
            kept = rows.filter(pl.col("n_agreement" if quantity == "agreement" else "n") > 0)
            if kept.height:
                clusters = kept["cluster"].to_numpy()
                own_words = words.get(cell) if quantity in _WORD_COLUMNS else None
                yield clusters, _problem(cell, quantity, kept, own_words, pairs.words)


def _problem(
    cell: int, quantity: str, rows: pl.DataFrame, words: pl.DataFrame | None, names: Sequence[str]
) -> _Problem:
    numerator, denominator = (rows[column].to_numpy() for column in QUANTITIES[quantity])
    numbers = [] if words is None else sorted(words["word"].unique())
    if words is None or len(numbers) < MINIMUM_WORDS:
        return _Problem(cell, quantity, numerator, denominator, (), None)
    words = words.filter(pl.col("cluster").is_in(rows["cluster"].implode()))
    deviations = np.zeros((rows.height, len(numbers)))
    row = np.searchsorted(rows["cluster"].to_numpy(), words["cluster"].to_numpy())
    column = np.searchsorted(numbers, words["word"].to_numpy())
    deviations[row, column] = words[_WORD_COLUMNS[quantity]].to_numpy()
    texts = tuple(names[n] for n in numbers)
    return _Problem(cell, quantity, numerator, denominator, texts, deviations)


def _draws(table: pl.DataFrame, clusters: NDArray[np.uint32], count: int, seed: int) -> Draws:
    rows = table[clusters.tolist()]
    dataset = f"{rows['dataset'][0]}/{rows['split'][0]}"
    return cluster_draws(dataset, rows["cluster_id"].to_list(), count=count, seed=seed)


def _solve(
    problems: list[_Problem],
    draws: Draws,
    found: Mapping[str, Intervals],
    *,
    words: Draws | None = None,
) -> None:
    """Fill in the intervals of problems that share clusters (and words)."""
    if not problems:
        return
    numerator = np.column_stack([p.numerator for p in problems])
    denominator = np.column_stack([p.denominator for p in problems])
    if words is None:
        solved = ratio_intervals(numerator, denominator, draws=draws)
    else:
        deviations = [p.deviations for p in problems if p.deviations is not None]
        by_word = numerator[:, None, :] + np.stack(deviations, axis=-1)
        solved = crossed_intervals(by_word, denominator, clusters=draws, words=words)
    for place, problem in enumerate(problems):
        for target, values in zip(found[problem.quantity], solved, strict=True):
            target[problem.cell] = values[place]

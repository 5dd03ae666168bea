"""Solves all figures of a comparison, those over the same clusters in one resampling.

Conventions: a *pair* is two places among the models, first less second. Differences resample
words where a figure has them; a model's own figure and its originals' Dice resample clusters
alone. Ratios are fractions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from harness.stats.bootstrap import ratio_inference
from harness.stats.contrast import Ratios, difference_inference
from harness.stats.draws import Draws, Floats, cluster_draws
from harness.stats.limits import Inference, Intervals
from harness.stats.sides import Figure


class Solution(NamedTuple):
    """What is known of one figure.

    Attributes:
        differences: A problem for each pair.
        own: A problem for each model.
        references: Mean Dice of the originals, a problem for each model.
    """

    differences: Inference
    own: Intervals
    references: Intervals


def solutions(
    figures: Sequence[Figure],
    units: pl.DataFrame,
    *,
    pairs: Sequence[tuple[int, int]],
    count: int,
    seed: int,
) -> list[Solution]:
    """A solution for each figure.

    Args:
        figures: Over the same models.
        units: ``unit, dataset, split, name``, numbered from 0.
        pairs: At least one.
        count: Draws.
        seed: Non-negative.
    """
    found: dict[int, Solution] = {}
    groups: dict[tuple[bytes, tuple[str, ...]], list[int]] = {}
    for place, figure in enumerate(figures):
        groups.setdefault((figure.units.tobytes(), figure.words), []).append(place)
    for places in groups.values():
        group = [figures[p] for p in places]
        clusters, words = _draws(group[0], units, count, seed)
        found |= dict(zip(places, _solved(group, pairs, clusters, words), strict=True))
    return [found[place] for place in range(len(figures))]


def _draws(
    figure: Figure, units: pl.DataFrame, count: int, seed: int
) -> tuple[Draws, Draws | None]:
    rows = units[figure.units.tolist()]
    dataset = f"{rows['dataset'][0]}/{rows['split'][0]}"
    clusters = cluster_draws(dataset, rows["name"].to_list(), count=count, seed=seed)
    if not figure.words:
        return clusters, None
    return clusters, cluster_draws("", figure.words, count=count, seed=seed, role="words")


def _solved(
    group: Sequence[Figure],
    pairs: Sequence[tuple[int, int]],
    clusters: Draws,
    words: Draws | None,
) -> list[Solution]:
    first, second = (
        _side_by_side([figure.sides[pair[k]] for figure in group for pair in pairs]) for k in (0, 1)
    )
    differences = difference_inference(first, second, draws=clusters, words=words)
    plain = [_without_words(side) for figure in group for side in figure.sides]
    references = [side for figure in group for side in figure.references]
    alone = _side_by_side([*plain, *references])
    single = ratio_inference(*alone, draws=clusters).intervals
    n_models = len(group[0].sides)
    found = []
    for k in range(len(group)):
        own, reference = (
            slice(start + k * n_models, start + (k + 1) * n_models) for start in (0, len(plain))
        )
        of_pairs = slice(k * len(pairs), (k + 1) * len(pairs))
        found.append(
            Solution(
                _part(differences, of_pairs), _columns(single, own), _columns(single, reference)
            )
        )
    return found


def _side_by_side(sides: Sequence[Ratios]) -> Ratios:
    above, below = (np.concatenate(parts, axis=-1) for parts in zip(*sides, strict=True))
    return Ratios(above, below)


def _without_words(side: Ratios) -> Ratios:
    above: Floats = side.numerator
    return Ratios(above.mean(axis=1) if above.ndim == 3 else above, side.denominator)


def _columns(one: Intervals, places: slice) -> Intervals:
    return Intervals(*(field[places] for field in one))


def _part(one: Inference, places: slice) -> Inference:
    others = (field[..., places] for field in one[1:])
    return Inference(_columns(one.intervals, places), *others)

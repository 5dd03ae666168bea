"""Simulated studies of known truth: do intervals cover, do tests keep their level?

``python reports/simulations.py`` (or ``make simulations``) runs every cell, minutes on one
core, and writes ``statistics.md`` beside this file; tests run the same cells, short or whole.

Conventions: a study is one data set of G clusters; studies stand in columns. Dice is bounded:
a sample's Dice before the change is a beta variate around its cluster's own quality. After it,
a steady sample moves a little, up or down, without bias; a dropping one keeps 0 to 10 % of its
Dice. With a share s of drops the true relative change is ``-95 s`` percent, exactly.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.stats.bootstrap import crossed_inference, ratio_inference
from harness.stats.draws import Draws, cluster_draws
from harness.stats.limits import Inference, Intervals
from harness.stats.significance import Estimate, corrected, deciding_test

HERE = Path(__file__).resolve().parent
Floats = NDArray[np.float64]
LOSS = 0.95
"""Mean share of its Dice that a dropping sample loses."""


@dataclass(frozen=True)
class Design:
    """How changes arise.

    Attributes:
        name: In tables.
        share: Of samples that drop.
        gathered: Correlation of drops within a cluster: 0 strikes samples, 1 whole clusters.
        sizes: Smallest and largest number of samples of a cluster, uniform between.
        by_size: Whether drops are the likelier the larger the cluster.
    """

    name: str
    share: float = 0.10
    gathered: float = 0.0
    sizes: tuple[int, int] = (1, 8)
    by_size: bool = False

    @property
    def truth(self) -> float:
        """The true ratio of means."""
        return 1 - LOSS * self.share


DESIGNS = (
    Design("drops strike single samples"),
    Design("drops gather in clusters (0.3)", gathered=0.3),
    Design("drops gather, and in large clusters", gathered=0.3, by_size=True),
    Design("whole clusters drop", gathered=1.0),
    Design("one sample a cluster", sizes=(1, 1)),
)


class Studies(NamedTuple):
    """Sums of each cluster after and before the change, ``(G, studies)``."""

    after: Floats
    before: Floats


def simulate(design: Design, size: int, studies: int, rng: np.random.Generator) -> Studies:
    """Draw so many studies of so many clusters."""
    shape = (size, studies)
    counts = rng.integers(design.sizes[0], design.sizes[1] + 1, shape)
    propensity = _propensity(design, counts, rng)
    quality = rng.beta(8, 2, shape)
    after, before = np.zeros((2, *shape))
    for place in range(design.sizes[1]):
        there = counts > place
        dice = rng.beta(20 * quality, 20 * (1 - quality))
        steady = dice * (1 + (1 - dice) * rng.uniform(-0.1, 0.1, shape))
        dropped = dice * rng.uniform(0, 2 * (1 - LOSS), shape)
        before += there * dice
        after += there * np.where(rng.random(shape) < propensity, dropped, steady)
    return Studies(after, before)


def _propensity(design: Design, counts: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    share = np.full(counts.shape, design.share)
    if design.by_size:
        all_sizes = np.arange(design.sizes[0], design.sizes[1] + 1)
        share = design.share * counts * all_sizes.mean() / (all_sizes**2).mean()
    if design.gathered == 0:
        return share
    if design.gathered == 1:
        return (rng.random(counts.shape) < share).astype(float)
    strength = 1 / design.gathered - 1
    return rng.beta(share * strength, (1 - share) * strength)


def draws_of(size: int, count: int, role: str = "clusters") -> Draws:
    """Draws of so many nameless units."""
    return cluster_draws("simulated", [f"c{i}" for i in range(size)], count=count, seed=0, role=role)


class Coverage(NamedTuple):
    """Shares of studies; their standard error is below ``0.5 / sqrt(studies)``."""

    covered: float
    too_high: float
    too_low: float
    covered90: float
    percentile: float
    bca: float
    width: float


def coverage(found: Intervals, truth: float) -> Coverage:
    """How often intervals hold the truth, and on which side they miss it."""

    def inside(low: Floats, high: Floats) -> float:
        return float(np.mean((low <= truth) & (truth <= high)))

    return Coverage(
        covered=inside(found.low, found.high),
        too_high=float(np.mean(found.low > truth)),
        too_low=float(np.mean(found.high < truth)),
        covered90=inside(found.low90, found.high90),
        percentile=inside(found.percentile_low, found.percentile_high),
        bca=inside(found.bca_low, found.bca_high),
        width=float(np.mean(found.high - found.low)),
    )


def one_way(design: Design, size: int, *, studies: int, draws: int, seed: int = 0) -> Inference:
    """Intervals of all studies of one cell."""
    rng = np.random.default_rng([seed, size, *design.name.encode()])
    data = simulate(design, size, studies, rng)
    return ratio_inference(data.after, data.before, draws=draws_of(size, draws))

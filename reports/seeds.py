"""Simulates how often intervals of a recipe hold the truth, by number and share of seeds.

Conventions: clusters, seeds and single (cluster, seed) cells are normal; 30 clusters; the share
is that of the squared standard error which is the seeds'. Beside the harness's limits stand the
two that it does not take: a bootstrap that resamples seeds as well, and Satterthwaite's degrees of
freedom. Coverage in percent; a figure's own error is at most 0.7.

    python reports/seeds.py
"""

import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from harness.stats.bootstrap import cluster_draws, ratio_inference
from harness.stats.seeds import with_seeds

Floats = NDArray[np.float64]
SHARES = (0.0, 0.3, 0.6, 0.9)
N_CLUSTERS, N_RUNS, N_DRAWS = 30, 4000, 1000


class Parts(NamedTuple):
    """Squared standard errors of one mean, of the clusters and of the seeds, ``(P,)``."""

    mean: Floats
    clusters: Floats
    seeds: Floats


def simulate(n_seeds: int, share: float, *, rng: np.random.Generator) -> Floats:
    """Cells of `N_RUNS` recipes whose true figure is 0, ``(G, S, P)``."""
    own = (1 + 1 / n_seeds) / N_CLUSTERS
    spread = np.sqrt(n_seeds * own * share / (1 - share))
    return np.asarray(
        rng.standard_normal((N_CLUSTERS, 1, N_RUNS))
        + rng.standard_normal((N_CLUSTERS, n_seeds, N_RUNS))
        + spread * rng.standard_normal((1, n_seeds, N_RUNS))
    )


def parts(cells: Floats) -> Parts:
    """Estimates of both parts."""
    n_clusters, n_seeds, _ = cells.shape
    by_cluster, by_seed = cells.mean(axis=1), cells.mean(axis=0)
    return Parts(
        cells.mean(axis=(0, 1)),
        by_cluster.var(axis=0, ddof=1) / n_clusters,
        by_seed.var(axis=0, ddof=1) / n_seeds,
    )


def harness_covers(cells: Floats) -> float:
    """Coverage of `harness.stats.seeds.with_seeds`."""
    means = cells.mean(axis=1)
    names = [str(k) for k in range(N_CLUSTERS)]
    draws = cluster_draws("simulated", names, count=N_DRAWS, seed=0)
    # Ratios of a positive mean: the sums are moved away from 0 and back.
    solved = ratio_inference(means, np.ones_like(means), draws=draws)
    one = parts(cells)
    found = with_seeds(solved, np.sqrt(one.seeds), np.full(means.shape[1], cells.shape[1]))
    return float(np.mean((found.intervals.low <= 0) & (found.intervals.high >= 0)))


def satterthwaite_covers(cells: Floats) -> float:
    """Coverage of one t quantile for the whole standard error."""
    one, n_seeds = parts(cells), cells.shape[1]
    whole = one.clusters + one.seeds
    freedom = whole**2 / (one.clusters**2 / (N_CLUSTERS - 1) + one.seeds**2 / (n_seeds - 1))
    return float(np.mean(np.abs(one.mean) <= stdtrit(freedom, 0.975) * np.sqrt(whole)))


def bootstrap_covers(cells: Floats) -> float:
    """Coverage of percentile limits when clusters and seeds are resampled."""
    rng, n_seeds = np.random.default_rng(1), cells.shape[1]
    cells = cells[..., :1000]
    means = np.empty((400, cells.shape[2]))
    for row in means:
        clusters = np.bincount(rng.integers(N_CLUSTERS, size=N_CLUSTERS), minlength=N_CLUSTERS)
        seeds = np.bincount(rng.integers(n_seeds, size=n_seeds), minlength=n_seeds)
        row[:] = np.einsum("g,s,gsp->p", clusters, seeds, cells) / N_CLUSTERS / n_seeds
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return float(np.mean((low <= 0) & (high >= 0)))


METHODS: dict[str, Callable[[Floats], float]] = {
    "harness": harness_covers,
    "Satterthwaite": satterthwaite_covers,
    "bootstrap of both": bootstrap_covers,
}


def lines() -> Iterator[str]:
    """The result as Markdown."""
    yield "| seeds | method | " + " | ".join(f"share {share:g}" for share in SHARES) + " |"
    yield "|--:|---|" + "--:|" * len(SHARES)
    for n_seeds in (2, 3, 5):
        rng = np.random.default_rng(n_seeds)
        made = [simulate(n_seeds, share, rng=rng) for share in SHARES]
        for name, covers in METHODS.items():
            figures = " | ".join(f"{100 * covers(cells):.1f}" for cells in made)
            yield f"| {n_seeds} | {name} | {figures} |"


if __name__ == "__main__":
    for line in lines():
        sys.stdout.write(line + "\n")

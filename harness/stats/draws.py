"""Bootstrap draws: how often each cluster, or each word, stands in each resampled data set.

Conventions: weights are float64 counts of shape ``(draws, units)``; each row sums
to the number of units. The draws of a set of units depend on the seed and on the
names in the set, on nothing else: every figure over the same clusters shares its
draws, so differences between models and probes are paired.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BLOCK_CELLS = 400_000
"""Weights held at once: 3 MB a block, whatever the number of clusters."""


@dataclass(frozen=True, slots=True)
class Draws:
    """Resamplings with replacement of named, independent units.

    Attributes:
        units: Names, without repetition; their order is that of the weights' columns.
        count: How many resampled data sets.
        seed: Non-negative.
    """

    units: tuple[str, ...]
    count: int
    seed: int

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Rows of the weight matrix, a block at a time, the same on every call.

        Yields:
            The rows' place among all draws, and their weights ``(rows, units)``.
        """
        size = len(self.units)
        rows = max(1, _BLOCK_CELLS // max(size, 1))
        rng = np.random.Generator(np.random.PCG64(self._entropy()))
        for start in range(0, self.count, rows):
            stop = min(start + rows, self.count)
            yield slice(start, stop), _multinomial(rng, stop - start, size)

    def _entropy(self) -> np.random.SeedSequence:
        digest = hashlib.blake2b("\0".join(self.units).encode(), digest_size=16).digest()
        return np.random.SeedSequence([self.seed, *np.frombuffer(digest, dtype="<u4").tolist()])


def cluster_draws(
    dataset: str, clusters: Sequence[str], *, count: int, seed: int, role: str = "clusters"
) -> Draws:
    """Draws of one dataset's clusters; those of another dataset are independent of them.

    Args:
        dataset: Dataset and split; equal cluster names of two datasets are two units.
        clusters: Names, without repetition.
        count: How many resampled data sets.
        seed: Non-negative.
        role: What the units are, so that words and clusters never share draws.
    """
    names = tuple(f"{role}\x1f{dataset}\x1f{name}" for name in clusters)
    return Draws(names, count=count, seed=seed)


def _multinomial(rng: np.random.Generator, rows: int, size: int) -> Floats:
    picks = rng.integers(0, size, size=(rows, size))
    picks += size * np.arange(rows)[:, None]
    counts = np.bincount(picks.ravel(), minlength=rows * size)
    return counts.reshape(rows, size).astype(np.float64)

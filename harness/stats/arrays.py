"""The relative Dice change between two arrays, without a run."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from harness.errors import UsageError
from harness.stats.bootstrap import cluster_draws, ratio_inference

_DRAWS = 10_000


class RelativeChange(NamedTuple):
    """A relative change in percent with its 95 % limits, and what it rests on."""

    percent: float
    low: float
    high: float
    n_samples: int
    n_clusters: int


def relative_change(
    before: ArrayLike,
    after: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
) -> RelativeChange:
    """The paper's relative Dice change, ``100 (mean(after) - mean(before)) / mean(before)``.

    The interval is a studentised bootstrap of clusters; a sample in which either value is
    not a number is left out.

    Args:
        before: Dice of each sample with its own prompt, ``(N,)`` in [0, 1].
        after: Dice of the same samples with the changed prompt, ``(N,)``.
        clusters: Patient, video or image of each sample; every sample is one when None.
        seed: Of the bootstrap.

    Returns:
        Percent. Limits are NaN with fewer than two clusters, all is NaN where the mean before
        is 0 or no sample is left.

    Raises:
        UsageError: The lengths differ.

    Example:
        >>> relative_change([0.8, 0.6, 0.7, 0.9], [0.8, 0.3, 0.7, 0.9]).percent
        -10.0
    """
    old, new = (np.asarray(values, dtype=np.float64).ravel() for values in (before, after))
    names = list(range(len(old))) if clusters is None else list(clusters)
    if not len(old) == len(new) == len(names):
        raise UsageError(
            f"relative_change: {len(old)} values before, {len(new)} after, {len(names)} clusters. "
            "One of each a sample is needed. Give arrays of one length."
        )
    is_known = np.isfinite(old) & np.isfinite(new)
    kept = [name for name, known in zip(names, is_known, strict=True) if known]
    index = {name: number for number, name in enumerate(dict.fromkeys(kept))}
    places = np.array([index[name] for name in kept], dtype=np.intp)
    sums = [
        np.bincount(places, values[is_known], len(index)).astype(np.float64)
        for values in (old, new)
    ]
    if not kept or sums[0].sum() == 0:
        return RelativeChange(np.nan, np.nan, np.nan, len(kept), len(index))
    draws = cluster_draws("arrays", [str(n) for n in range(len(index))], count=_DRAWS, seed=seed)
    found = ratio_inference((sums[1] - sums[0])[:, None], sums[0][:, None], draws=draws).intervals
    percent, low, high = (
        round(100 * float(v[0]), 10) for v in (found.estimate, found.low, found.high)
    )
    return RelativeChange(percent, low, high, len(kept), len(index))

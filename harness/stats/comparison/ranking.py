"""How firm a ranking is: over resampled clusters, and over data sets.

Conventions: a *share of resamples* counts, among the bootstrap's resampled data sets, those in
which something holds; ties share. It says how the ranking of *these* models changes with the
pictures that were drawn, and is no posterior probability: under exact equality it may be anything
between 0 and 1. Models are ranked by a figure of which high is good. The figure of a data set is
the mean over its sets, that over several data sets their unweighted mean; clusters of different
sets are resampled independently, the same clusters together.

References:
    M. G. Kendall, The treatment of ties in ranking problems, Biometrika 33(3):239-251, 1945.
    M. Wiesenfarth et al., Methods and open-source toolkit for analyzing and visualizing challenge
    results, Sci. Rep. 11:2369, 2021. doi:10.1038/s41598-021-82017-6
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from harness.stats.bootstrap import Draws
from harness.stats.comparison.common import Figure
from harness.stats.inference import Floats

OVERALL_SCHEMA: dict[str, Any] = {
    "figure": pl.String,
    "model": pl.String,
    "value": pl.Float64,
    "rank_1_share": pl.Float64,
    "n_datasets": pl.Int64,
}
"""One row a (figure, model) with a rank in every set; `value` is a fraction."""

DATASET_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("figure", "dataset"), pl.String),
    **dict.fromkeys(("first", "first_without", "first_of_all"), pl.List(pl.String)),
    **dict.fromkeys(("tau_others", "tau_whole"), pl.Float64),
}
"""One row a (figure, data set), where there are two of them and two models.

`first` leads on it, `first_without` on the mean of all others, `first_of_all` on that of all.
`tau_others` is Kendall's between its ranking and that of the others' mean, `tau_whole` between the
ranking without it and that of all.
"""

_DECIMALS = 12
"""Equal models may differ by rounding, in a matrix product."""


class Resampled(NamedTuple):
    """One figure of M models on one set: estimates ``(M,)`` and resamples ``(draws, M)``."""

    dataset: str
    estimate: Floats
    drawn: Floats


def resample(figure: Figure, draws: Draws) -> Resampled:
    """Every model's figure in every resample of the clusters; NaN where it is undefined there."""
    above, below = (
        np.hstack([side.numerator for side in figure.sides]),
        np.hstack([side.denominator for side in figure.sides]),
    )
    drawn = np.vstack([_ratio(w @ above, w @ below) for _, w in draws.blocks()])
    estimate = _ratio(above.sum(axis=0), below.sum(axis=0))
    return Resampled(str(figure.keys["dataset"]), estimate, drawn)


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.asarray((above / np.where(below > 0, below, np.nan)).round(_DECIMALS))


def rank_1_shares(drawn: Floats) -> Floats:
    """The share of resamples in which each model is first, ``(M,)``; of k first ones each has 1/k.

    Example:
        >>> rank_1_shares(np.array([[0.9, 0.8], [0.7, 0.7], [0.9, 0.8], [0.6, 0.9]]))
        array([0.625, 0.375])
    """
    whole = drawn[~np.isnan(drawn).any(axis=1)]
    if not whole.size:
        return np.full(drawn.shape[1], np.nan)
    first = whole == whole.max(axis=1, keepdims=True)
    return np.asarray((first / first.sum(axis=1, keepdims=True)).mean(axis=0))


def share_not_better(first: Floats, second: Floats) -> float:
    """The share of resamples ``(draws,)`` in which the first is not better; a tie is half a one.

    Example:
        >>> share_not_better(np.array([0.9, 0.7, 0.9, 0.6]), np.array([0.8, 0.7, 0.8, 0.9]))
        0.375
    """
    both = first - second
    both = both[~np.isnan(both)]
    return float(((both < 0) + 0.5 * (both == 0)).mean()) if both.size else float("nan")


def kendall_tau(one: Floats, other: Floats) -> float:
    """Kendall's tau-b between two rankings of the same models: 1 alike, -1 reversed.

    NaN where all models tie in one of them.

    Example:
        >>> round(kendall_tau(np.array([0.9, 0.8, 0.7]), np.array([0.5, 0.6, 0.4])), 3)
        0.333
    """
    from scipy.stats import kendalltau

    return float(kendalltau(one, other).statistic)


class Firmness(NamedTuple):
    """Rows of `OVERALL_SCHEMA` and `DATASET_SCHEMA` of one figure."""

    overall: list[dict[str, Any]]
    datasets: list[dict[str, Any]]


def firmness(figure: str, sets: Sequence[Resampled], labels: Sequence[str]) -> Firmness:
    """What becomes of a ranking over several data sets.

    The sets are of the same models, `labels`, which have a rank in every set.
    """
    by_dataset: dict[str, list[Resampled]] = {}
    for one in sets:
        by_dataset.setdefault(one.dataset, []).append(one)
    if len(labels) < 2 or len(by_dataset) < 2:
        return Firmness([], [])
    estimates = {name: _mean([s.estimate for s in own]) for name, own in by_dataset.items()}
    whole = _mean(list(estimates.values()))
    shares = rank_1_shares(_mean([_mean([s.drawn for s in own]) for own in by_dataset.values()]))
    overall = [
        {
            "figure": figure,
            "model": labels[k],
            "value": float(whole[k]),
            "rank_1_share": float(shares[k]),
            "n_datasets": len(by_dataset),
        }
        for k in sorted(range(len(labels)), key=lambda k: (-whole[k], k))
    ]
    return Firmness(overall, list(_left_out(figure, estimates, labels)))


def _left_out(
    figure: str, estimates: Mapping[str, Floats], labels: Sequence[str]
) -> Iterator[dict[str, Any]]:
    whole = _mean(list(estimates.values()))
    for dataset, own in estimates.items():
        others = _mean([values for name, values in estimates.items() if name != dataset])
        yield {
            "figure": figure,
            "dataset": dataset,
            "first": _leaders(own, labels),
            "first_without": _leaders(others, labels),
            "first_of_all": _leaders(whole, labels),
            "tau_others": kendall_tau(own, others),
            "tau_whole": kendall_tau(others, whole),
        }


def _mean(parts: Sequence[Floats]) -> Floats:
    return np.asarray(np.mean(np.stack(parts), axis=0).round(_DECIMALS))


def _leaders(values: Floats, labels: Sequence[str]) -> list[str]:
    return [
        label for label, is_first in zip(labels, values == values.max(), strict=True) if is_first
    ]

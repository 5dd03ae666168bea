"""The smallest change the data could show, and the clusters another change would need.

Conventions: two-sided tests at 5 %, 80 % power unless another is asked for. Clusters and
words are random; the words' part of a standard error does not shrink with clusters. Effects
and standard errors share a unit; those of a plan are relative changes in percent.

References:
    J. Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd ed., 1988.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from harness.stats.inference import Floats

ALPHA, POWER = 0.05, 0.8
MOST_CLUSTERS = 10_000_000
_CERTAIN = 30.0


def degrees_of_freedom(
    error: ArrayLike,
    word_error: ArrayLike,
    *,
    n_clusters: ArrayLike,
    n_words: ArrayLike,
    seed_error: ArrayLike = 0.0,
    n_seeds: ArrayLike = 0,
) -> Floats:
    """Satterthwaite's degrees of freedom of a standard error with up to three parts.

    `word_error` is 0 where words are fixed, `seed_error` but for recipes; `n_words` and `n_seeds`
    are not read there.
    """
    whole, words = np.square(np.asarray(error, float)), np.square(np.asarray(word_error, float))
    seeds = np.square(np.asarray(seed_error, float))
    clusters = np.maximum(whole - words - seeds, 0)
    inner = clusters**2 / np.maximum(np.asarray(n_clusters, float) - 1, 1)
    inner = inner + words**2 / np.maximum(np.asarray(n_words, float) - 1, 1)
    inner = inner + seeds**2 / np.maximum(np.asarray(n_seeds, float) - 1, 1)
    plain = np.maximum(np.asarray(n_clusters, float) - 1, 1)
    return np.asarray(np.where(inner > 0, whole**2 / np.where(inner > 0, inner, 1), plain))


def smallest_effect(
    error: ArrayLike, freedom: ArrayLike, *, alpha: float = ALPHA, power: float = POWER
) -> Floats:
    """The true change that data with this standard error would show with this power.

    The test is two-sided at `alpha`.

    Example:
        >>> round(float(smallest_effect(1.0, 1e9)), 3)
        2.802
    """
    from scipy.special import stdtrit

    known = np.asarray(freedom, dtype=np.float64)
    quantiles = np.asarray(stdtrit(known, 1 - alpha / 2)) + np.asarray(stdtrit(known, power))
    return np.asarray(quantiles * np.asarray(error, float))


def clusters_to_decide(
    found: tuple[float, float, float], bound: float, *, n_clusters: int
) -> float:
    """Clusters whose interval would just end at a bound, were the figure to stay as it is.

    Widths fall with the root of their number. At least one more than there are; infinity where the
    figure lies on the bound.

    Example:
        >>> clusters_to_decide((3.0, 1.0, 5.0), 2.0, n_clusters=20)
        80.0
    """
    value, low, high = found
    gap = abs(value - bound)
    half = high - value if bound > value else value - low
    if not gap > 0 or not math.isfinite(half):
        return math.inf
    return float(max(n_clusters + 1, math.ceil(round(n_clusters * (half / gap) ** 2, 6))))


def clusters_needed(
    effect: float,
    error: float,
    *,
    n_clusters: int,
    word_error: float = 0.0,
    n_words: int = 0,
    alpha: float = ALPHA,
    power: float = POWER,
) -> float:
    """Clusters like these that would show a change of `effect`, all else as in the stored run.

    Errors and counts are the stored run's; more clusters do not reduce `word_error`. A whole number
    of at least 2, or infinity where the words alone vary too much, or where more than
    `MOST_CLUSTERS` would be needed.
    """

    def shown(now: float, freedom: float) -> bool:
        return power_of(effect, now, freedom, alpha=alpha) >= power

    return _least_clusters(shown, error, word_error, n_clusters=n_clusters, n_words=n_words)


def clusters_for_none(
    margin: float,
    error: float,
    *,
    n_clusters: int,
    word_error: float = 0.0,
    n_words: int = 0,
    alpha: float = ALPHA,
    power: float = POWER,
) -> float:
    """Clusters like these that would show a true change of 0 to lie within a margin.

    As `clusters_needed`; `alpha` is that of each of the two one-sided tests.
    """
    from scipy.special import stdtr, stdtrit

    def shown(now: float, freedom: float) -> bool:
        if now == 0:
            return True
        room = margin / now - float(stdtrit(freedom, 1 - alpha))
        return 2 * float(stdtr(freedom, room)) - 1 >= power

    return _least_clusters(shown, error, word_error, n_clusters=n_clusters, n_words=n_words)


def _least_clusters(
    shown: Callable[[float, float], bool],
    error: float,
    word_error: float,
    *,
    n_clusters: int,
    n_words: int,
) -> float:
    """The least number of clusters whose standard error and degrees of freedom suffice."""
    spread = math.sqrt(max(error**2 - word_error**2, 0.0) * n_clusters)

    def suffices(count: int) -> bool:
        now = math.sqrt(spread**2 / count + word_error**2)
        freedom = degrees_of_freedom(now, word_error, n_clusters=count, n_words=n_words)
        return shown(now, float(freedom))

    high = 2
    while not suffices(high):
        if high > MOST_CLUSTERS:
            return math.inf
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return float(high)


def power_of(effect: float, error: float, freedom: float, *, alpha: float = ALPHA) -> float:
    """Probability that a two-sided t-test shows a true change of `effect`.

    Example:
        >>> round(power_of(2.802, 1.0, 1e6), 2)
        0.8
    """
    from statsmodels.stats.power import ttest_power

    if error == 0:
        return 1.0 if effect else alpha
    ratio = abs(effect) / error
    if ratio > _CERTAIN:
        return 1.0
    # The library's effect size is in standard deviations of `nobs` values.
    size = ratio / math.sqrt(freedom + 1)
    return float(ttest_power(size, freedom + 1, alpha, df=freedom, alternative="two-sided"))


@dataclass(frozen=True, slots=True)
class PlanningRow:
    """What one row of a summary could show."""

    model: str
    dataset: str
    split: str
    prompts: str
    prompt_type: str
    probe: str
    attribute: str | None  # None where the whole prompt is changed
    n_clusters: int
    error: float  # standard error of the relative change
    smallest_effect: float  # the smallest true change it would show
    # Clusters that would show the effect asked for; infinite where the words alone vary too much.
    clusters_for_effect: float
    clusters_for_none: float  # clusters that would show a change of 0 to lie within the margin

    def record(self) -> dict[str, Any]:
        """Plain values for JSON: infinite becomes ``"never"``, undefined None."""
        return {k: _plain(v) for k, v in asdict(self).items()}


def _plain(value: Any) -> Any:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "never" if math.isinf(value) else None


def planning_rows(
    summary: pl.DataFrame, *, effect: float, margin: float, power: float, least: int
) -> list[PlanningRow]:
    """A row for each probe and attribute that has a relative change with a standard error.

    `effect` and `margin` are in percent; a verdict needs `least` clusters in any case.
    """
    return list(_rows(summary, effect, margin, power, least))


def _rows(
    summary: pl.DataFrame, effect: float, margin: float, power: float, least: int
) -> Iterator[PlanningRow]:
    error = "relative_change_standard_error_percent"
    probes = summary.filter(
        ~pl.col("probe").is_in(["original", "out_of_distribution"]), pl.col(error).is_finite()
    )
    names = ("model", "dataset", "split", "prompts", "prompt_type", "probe", "attribute")
    for row in probes.iter_rows(named=True):
        words = row["relative_change_word_error_percent"]
        sizes = {"n_clusters": row["n_clusters"], "n_words": row["n_words"]}
        freedom = degrees_of_freedom(row[error], words, **sizes)
        like = {"word_error": words, "power": power, **sizes}
        yield PlanningRow(
            **{name: row[name] for name in names},
            n_clusters=row["n_clusters"],
            error=row[error],
            smallest_effect=float(smallest_effect(row[error], freedom, power=power)),
            clusters_for_effect=max(clusters_needed(effect, row[error], **like), least),
            clusters_for_none=max(clusters_for_none(margin, row[error], **like), least),
        )

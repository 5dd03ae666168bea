"""From an estimate and its resampled copies to limits and p-values.

Limits and p-values are read off one distribution of studentised draws, so that the two never
contradict each other: equivalence is shown at 5 % exactly where the 90 % interval lies within
the margin. No p-value is below ``1 / (draws + 1)``.

Conventions: P problems stand in columns; draws are rows, ``(draws, P)``; NaN marks a
draw in which a ratio is undefined and is left out. Limits are 95 % unless their name says 90.

References:
    B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 12-14.
    D. J. Schuirmann, A comparison of the two one-sided tests procedure and the power approach
    for assessing the equivalence of average bioavailability, J. Pharmacokinet. Biopharm.
    15(6):657-680, 1987. doi:10.1007/BF01068419
    S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat.
    6(2):65-70, 1979.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.suite.expectations import Correction, Kind

Floats = NDArray[np.float64]
LEAST_ERROR = 0.25
"""Smallest standard error of a draw, as a share of the sample's.

A draw that misses the few clusters that vary has next to no standard error of its
own and would send one end of the interval far away: with 1 unsteady cluster in 20,
more than every third draw is such a one. A quarter is where a draw without the only
unsteady cluster gives about the exact binomial limit; it does not bind when the
clusters vary alike.
"""

_TIE = 1e-9
_TAIL = np.geomspace(1e-4, 0.5, 121)
PIVOT_LEVELS = np.unique(np.concatenate([_TAIL, [0.025, 0.05], 1 - _TAIL, [0.95, 0.975]]))
"""Probabilities at which the distribution of the studentised draws is kept, ``(K,)``."""


class Intervals(NamedTuple):
    """Estimates with their limits, each ``(P,)``; limits are NaN where only one cluster is."""

    estimate: Floats
    standard_error: Floats
    low: Floats
    high: Floats
    low90: Floats
    high90: Floats
    percentile_low: Floats
    percentile_high: Floats
    bca_low: Floats
    bca_high: Floats

    def part(self, problems: slice) -> "Intervals":
        """Some of the problems."""
        return Intervals(*(field[problems] for field in self))


class Inference(NamedTuple):
    """Intervals with what a p-value needs besides: one and the same set of draws gives both."""

    intervals: Intervals  # of P problems
    pivot: Floats  # quantiles of the studentised draws at `PIVOT_LEVELS`, ``(K, P)``
    n_draws: Floats  # draws in which the problem is defined, ``(P,)``
    word_error: Floats  # the words' part of the standard error, ``(P,)``; 0 where words are fixed
    seed_error: Floats  # the training seeds' part, ``(P,)``; 0 but for recipes

    @classmethod
    def undefined(cls, size: int) -> "Inference":
        """NaN for every problem."""
        return cls(
            Intervals(*np.full((len(Intervals._fields), size), np.nan)),
            np.full((len(PIVOT_LEVELS), size), np.nan),
            np.zeros(size),
            np.full(size, np.nan),
            np.zeros(size),
        )

    def without(self, problems: NDArray[np.bool_]) -> "Inference":
        """The same with NaN for these problems."""
        intervals = Intervals(*(np.where(problems, np.nan, x) for x in self.intervals))
        pivot, words = (np.where(problems, np.nan, x) for x in (self.pivot, self.word_error))
        return Inference(intervals, pivot, self.n_draws, words, self.seed_error)

    def put(self, problem: int, other: "Inference", place: int) -> None:
        """Fill in one problem from another's."""
        for target, values in zip(self.intervals, other.intervals, strict=True):
            target[problem] = values[place]
        self.pivot[:, problem] = other.pivot[:, place]
        self.n_draws[problem] = other.n_draws[place]
        self.word_error[problem] = other.word_error[place]
        self.seed_error[problem] = other.seed_error[place]

    def part(self, problems: slice) -> "Inference":
        """Some of the problems."""
        others = (field[..., problems] for field in self[1:])
        return Inference(self.intervals.part(problems), *others)


def inference_of(
    estimate: Floats,
    error: Floats,
    *,
    shifts: Floats,
    errors: Floats,
    acceleration: Floats,
    word_error: Floats | float = 0.0,
) -> Inference:
    """Studentised limits, with percentile and BCa limits beside them, and their pivot.

    Estimates are ``(P,)``, as are errors; `shifts`, draws minus estimates, and `errors` of the
    draws are ``(draws, P)``; `acceleration` is BCa's constant.
    """
    least = np.where(error > 0, LEAST_ERROR * error, 1.0)
    # A draw that gives the estimate back does so up to rounding; BCa counts such ties.
    shifts = np.where(np.abs(shifts) <= _TIE * error, 0.0, shifts)
    t = np.sort(shifts / np.maximum(errors, least), axis=0)
    pivot = _quantiles(t, _levels(PIVOT_LEVELS, t))
    places = np.searchsorted(PIVOT_LEVELS, [0.025, 0.05, 0.95, 0.975])
    t_low, t_low90, t_high90, t_high = pivot[places]
    ordered = np.sort(shifts, axis=0)
    low, high = _quantiles(ordered, _levels([0.025, 0.975], ordered))
    bca_low, bca_high = _quantiles(ordered, _bca_levels(ordered, acceleration))
    offsets = [-t_high * error, -t_low * error, -t_high90 * error, -t_low90 * error]
    offsets += [low, high, bca_low, bca_high]
    # One cluster has no standard error, and resampling it moves nothing: no limit is known.
    limits = [np.where(np.isnan(error), np.nan, estimate + offset) for offset in offsets]
    n_draws = (~np.isnan(t)).sum(axis=0).astype(np.float64)
    words = np.broadcast_to(np.asarray(word_error, dtype=np.float64), estimate.shape)
    seeds = np.zeros(estimate.shape)
    return Inference(Intervals(estimate, error, *limits), pivot, n_draws, words, seeds)


def acceleration_of(*influences: Floats) -> Floats:
    """BCa's acceleration from the influences of units, an array ``(units, P)`` for each factor."""
    cubes = np.sum([(u**3).sum(axis=0) for u in influences], axis=0)
    squares = np.sum([(u**2).sum(axis=0) for u in influences], axis=0)
    flat = squares == 0
    return np.asarray(np.where(flat, 0.0, cubes / np.where(flat, 1.0, 6 * squares**1.5)))


def _levels(probabilities: Sequence[float] | Floats, ordered: Floats) -> Floats:
    columns = ordered.shape[1]
    return np.repeat(np.asarray(probabilities)[:, None], columns, axis=1)


def _bca_levels(ordered: Floats, acceleration: Floats) -> Floats:
    """Probabilities whose quantiles are the BCa limits, ``(2, P)``; zero shift is the estimate."""
    from scipy.special import ndtr, ndtri

    valid = np.maximum((~np.isnan(ordered)).sum(axis=0), 1)
    below = ((ordered < 0).sum(axis=0) + (ordered <= 0).sum(axis=0)) / 2 / valid
    bias = ndtri(below)
    z = bias + ndtri(np.array([[0.025], [0.975]]))
    with np.errstate(invalid="ignore"):
        return np.asarray(ndtr(bias + z / (1 - acceleration * z)))


def _quantiles(ordered: Floats, probabilities: Floats) -> Floats:
    """Linear quantiles ``(k, P)`` of sorted columns, NaNs (sorted last) left out."""
    last = np.maximum((~np.isnan(ordered)).sum(axis=0) - 1, 0)
    place = np.where(np.isnan(probabilities), 0.0, probabilities) * last
    under = np.floor(place).astype(np.intp)
    over = np.minimum(under + 1, last)
    low = np.take_along_axis(ordered, under, axis=0)
    high = np.take_along_axis(ordered, over, axis=0)
    values = low + (high - low) * (place - under)
    return np.where(np.isnan(probabilities), np.nan, values)


TestName = Literal["equivalence", "difference", "superiority", "non-inferiority", "none"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure of one cell with its interval and what its tests need."""

    value: float
    error: float
    word_error: float  # the words' part of it
    low: float
    high: float
    low90: float
    high90: float
    pivot: Floats  # quantiles of the studentised draws at `PIVOT_LEVELS`, ``(K,)``
    n_draws: float
    seed_error: float = 0.0  # the training seeds' part of `error`

    @property
    def least_p(self) -> float:
        """The smallest p-value that so many draws can give."""
        return 1 / (self.n_draws + 1)

    def limit(self, level: float) -> float:
        """The figure that a one-sided test would just not reject at `level` from above.

        ``limit(0.025)`` is the upper, ``limit(0.975)`` the lower 95 % limit.
        """
        return self.value - self.error * float(np.interp(level, PIVOT_LEVELS, self.pivot))

    def scaled(self, factor: float, *, offset: float = 0.0) -> "Estimate":
        """``factor * (figure - offset)``, such as percent of a change from a ratio."""
        moved = {
            k: factor * (getattr(self, k) - offset)
            for k in ("value", "low", "high", "low90", "high90")
        }
        errors = {k: factor * getattr(self, k) for k in ("error", "word_error", "seed_error")}
        return replace(self, **moved, **errors)


def estimate_of(solved: Inference, cell: int) -> Estimate:
    """One cell's figure."""
    i = solved.intervals
    return Estimate(
        value=float(i.estimate[cell]),
        error=float(i.standard_error[cell]),
        word_error=float(solved.word_error[cell]),
        seed_error=float(solved.seed_error[cell]),
        low=float(i.low[cell]),
        high=float(i.high[cell]),
        low90=float(i.low90[cell]),
        high90=float(i.high90[cell]),
        pivot=solved.pivot[:, cell],
        n_draws=float(solved.n_draws[cell]),
    )


def p_less(found: Estimate, bound: float) -> float:
    """One-sided p-value: how well the data agree with the figure being `bound` or more."""
    if found.error == 0:
        return found.least_p if found.value < bound else 1.0
    t = (found.value - bound) / found.error
    p = float(np.interp(t, found.pivot, PIVOT_LEVELS))
    return max(p, found.least_p)


def p_greater(found: Estimate, bound: float) -> float:
    """One-sided p-value: how well the data agree with the figure being `bound` or less."""
    if found.error == 0:
        return found.least_p if found.value > bound else 1.0
    t = (found.value - bound) / found.error
    p = 1 - float(np.interp(t, found.pivot, PIVOT_LEVELS))
    return max(p, found.least_p)


class Decision(NamedTuple):
    """The test that decides, its p-value, and the outcome that a small one is evidence for."""

    name: TestName
    p_value: float
    outcome: Literal["holds", "fails"]


def deciding_test(found: Estimate, accepted: tuple[float, float], kind: Kind) -> Decision:
    """The test in whose direction the estimate points.

    Within the accepted region: equivalence (both ends finite) or the one-sided test, doubled so
    that it agrees with the 95 % interval. Outside: the test that the figure is beyond.
    """
    low, high = accepted
    name: TestName = "superiority" if kind == "direction" else "non-inferiority"
    if found.error == 0:
        # Without any variance the figure is its own interval, ends of the region included.
        inside = low <= found.value <= high
        own: TestName = (
            ("equivalence" if inside else "difference") if kind == "invariance" else name
        )
        return Decision(own, found.least_p, "holds" if inside else "fails")
    if kind == "invariance" and low < found.value < high:
        return Decision("equivalence", max(p_less(found, high), p_greater(found, low)), "holds")
    if found.value >= high:
        p, outcome = p_greater(found, high), "fails"
    elif found.value <= low:
        p, outcome = p_less(found, low), "fails"
    else:
        p, outcome = (p_less(found, high) if np.isfinite(high) else p_greater(found, low)), "holds"
    name = "difference" if kind == "invariance" else name
    return Decision(name, min(1.0, 2 * p), "fails" if outcome == "fails" else "holds")


def adjust(p_values: Sequence[float], correction: Correction) -> list[float]:
    """Adjust the p-values of one family for its size.

    Example:
        >>> [round(p, 3) for p in adjust([0.01, 0.04, 0.03], "holm")]
        [0.03, 0.06, 0.06]
    """
    if correction == "none" or not len(p_values):
        return list(p_values)
    if correction == "benjamini_hochberg":
        from scipy.stats import false_discovery_control

        return [float(p) for p in false_discovery_control(p_values)]
    # statsmodels has Holm's method, but collects all garbage of the process on every call.
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(p) for p in adjusted]


class Adjusted(NamedTuple):
    """A p-value within its family."""

    p_value: float  # adjusted; NaN where there was no test
    family: list[float]  # unadjusted p-values of the family's tests
    place: int | None  # of the own one among them; None where there was no test

    @property
    def others(self) -> list[float]:
        """Unadjusted p-values of the family's other tests."""
        return [p for k, p in enumerate(self.family) if k != self.place]


def adjust_families(
    tests: Iterable[tuple[Hashable, float]], correction: Correction
) -> list[Adjusted]:
    """Adjust each p-value for the tests of its own family.

    A p-value of NaN, where no test is allowed, is in no family.

    Example:
        >>> tests = [("a", 0.01), ("b", 0.04), ("a", 0.03)]
        >>> [round(one.p_value, 3) for one in adjust_families(tests, "holm")]
        [0.02, 0.04, 0.03]
    """
    families: dict[Hashable, list[float]] = {}
    places: list[tuple[Hashable, int | None]] = []
    for key, p in tests:
        family = families.setdefault(key, [])
        tested = math.isfinite(p)
        places.append((key, len(family) if tested else None))
        family += [p] if tested else []
    adjusted = {key: adjust(family, correction) for key, family in families.items()}
    return [
        Adjusted(math.nan if k is None else adjusted[key][k], families[key], k) for key, k in places
    ]


def level_among(others: Sequence[float], correction: Correction, alpha: float) -> float:
    """The largest p-value that would still be significant beside `others` of its family."""
    if correction == "none":
        return alpha
    size = len(others) + 1
    ordered = np.sort(np.asarray(others, dtype=np.float64))
    if correction == "holm":
        steps = alpha / (size - np.arange(size))
        passed = int(np.argmin(np.append(ordered <= steps[:-1], False)))
        return float(steps[passed])
    steps = alpha * np.arange(1, size + 1) / size
    met = [step for k, step in enumerate(steps) if (ordered <= step).sum() >= k]
    return float(met[-1])

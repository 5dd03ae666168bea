"""From an interval and its pivot to the p-value of the one test that decides an expectation.

Conventions: a p-value is read off the distribution of the studentised draws that the interval
came from, so that the two never contradict each other: equivalence is shown at 5 % exactly
where the 90 % interval lies within the margin. No p-value is below ``1 / (draws + 1)``.

References:
    D. J. Schuirmann, A comparison of the two one-sided tests procedure and the power approach
    for assessing the equivalence of average bioavailability, J. Pharmacokinet. Biopharm.
    15(6):657-680, 1987. doi:10.1007/BF01068419
    S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat.
    6(2):65-70, 1979.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from harness.stats.draws import Floats
from harness.stats.intervals import Solved
from harness.stats.limits import PIVOT_LEVELS
from harness.suite.expectations import Correction, Kind

TestName = Literal["equivalence", "difference", "superiority", "non-inferiority", "none"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure of one cell with its interval and what its tests need.

    Attributes:
        value: The figure.
        error: Its standard error.
        word_error: The words' part of it.
        low: Lower 95 % limit.
        high: Upper 95 % limit.
        low90: Lower 90 % limit.
        high90: Upper 90 % limit.
        pivot: Quantiles of the studentised draws at `PIVOT_LEVELS`, ``(K,)``.
        n_draws: Draws.
    """

    value: float
    error: float
    word_error: float
    low: float
    high: float
    low90: float
    high90: float
    pivot: Floats
    n_draws: float

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
        errors = {k: factor * getattr(self, k) for k in ("error", "word_error")}
        return replace(self, **moved, **errors)


def estimate_of(solved: Solved, cell: int) -> Estimate:
    """One cell's figure."""
    i = solved.intervals
    return Estimate(
        value=float(i.estimate[cell]),
        error=float(i.standard_error[cell]),
        word_error=float(solved.word_error[cell]),
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

    Args:
        found: The figure, in the unit of the region.
        accepted: The closed region that meets the expectation.
        kind: Of expectation.

    Returns:
        Within the region: equivalence (both ends finite) or the one-sided test, doubled so
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


def corrected(p_values: Sequence[float], correction: Correction) -> list[float]:
    """p-values of one family, corrected for its size.

    Example:
        >>> [round(p, 3) for p in corrected([0.01, 0.04, 0.03], "holm")]
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

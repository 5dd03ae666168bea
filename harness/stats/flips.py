"""Flip curves: the margin or bound at which a verdict would be another.

A verdict is a function of the margin that it is judged with: up to one margin it is shown that
the figure goes beyond it, from another one on that it stays within it, and between the two nothing
is shown. Both are limits of the figure at the level that its test has within its family, so that
nothing is resampled.

Conventions: margins are percent of the original Dice, bounds on a refusal rate fractions. 0 stands
for no margin on the lower side, infinity for none on the upper one (for every margin, the other
way round).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.stats.inference import PIVOT_LEVELS, Estimate
from harness.stats.verdicts import ALPHA, Verdict

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Flip:
    """One verdict as a function of its margin or bound.

    Attributes:
        of: An attribute, or ``language``, ``steadiness``, ``refusal``.
        unit: Of the margins: ``percent``, or ``fraction`` for the bound on a refusal rate.
        judged_at: The margin or bound that it was judged with.
        low: What it says up to `low_to`.
        low_to: 0: at no margin.
        high: What it says from `high_from` on; between the two it cannot tell.
        high_from: Infinity: at no margin.
    """

    of: str
    unit: str
    judged_at: float
    low: str
    low_to: float
    high: str
    high_from: float

    def at(self, margin: float) -> str:
        """What the verdict says at a margin.

        Example:
            >>> curve = Flip("size", "percent", 2.0, "heard", 40.0, "unheard", 55.0)
            >>> curve.at(2.0), curve.at(50.0), curve.at(60.0)
            ('heard', 'cannot tell', 'unheard')
        """
        if margin <= self.low_to and self.low_to > 0:
            return self.low
        return self.high if margin >= self.high_from else "cannot tell"

    def text(self) -> str:
        """The next flip in a few letters, in percent.

        Example:
            >>> Flip("size", "percent", 2.0, "heard", 40.0, "unheard", 55.0).text()
            'to 40'
            >>> Flip("refusal", "fraction", 0.8, "refuses", 0.61, "hallucinates", 0.9).text()
            'open, 61 to 90'
        """
        scale = 100 if self.unit == "fraction" else 1
        low, high = (_short(scale * v) for v in (self.low_to, self.high_from))
        now = self.at(self.judged_at)
        if now == self.low:
            return f"to {low}" if low else "always"
        if now == self.high:
            return f"from {high}"
        if self.low_to > 0:
            return f"open, {low} to {high}" if high else f"open from {low}"
        return f"open to {high}" if high else "open"


def _short(value: float) -> str:
    if not math.isfinite(value):
        return ""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def flip_from(record: Mapping[str, Any]) -> Flip:
    """The curve of a record that was read from a run directory: None is infinity."""
    known = {
        k: record[k] for k in ("of", "unit", "judged_at", "low", "low_to", "high", "high_from")
    }
    ends = ("low_to", "high_from")
    return Flip(**known | {k: math.inf for k in ends if known[k] is None})


def in_disagreements(margin: float, inter_annotator_dice: float) -> float:
    """A margin in units of the annotators' own disagreement, 1 - Dice.

    Another annotator's mask in place of the reference loses ``1 - Dice`` of the Dice that the
    reference has with itself; a margin is such a relative loss as well.

    Infinity where annotators agree wholly.

    Example:
        >>> in_disagreements(5.0, 0.9)
        0.5
    """
    apart = 1 - inter_annotator_dice
    return round(margin / 100 / apart, 6) if apart > 0 else math.inf


def disagreement_lines(annotators: Mapping[str, float], margins: Iterable[float]) -> Iterator[str]:
    """A sentence for each set whose annotators were compared: its margins in their disagreement.

    Example:
        >>> next(disagreement_lines({"mine": 0.917}, [2.0, 5.0]))
        "mine: a margin of 2 % is 0.24, of 5 % 0.6 of the annotators' own disagreement (1 - Dice; \
their Dice is 0.917)."
    """
    ordered = sorted(set(margins))
    for name, dice in annotators.items():
        if dice == 1:
            yield f"{name}: its annotators agree wholly (Dice 1): no margin is one of theirs."
            continue
        told = ", of ".join(f"{m:g} % {'is ' * (m == ordered[0])}{in_disagreements(m, dice):.2g}"
                            for m in ordered)  # fmt: skip
        yield (
            f"{name}: a margin of {told} of the annotators' own disagreement (1 - Dice; their Dice "
            f"is {dice:g})."
        )


def upper(found: Estimate, levels: Floats) -> Floats:
    """The bounds from which on ``p_less`` is at most each of the levels; infinity: none."""
    reached = levels >= max(found.least_p, PIVOT_LEVELS[0])
    return np.where(reached, _limit(found, levels), np.inf)


def lower(found: Estimate, levels: Floats) -> Floats:
    """The bounds up to which ``p_greater`` is at most each of the levels."""
    reached = levels >= max(found.least_p, PIVOT_LEVELS[0])
    return np.where(reached, _limit(found, 1 - levels), -np.inf)


def _limit(found: Estimate, levels: Floats) -> Floats:
    if found.error == 0:
        return np.full_like(levels, found.value)
    return np.asarray(found.value - found.error * np.interp(levels, PIVOT_LEVELS, found.pivot))


def beyond_to(found: Estimate, levels: Floats) -> Floats:
    """The largest margins that a figure is shown to lie beyond, one-sided at each level."""
    reach = lower(found, levels) if found.value > 0 else -upper(found, levels)
    return np.clip(reach, 0.0, abs(found.value))


def within_from(found: Estimate, levels: Floats) -> Floats:
    """The smallest margins that a figure is shown to stay within, by two one-sided tests."""
    ends = np.maximum(upper(found, levels), -lower(found, levels))
    return np.maximum(ends, abs(found.value))


def holm_levels(size: int) -> Floats:
    """What the smallest, the second, ... p-value of a family must not exceed."""
    return np.asarray(ALPHA / (size - np.arange(size)))


def holm_reach(reach: Floats) -> Floats:
    """The margins up to which Holm's procedure rejects each test of a family.

    `reach` holds those up to which each test alone is at most each of `holm_levels`, ``(tests,
    levels)``.

    Example:
        >>> holm_reach(np.array([[5.0, 8.0], [1.0, 6.0]]))
        array([5., 5.])
    """
    # A test is rejected at the k-th level where the levels before it have been passed by as many.
    passed = np.sort(reach, axis=0)[::-1].diagonal()
    before = np.minimum.accumulate(np.concatenate([[np.inf], passed[:-1]]))
    return np.asarray(np.minimum(reach, before).max(axis=1))


def steadiness_flip(preserved: Sequence[Verdict]) -> Flip | None:
    """From the verdicts on what keeps the meaning, each with the others' p-values as they are.

    None where none was tested, or where they were judged with several margins.
    """
    moving = [v for v in preserved if _is_margin_of_dice(v)]
    fixed = {v.verdict for v in preserved if not _is_margin_of_dice(v)}
    margins = {v.accepted_high for v in moving}
    if len(margins) != 1:
        return None
    low_to = math.inf if "fails" in fixed else max(v.fails_at for v in moving)
    stays = max(v.holds_at if math.isfinite(v.holds_at) else math.inf for v in moving)
    high_from = math.inf if fixed - {"holds"} else max(stays, low_to)
    return Flip("steadiness", "percent", margins.pop(), "brittle", low_to, "steady", high_from)


def _is_margin_of_dice(verdict: Verdict) -> bool:
    tested = math.isfinite(verdict.p_value)
    return tested and verdict.kind == "invariance" and verdict.of == "relative_change"

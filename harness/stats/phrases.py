"""Verdicts in one sentence of plain English, with the figure and the reason.

Conventions: percent and points have one decimal, fractions three; limits are 95 % and
unadjusted. A sentence ends in a full stop.
"""

import math

from harness.stats.verdicts import Outcome, Verdict
from harness.suite.expectations import UNITS, Figure

_SAYS: dict[Figure, str] = {
    "relative_change": "Dice changes by",
    "points": "Dice changes by",
    "dice": "Dice after the change is",
    "agreement": "the masks before and after the change agree to",
    "named_gain": "Dice with the named mask less Dice with the own mask is",
}
MOST_EMPTY = 0.2
"""Share of originals with an empty mask above which a model gets no verdict."""


def amount(value: float, of: Figure) -> str:
    """One figure with its unit.

    Example:
        >>> amount(-0.04, "relative_change"), amount(0.95, "agreement")
        ('0.0 %', '0.950')
    """
    unit = UNITS[of]
    digits = 3 if unit == "fraction" else 1
    text = f"{value:.{digits}f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return text + {"percent": " %", "points": " points", "fraction": ""}[unit]


def with_limits(value: float, low: float, high: float, of: Figure) -> str:
    """A figure with its limits, such as ``-1.7 % [-5.5, 0.5]``."""
    ends = [amount(x, of).split(" ")[0] for x in (low, high)]
    return f"{amount(value, of)} [{', '.join(ends)}]"


def bound_text(verdict: Verdict) -> str:
    """What is asked for, such as ``within 2 %``, ``below -10 %``, ``at least 0.95``."""
    if verdict.kind == "invariance":
        return f"within {short(verdict.accepted_high, verdict.of)}"
    if verdict.kind == "minimum":
        return f"at least {short(verdict.accepted_low, verdict.of)}"
    if math.isinf(verdict.accepted_low):
        return f"below {short(verdict.accepted_high, verdict.of)}"
    return f"above {short(verdict.accepted_low, verdict.of)}"


def expectation_text(verdict: Verdict) -> str:
    """An expectation in a few words, such as ``invariance of relative_change within 2 %``."""
    return f"{verdict.kind} of {verdict.of} {bound_text(verdict)}"


def short(value: float, of: Figure) -> str:
    """A margin without needless decimals: ``2 %``."""
    return f"{value:g}" + {"percent": " %", "points": " points", "fraction": ""}[UNITS[of]]


def reason_of(verdict: Verdict, *, alpha: float) -> str:
    """The sentence of a verdict that rests on a test."""
    figure = with_limits(verdict.estimate, verdict.low, verdict.high, verdict.of)
    start = f"{_SAYS[verdict.of]} {figure}"
    start = start[0].upper() + start[1:]
    only = " for these words only" if verdict.for_these_words_only else ""
    if verdict.kind == "invariance":
        return f"{start}{only}: {_of_invariance(verdict, alpha)}."
    bound = bound_text(verdict)
    ends: dict[Outcome, str] = {
        "holds": f"shown to be {bound}",
        "fails": f"shown not to be {bound}",
        "inconclusive": f"not shown to be {bound}, nor the contrary" + _correction(verdict, alpha),
    }
    return f"{start}{only}: {ends[verdict.verdict]}."


def _of_invariance(verdict: Verdict, alpha: float) -> str:
    bound = bound_text(verdict)
    if verdict.verdict == "fails":
        return f"shown to go beyond {short(verdict.accepted_high, verdict.of)}"
    if verdict.verdict == "holds":
        smallest = f", and even within {amount(verdict.flips_at, verdict.of)}"
        return f"shown to stay {bound}{smallest}{_unseen(verdict)}"
    could = f"a change of {amount(verdict.smallest_effect, verdict.of)} would have been seen"
    return (
        f"neither shown to stay {bound} nor to go beyond it{_correction(verdict, alpha)}; "
        f"{could} in 4 of 5 studies like this"
    )


def _unseen(verdict: Verdict) -> str:
    """What no interval can exclude: clusters of a rare kind that are not among these."""
    share = verdict.unseen_share
    if not share > verdict.accepted_high / 100:
        return ""
    return f"; clusters that lose their mask could be {100 * share:.1f} % of all and absent here"


def _correction(verdict: Verdict, alpha: float) -> str:
    """A hint where it was the number of tests that decided."""
    bites = verdict.p_value <= alpha < verdict.p_adjusted
    return f" after correction for {verdict.n_family} tests" if bites else ""


def blocked_because(
    reason: str = "",
    *,
    n_clusters: int | None = None,
    needed: int = 0,
    empty_share: float | None = None,
    named: bool = False,
    defined: bool = True,
) -> str:
    """Why no verdict is allowed, as a sentence; empty where one is.

    Args:
        reason: Of the summary, where it has one.
        n_clusters: Behind the figure.
        needed: Clusters that a verdict needs.
        empty_share: Share of originals whose mask is empty.
        named: Whether the clusters are those with a named target.
        defined: Whether the figure has a standard error.
    """
    if reason:
        return f"No verdict: {reason}."
    if n_clusters is not None and n_clusters < needed:
        kind = "clusters with a named target" if named else "clusters"
        return f"No verdict: {n_clusters} {kind}, and {needed} are needed."
    if empty_share is not None and empty_share > MOST_EMPTY:
        return (
            f"No verdict: the mask is empty for {100 * empty_share:.0f} % of the original prompts, "
            f"and at most {100 * MOST_EMPTY:.0f} % are allowed."
        )
    return "" if defined else "No verdict: the figure has no standard error."

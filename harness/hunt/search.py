"""Looks for the smallest break: Hypothesis first, then every smaller candidate one by one.

Conventions: the budget counts calls of the model, one for each distinct text and one for
the original; texts that were tried cost nothing. The same model, sample, seed and version of
Hypothesis give the same break; where minimality is proven, seed and version do not matter.

References:
    D. R. MacIver, Z. Hatfield-Dodds, et al., Hypothesis: a new approach to property-based
    testing, Journal of Open Source Software 4(43):1891, 2019. doi:10.21105/joss.01891
"""

import math
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

from harness.hunt.space import Candidate, Kind, Order, Space
from harness.hunt.subject import Measured, Subject
from harness.prompts.strategies import Composition

BREAK_BELOW_PERCENT = -20.0
"""A relative change of Dice below this breaks the model, if the prompt says the same."""
DEAF_ABOVE_AGREEMENT = 0.95
"""An agreement above this is deaf, if the prompt names another target."""
# Hypothesis tries so many at most, and never more than half of the budget.
MOST_EXAMPLES = 200


class Minimality(StrEnum):
    """How much of what is smaller than the break was tried; of everything, if there is none.

    `proven`: every candidate of the space. `single variants`: every single one, not every
    combination. `unproven`: the budget was spent before.
    """

    PROVEN = "proven"
    SINGLES = "single variants"
    UNPROVEN = "unproven"


class Found(NamedTuple):
    """The smallest break of a sample, or None, and how sure that is."""

    candidate: Candidate | None
    measured: Measured | None
    minimality: Minimality
    n_tried: int
    calls: int


def is_break(kind: Kind, measured: Measured) -> bool:
    """Whether a change of the prompt breaks the model; two empty masks say nothing."""
    if kind is Kind.PRESERVED:
        return measured.relative_change < BREAK_BELOW_PERCENT
    return measured.n_pred > 0 and measured.agreement > DEAF_ABOVE_AGREEMENT


class Ledger:
    """What was tried on a sample, within a budget; remembers the smallest break."""

    def __init__(self, subject: Subject, space: Space, budget: int) -> None:
        self._subject = subject
        self._space = space
        self._budget = budget
        self._tried: set[str] = set()
        self.smallest: Candidate | None = None

    def measure(self, candidate: Candidate) -> Measured | None:
        """What the model does with a candidate; None where the budget is spent."""
        if not self._subject.knows(candidate.text) and self._subject.calls >= self._budget:
            return None
        measured = self._subject.measure(candidate.text)
        self._tried.add(candidate.text)
        if is_break(self._space.kind, measured) and (
            self.smallest is None or candidate.order < self.smallest.order
        ):
            self.smallest = candidate
        return measured

    def found(self, minimality: Minimality) -> Found:
        """The outcome of the hunt."""
        best = self.smallest
        measured = None if best is None else self._subject.measure(best.text)
        return Found(best, measured, minimality, len(self._tried), self._subject.calls)


def hunt(subject: Subject, space: Space, *, budget: int, fixed_seed: int) -> Found:
    """The smallest break of one sample.

    Args:
        subject: The sample before the model.
        space: The candidates.
        budget: Calls of the model at most, the one for the original included.
        fixed_seed: Seed of Hypothesis.
    """
    ledger = Ledger(subject, space, budget)
    if space.atoms:
        examples = max(1, min(MOST_EXAMPLES, budget // 2))
        _search(ledger, space, examples=examples, fixed_seed=fixed_seed)
    return ledger.found(_try_all_smaller(ledger, space))


def _try_all_smaller(ledger: Ledger, space: Space) -> Minimality:
    """Try what is smaller than the smallest break, in order, until something breaks."""
    if not _exhaust(ledger, space.singles):
        return Minimality.UNPROVEN
    several = space.several(_order(ledger.smallest))
    if several is None:
        return Minimality.SINGLES
    return Minimality.PROVEN if _exhaust(ledger, several) else Minimality.UNPROVEN


def _order(candidate: Candidate | None) -> Order | None:
    return None if candidate is None else candidate.order


def _exhaust(ledger: Ledger, candidates: Iterable[Candidate]) -> bool:
    """Try candidates in order up to the smallest break; whether the budget allowed it."""
    for candidate in candidates:
        if ledger.smallest is not None and candidate.order >= ledger.smallest.order:
            return True
        if ledger.measure(candidate) is None:
            return False
    return True


class _FoundError(Exception):
    """Tells Hypothesis of a break, to be shrunk; never leaves this module."""


def _search(ledger: Ledger, space: Space, *, examples: int, fixed_seed: int) -> None:
    """Let Hypothesis look for a break and shrink it; the ledger remembers the smallest."""
    from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings, target

    @seed(fixed_seed)
    @settings(
        max_examples=examples,
        phases=(Phase.generate, Phase.target, Phase.shrink),
        database=None,
        deadline=None,
        derandomize=False,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(space.strategy())
    def attempt(composition: Composition) -> None:
        candidate = space.candidate(composition)
        measured = None if candidate is None else ledger.measure(candidate)
        if measured is None:
            return
        score = _SCORES[space.kind](measured)
        if math.isfinite(score):
            target(score)
        if is_break(space.kind, measured):
            raise _FoundError

    try:
        attempt()
    except _FoundError:
        return


_SCORES: dict[Kind, Callable[[Measured], float]] = {
    Kind.PRESERVED: lambda measured: -measured.relative_change,
    Kind.DEAF: lambda measured: measured.agreement,
}

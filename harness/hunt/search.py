"""Looks for the smallest break: Hypothesis first, then every smaller candidate one by one.

Conventions: the budget counts calls of the model, one for each distinct text and one for the
original; texts that were tried cost nothing. The same model, sample, seed and version of Hypothesis
give the same break; where minimality is proven, seed and version do not matter.
"""

import math
from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from typing import NamedTuple

from hypothesis import given, seed, target

from harness.hunt.evaluator import Measurement, SampleEvaluator
from harness.hunt.space import Candidate, Kind, Space
from harness.prompts.strategies import Composition, silent_settings

BREAK_BELOW_PERCENT = -20.0
"""A relative change of Dice below this breaks the model, if the prompt says the same."""
DEAF_ABOVE_AGREEMENT = 0.95
"""An agreement above this is deaf, if the prompt names another target."""
MAX_EXAMPLES = 200
"""Tried by Hypothesis, which never gets more than half of the budget."""


class Minimality(StrEnum):
    """How much of what is smaller than the break was tried; of everything, if there is none.

    `proven`: every candidate of the space. `single variants`: every single one, not every
    combination. `unproven`: the budget was spent before.
    """

    PROVEN = "proven"
    SINGLES = "single variants"
    UNPROVEN = "unproven"


class SearchResult(NamedTuple):
    """The smallest break of a prompt, or None, and how sure that is."""

    candidate: Candidate | None
    measurement: Measurement | None
    minimality: Minimality
    n_tried: int
    calls: int


def is_break(kind: Kind, measurement: Measurement) -> bool:
    """Whether a change of the prompt breaks the model; two empty masks say nothing."""
    if kind is Kind.PRESERVED:
        return measurement.relative_change < BREAK_BELOW_PERCENT
    return measurement.n_pred > 0 and measurement.agreement > DEAF_ABOVE_AGREEMENT


class SearchLog:
    """What was tried on a prompt, within a budget; remembers the smallest break."""

    def __init__(self, evaluator: SampleEvaluator, space: Space, budget: int) -> None:
        self._evaluator = evaluator
        self._space = space
        self._budget = budget
        self._tried: set[str] = set()
        self.smallest: Candidate | None = None

    def measure(self, candidate: Candidate) -> Measurement | None:
        """What the model does with a candidate; None where the budget is spent."""
        evaluator = self._evaluator
        if not evaluator.knows(candidate.text) and evaluator.calls >= self._budget:
            return None
        measurement = evaluator.measure(candidate.text)
        self._tried.add(candidate.text)
        if self.is_smaller(candidate) and is_break(self._space.kind, measurement):
            self.smallest = candidate
        return measurement

    def is_smaller(self, candidate: Candidate) -> bool:
        """Whether a candidate is smaller than the smallest break."""
        return self.smallest is None or candidate.order < self.smallest.order

    def exhaust(self, candidates: Iterable[Candidate]) -> bool:
        """Try candidates in order up to the smallest break; whether the budget allowed it."""
        for candidate in candidates:
            if not self.is_smaller(candidate):
                return True
            if self.measure(candidate) is None:
                return False
        return True

    def result(self, minimality: Minimality) -> SearchResult:
        """The smallest break, measured."""
        best = self.smallest
        measurement = None if best is None else self._evaluator.measure(best.text)
        return SearchResult(best, measurement, minimality, len(self._tried), self._evaluator.calls)


def find_smallest_break(
    evaluator: SampleEvaluator, space: Space, *, budget: int, fixed_seed: int
) -> SearchResult:
    """Find the smallest break of one prompt.

    `budget` is the most calls of the model, the one for the original included; `fixed_seed` is
    Hypothesis's.
    """
    log = SearchLog(evaluator, space, budget)
    if space.atoms:
        examples = max(1, min(MAX_EXAMPLES, budget // 2))
        _search(log, space, examples=examples, fixed_seed=fixed_seed)
    return log.result(_try_all_smaller(log, space))


def _try_all_smaller(log: SearchLog, space: Space) -> Minimality:
    """Try what is smaller than the smallest break, in order, until something breaks."""
    if not log.exhaust(space.singles):
        return Minimality.UNPROVEN
    several = space.several(None if log.smallest is None else log.smallest.order)
    if several is None:
        return Minimality.SINGLES
    return Minimality.PROVEN if log.exhaust(several) else Minimality.UNPROVEN


class _FoundError(Exception):
    """Tells Hypothesis of a break, to be shrunk; never leaves this module."""


def _search(log: SearchLog, space: Space, *, examples: int, fixed_seed: int) -> None:
    """Let Hypothesis look for a break and shrink it; the log remembers the smallest."""

    @seed(fixed_seed)
    @silent_settings(examples)
    @given(space.strategy())
    def attempt(composition: Composition) -> None:
        candidate = space.candidate(composition)
        measurement = None if candidate is None else log.measure(candidate)
        if measurement is None:
            return
        is_deaf = space.kind is Kind.DEAF
        score = measurement.agreement if is_deaf else -measurement.relative_change
        if math.isfinite(score):
            target(score)
        if is_break(space.kind, measurement):
            raise _FoundError

    with suppress(_FoundError):
        attempt()

"""What a check of a model's contract can say.

Conventions: a sentence reads *where: what was found. What would be right. How to
repair it.*; where a check holds, the first two parts are enough.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from harness.model.checks.subject import Subject


class Outcome(StrEnum):
    """How a check ended.

    `FAILS`: the contract is broken, numbers of this model would be wrong or would
    not come. `FINDING`: the contract is kept, but whoever reads the numbers has to
    know this. `SKIPPED`: the model does not offer what is checked, or an earlier
    check failed that this one builds on.
    """

    HOLDS = "holds"
    FINDING = "finding"
    FAILS = "fails"
    SKIPPED = "not applicable"


class Found(NamedTuple):
    """What one check found."""

    outcome: Outcome
    sentence: str


class CheckResult(NamedTuple):
    """A check's name and what it found."""

    name: str
    outcome: Outcome
    sentence: str


class Check(NamedTuple):
    """A check: how it is made, and the checks that must not have failed before."""

    run: "Callable[[Subject], Found]"
    needs: tuple[str, ...] = ()


def holds(sentence: str) -> Found:
    """All is as it should be."""
    return Found(Outcome.HOLDS, sentence)


def finding(sentence: str) -> Found:
    """Not broken, and not to be overlooked."""
    return Found(Outcome.FINDING, sentence)


def fails(sentence: str) -> Found:
    """The contract is broken."""
    return Found(Outcome.FAILS, sentence)


def skipped(sentence: str) -> Found:
    """There is nothing to check."""
    return Found(Outcome.SKIPPED, sentence)

"""One check of the gate, what becomes of it, and the exit code of all of them.

Conventions: a check is one rule at one place. Its *state* is what the data show, its *result*
what the gate makes of that:

- *holds*: passed. *fails*: failed.
- *open*, shown neither way: a warning for a rule of the suite (``strict``: failed), failed
  against a baseline, where the burden is on the new model (``lenient``: a warning).
- *unable*: the data cannot tell, such as a regression too small to be seen: incomplete.
- *void*: the baseline itself has nothing to compare with: a warning.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Rule = Literal[
    "completeness",
    "expectation",
    "max_drop",
    "min_dice",
    "must_listen",
    "must_refuse",
    "original_dice",
    "non_inferiority",
]
State = Literal["holds", "fails", "open", "unable", "void"]
Result = Literal["passed", "warning", "failed", "incomplete"]

AGAINST: tuple[Rule, ...] = ("original_dice", "non_inferiority")
"""Rules that compare with a baseline."""

GOOD, FAILED, INCOMPLETE = 0, 1, 3


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule is checked, in the summary's terms; what does not matter there is empty."""

    dataset: str = ""
    split: str = ""
    prompts: str = ""
    prompt_type: str = ""
    probe: str = ""
    attribute: str = ""

    def __str__(self) -> str:
        """Such as ``kvasir_polyp/test p6 antonym size``."""
        source = "" if self.prompts in ("", "released") else f"{self.prompts} prompts"
        where = f"{self.dataset}/{self.split}" if self.split else self.dataset
        parts = (where, source, self.prompt_type, self.probe, self.attribute)
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Check:
    """One rule at one place.

    `asked` is what must hold, `reason` says the state in a sentence. The estimate has unadjusted 95
    % limits; its unit is ``percent``, ``points`` or ``fraction``. `p_adjusted` is by Holm's method
    within `n_family` tests of this rule on this dataset; p-values are NaN without a test.
    `smallest_effect` is what data like these would show in 4 of 5 studies. `known`: the baseline
    fails it as well.
    """

    rule: Rule
    place: Place
    asked: str
    state: State
    reason: str
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    unit: str = ""
    p_value: float = math.nan
    p_adjusted: float = math.nan
    n_family: int = 0
    smallest_effect: float = math.nan
    n_clusters: int = 0
    known: bool = False
    result: Result = "passed"

    @property
    def key(self) -> str:
        """What the check is called in a baseline: its rule, its place, what is asked."""
        return f"{self.rule}: {self.place}: {self.asked}"

    def record(self) -> dict[str, Any]:
        """Plain values for JSON: what is not finite becomes None."""
        found = asdict(self)
        return {
            k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in found.items()
        }


@dataclass(frozen=True, slots=True)
class Severity:
    """How the gate takes what is not shown, and what is known.

    `strict`: what a rule of the suite leaves open is failed. `lenient`: what is not shown against
    the baseline is a warning. `known_fails`: what the baseline fails as well is failed.
    """

    strict: bool = False
    lenient: bool = False
    known_fails: bool = True


def result_of(check: Check, severity: Severity) -> Result:
    """What becomes of a check.

    Example:
        >>> check = Check("min_dice", Place("d"), "at least 0.5", "open", "Too few images.")
        >>> result_of(check, Severity()), result_of(check, Severity(strict=True))
        ('warning', 'failed')
    """
    if check.state == "holds":
        return "passed"
    if check.state == "unable":
        return "incomplete"
    if check.state == "void":
        return "warning"
    if check.state == "fails":
        return "warning" if check.known and not severity.known_fails else "failed"
    hard = not severity.lenient if check.rule in AGAINST else severity.strict
    return "failed" if hard else "warning"


def exit_code(checks: Sequence[Check]) -> int:
    """0 good, 1 failed, 3 incomplete.

    A run that is not whole says nothing of the plan, whatever it shows; otherwise what failed
    outranks what could not be told. A gate that could decide nothing is not open.
    """
    results = {check.result for check in checks}
    if any(c.result == "incomplete" and c.rule == "completeness" for c in checks):
        return INCOMPLETE
    if "failed" in results:
        return FAILED
    decided = {c.result for c in checks if c.rule != "completeness"}
    return INCOMPLETE if "incomplete" in results or "passed" not in decided else GOOD


def ordered(checks: Iterable[Check]) -> list[Check]:
    """Failures first, new ones before known ones; then by rule and place."""
    ranks: dict[Result, int] = {"failed": 0, "incomplete": 1, "warning": 2, "passed": 3}
    return sorted(checks, key=lambda c: (ranks[c.result], c.known, c.rule, str(c.place), c.asked))

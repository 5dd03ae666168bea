"""What a suite may expect of a probe, and what is expected where it is silent.

Three kinds are those of CheckList (M. T. Ribeiro et al., ACL 2020,
doi:10.18653/v1/2020.acl-main.442): *invariance* (the figure stays within a margin), *direction*
(it moves beyond a bound) and *minimum* (it is at least so high). *Refusal* asks for an empty mask
where the right one is.

Conventions: bounds are in the unit of their figure: ``relative_change`` in percent of the
original Dice, ``points`` and ``named_gain`` in points (100 times a difference of Dice),
``dice``, ``agreement`` and ``refusal_rate`` as fractions. An expectation accepts a closed region
``[low, high]``, one end of which may be infinite.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, model_validator

from harness.cards import Strict
from harness.records import Meaning

Figure = Literal["relative_change", "points", "dice", "agreement", "named_gain", "refusal_rate"]
Kind = Literal["invariance", "direction", "minimum", "refusal"]
Correction = Literal["holm", "benjamini_hochberg", "none"]

UNITS: Mapping[str, str] = MappingProxyType(
    {
        "relative_change": "percent",
        "points": "points",
        "named_gain": "points",
        "dice": "fraction",
        "agreement": "fraction",
        "refusal_rate": "fraction",
    }
)
"""What a bound on each figure is counted in."""

_KEYS = {
    "invariance": {"margin"},
    "direction": {"below", "above"},
    "minimum": {"at_least"},
    "refusal": {"at_least"},
}
ASKED: Mapping[str, str] = MappingProxyType(
    {"invariance": "unmoved", "direction": "moved", "minimum": "enough", "refusal": "refuses"}
)
"""What each kind asks of a model, in a word."""


LEAST_REFUSAL = 0.8
"""Refusal rate above which a model refuses, where a suite does not say."""


class Margins(Strict):
    """Margins of invariance in percent of the original Dice, by what happens to the meaning."""

    preserved: float = Field(default=3.0, gt=0)
    changed: float = Field(default=2.0, gt=0)
    removed: float = Field(default=2.0, gt=0)
    destroyed: float = Field(default=2.0, gt=0)


class Expectation(Strict):
    """One expectation of one probe.

    `invariance` takes `margin` (by the meaning where it is left out), `direction` either
    `below` or `above`, `minimum` takes `at_least`; so does `refusal`, of the share of prompts for
    absent things that nothing is painted for (the suite's `least_refusal` where it is left out).
    """

    kind: Kind
    of: Figure = Field(default="relative_change", description="The figure that is tested.")
    margin: float | None = Field(default=None, gt=0, description="Invariance: largest change.")
    below: float | None = Field(default=None, description="Direction: the figure is below this.")
    above: float | None = Field(default=None, description="Direction: the figure is above this.")
    at_least: float | None = Field(default=None, description="Minimum, refusal: the least figure.")

    @model_validator(mode="before")
    @classmethod
    def _of_refusal(cls, given: Any) -> Any:
        is_refusal = isinstance(given, dict) and given.get("kind") == "refusal"
        return {"of": "refusal_rate", **given} if is_refusal else given

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Expectation":
        given = {
            k for k in ("margin", "below", "above", "at_least") if getattr(self, k) is not None
        }
        wanted = _KEYS[self.kind]
        if given - wanted:
            wrong = sorted(given - wanted)[0]
            own = " or ".join(repr(k) for k in sorted(wanted))
            raise ValueError(f"{self.kind!r} takes {own}, not {wrong!r}")
        if self.kind == "invariance":
            self._check_invariance()
        elif (self.kind == "refusal") != (self.of == "refusal_rate"):
            raise ValueError("'refusal' is of 'refusal_rate', and nothing else is")
        elif len(given) != 1 and self.kind != "refusal":
            raise ValueError(f"{self.kind!r} needs one of {', '.join(map(repr, sorted(wanted)))}")
        bounds = [v for v in (self.below, self.above, self.at_least) if v is not None]
        if UNITS[self.of] == "fraction" and any(not 0 <= v <= 1 for v in bounds):
            raise ValueError(f"{self.of!r} is a fraction: its bound lies between 0 and 1")
        return self

    def _check_invariance(self) -> None:
        if self.of not in ("relative_change", "points"):
            raise ValueError(
                f"'invariance' is of 'relative_change' or 'points', not of {self.of!r}; "
                "use 'minimum' for it"
            )
        if self.of == "points" and self.margin is None:
            raise ValueError("'invariance' of 'points' needs 'margin'")

    @property
    def accepted(self) -> tuple[float, float]:
        """The closed region ``(low, high)`` of figures that meet the expectation."""
        if self.kind == "invariance":
            margin = math.nan if self.margin is None else self.margin
            return -margin, margin
        if self.below is not None:
            return -math.inf, self.below
        low = self.above if self.above is not None else self.at_least
        return (math.nan if low is None else low), math.inf


def expected(
    stated: list[Expectation] | None,
    meaning: str,
    *,
    margins: Margins,
    absent: bool = False,
    least_refusal: float = LEAST_REFUSAL,
) -> tuple[Expectation, ...]:
    """The expectations of one probe, every margin filled in.

    Args:
        stated: What the suite says of the probe; None where it is silent, an empty list
            where it expects nothing on purpose.
        meaning: What the probe's perturbation does to the meaning.
        margins: The suite's.
        absent: Whether the right mask is empty afterwards.
        least_refusal: The suite's.

    Returns:
        Where the suite is silent: refusal, if the right mask is empty; else invariance of the
        relative change, with the margin of the meaning. After a *preserved* meaning that is what
        a sound model does. After any other it is a question that both answers may follow, and
        binds nobody (see `binding`).

    Example:
        >>> expected(None, "preserved", margins=Margins())[0].margin
        3.0
    """
    if meaning == Meaning.ORIGINAL:
        return ()
    margin: float = getattr(margins, meaning)
    if stated is None:
        if absent:
            return (Expectation(kind="refusal", at_least=least_refusal),)
        return (Expectation(kind="invariance", margin=margin),)
    silent = {"invariance": {"margin": margin}, "refusal": {"at_least": least_refusal}}
    return tuple(
        e.model_copy(update=silent[e.kind])
        if e.kind in silent and e.margin is None and e.at_least is None
        else e
        for e in stated
    )


def binding(stated: list[Expectation] | None, meaning: str) -> bool:
    """Whether a failure is a fault: the suite asks for it, or the meaning was preserved."""
    return stated is not None or meaning == Meaning.PRESERVED

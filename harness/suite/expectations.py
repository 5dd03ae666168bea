"""What a suite may expect of a probe, and what is expected where it is silent.

Three kinds, after CheckList (M. T. Ribeiro et al., ACL 2020, doi:10.18653/v1/2020.acl-main.442):
*invariance* (the figure stays within a margin), *direction* (it moves beyond a bound)
and *minimum* (it is at least so high).

Conventions: bounds are in the unit of their figure: ``relative_change`` in percent of the
original Dice, ``points`` and ``named_gain`` in points (100 times a difference of Dice),
``dice`` and ``agreement`` as fractions. An expectation accepts a closed region
``[low, high]``, one end of which may be infinite.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import Field, model_validator

from harness.cards import Strict
from harness.records import Meaning

Figure = Literal["relative_change", "points", "dice", "agreement", "named_gain"]
Kind = Literal["invariance", "direction", "minimum"]
Correction = Literal["holm", "benjamini_hochberg", "none"]

UNITS: Mapping[str, str] = MappingProxyType(
    {
        "relative_change": "percent",
        "points": "points",
        "named_gain": "points",
        "dice": "fraction",
        "agreement": "fraction",
    }
)
"""What a bound on each figure is counted in."""

_KEYS = {"invariance": {"margin"}, "direction": {"below", "above"}, "minimum": {"at_least"}}
_BOUNDS = ("margin", "below", "above", "at_least")


class Margins(Strict):
    """Margins of invariance in percent of the original Dice, by what happens to the meaning."""

    preserved: float = Field(default=3.0, gt=0)
    changed: float = Field(default=2.0, gt=0)
    removed: float = Field(default=2.0, gt=0)
    destroyed: float = Field(default=2.0, gt=0)


class Expectation(Strict):
    """One expectation of one probe.

    `invariance` takes `margin` (by the meaning where it is left out), `direction` either
    `below` or `above`, `minimum` takes `at_least`.
    """

    kind: Kind
    of: Figure = Field(default="relative_change", description="The figure that is tested.")
    margin: float | None = Field(default=None, gt=0, description="Invariance: largest change.")
    below: float | None = Field(default=None, description="Direction: the figure is below this.")
    above: float | None = Field(default=None, description="Direction: the figure is above this.")
    at_least: float | None = Field(default=None, description="Minimum: the least figure.")

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
        elif len(given) != 1:
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
    stated: list[Expectation] | None, meaning: str, *, margins: Margins
) -> tuple[Expectation, ...]:
    """The expectations of one probe, every margin filled in.

    Args:
        stated: What the suite says of the probe; None where it is silent, an empty list
            where it expects nothing on purpose.
        meaning: What the probe's perturbation does to the meaning.
        margins: The suite's.

    Returns:
        Where the suite is silent: invariance of the relative change, with the margin of the
        meaning. After a *preserved* meaning that is what a sound model does. After any other
        it is a question that both answers may follow, and binds nobody (see `binding`).

    Example:
        >>> expected(None, "preserved", margins=Margins())[0].margin
        3.0
    """
    if meaning == Meaning.ORIGINAL:
        return ()
    margin: float = getattr(margins, meaning)
    if stated is None:
        return (Expectation(kind="invariance", margin=margin),)
    return tuple(
        e.model_copy(update={"margin": margin}) if e.kind == "invariance" and not e.margin else e
        for e in stated
    )


def binding(stated: list[Expectation] | None, meaning: str) -> bool:
    """Whether a failure is a fault: the suite asks for it, or the meaning was preserved."""
    return stated is not None or meaning == Meaning.PRESERVED

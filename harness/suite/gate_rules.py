"""What a suite may demand of a model before a change of it is let in: the rules of the gate.

Conventions: drops and margins are positive numbers, in percent of Dice, or in points (100
times a difference of Dice) where Dice with a named target is meant. Each rule says where it
applies; ``all`` is everywhere. A rule of one number may be written as that number.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from harness.cards import Strict
from harness.records import Meaning

Names = Literal["all"] | Annotated[list[str], Field(min_length=1)]
Followed = Literal["preserved", "removed", "destroyed", "changed"]

LARGEST_UNSEEN = 10.0
"""Percent: a regression so large must be detectable where the suite sets no `max_drop`."""


class MaxDrop(Strict):
    """A changed prompt may cost at most so much Dice."""

    at_most: float = Field(gt=0, le=100, description="Percent of the original Dice.")
    datasets: Names = "all"
    probes: Names | None = Field(
        default=None, description="Left out: the probes that preserve the meaning."
    )
    attributes: Names = "all"

    def covers(self, dataset: str, probe: str, attribute: str | None, meaning: str) -> bool:
        """Whether the rule speaks of a probe on a dataset."""
        own = meaning == Meaning.PRESERVED if self.probes is None else among(probe, self.probes)
        return own and among(dataset, self.datasets) and among(attribute, self.attributes)


class MinDice(Strict):
    """The original prompts must give at least this mean Dice."""

    at_least: float = Field(ge=0, le=1)
    datasets: Names = "all"


class MustListen(Strict):
    """The mask must follow these attributes, by the evidence of the language verdict."""

    attributes: list[str] = Field(min_length=1)
    datasets: Names = "all"


class MustRefuse(Strict):
    """Prompts for what is not there must be refused at least so often."""

    at_least: float = Field(gt=0, lt=1, description="Refusal rate, a fraction.")
    datasets: Names = "all"
    probes: Names = "all"


class NonInferiority(Strict):
    """How much worse than the baseline a model may be: it must be shown not to be worse.

    After a preserved, removed or destroyed meaning the relative change of Dice is compared.
    After a changed one it is Dice with the named target less Dice with the own mask, where
    targets are named; elsewhere neither answer is better, unless `meanings` says ``changed``:
    then a larger drop is. Where the right mask is empty the refusal rate is compared. Original
    Dice is always compared.
    """

    margin: float = Field(default=5.0, gt=0, le=100, description="Percent of Dice, or points.")
    refusal_margin: float = Field(
        default=10.0, gt=0, le=100, description="Points of the refusal rate (100 times a share)."
    )
    meanings: list[Followed] = Field(
        default=["preserved", "removed", "destroyed"],
        description="Kinds of probes whose relative change may not get worse.",
    )
    datasets: Names = "all"
    probes: Names = "all"
    attributes: Names = "all"

    def covers(self, dataset: str, probe: str, attribute: str | None) -> bool:
        """Whether a probe on a dataset is compared with the baseline."""
        return (
            among(dataset, self.datasets)
            and among(probe, self.probes)
            and among(attribute, self.attributes)
        )


def _listed(key: str, shape: Any) -> BeforeValidator:
    """``10`` for ``[{at_most: 10}]``."""

    def longhand(value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return [{key: value}] if is_number else value

    return BeforeValidator(longhand, json_schema_input_type=shape)


def _attributes(value: Any) -> Any:
    """``[size, color]`` for ``[{attributes: [size, color]}]``."""
    plain = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
    return [{"attributes": value}] if plain else value


_Listens = BeforeValidator(_attributes, json_schema_input_type=list[str] | list[MustListen])


class Gate(Strict):
    """The rules of the gate, beside the expectations of probes, which are rules as well."""

    max_drop: Annotated[list[MaxDrop], _listed("at_most", float | list[MaxDrop])] = Field(
        default=[],
        description="Largest drop of Dice in percent: a number, or rules with their places.",
    )
    min_dice: Annotated[list[MinDice], _listed("at_least", float | list[MinDice])] = Field(
        default=[],
        description="Least mean Dice of the originals: a number, or rules with their places.",
    )
    must_listen: Annotated[list[MustListen], _Listens] = Field(
        default=[],
        description="Attributes that must be heard: names, or rules with their places.",
    )
    must_refuse: Annotated[list[MustRefuse], _listed("at_least", float | list[MustRefuse])] = Field(
        default=[],
        description="Least refusal rate of prompts for absent things: a fraction, or rules.",
    )
    non_inferiority: NonInferiority = NonInferiority()
    known: Literal["fail", "warn"] = Field(
        default="fail", description="What a failure does that the baseline has as well."
    )

    def largest_unseen(self, dataset: str, probe: str, attribute: str | None) -> float:
        """The regression, in percent, that a comparison must be able to detect."""
        found = [
            rule.at_most
            for rule in self.max_drop
            if rule.covers(dataset, probe, attribute, Meaning.PRESERVED)
        ]
        return min(found, default=LARGEST_UNSEEN)


def among(name: str | None, names: str | Sequence[str] | None) -> bool:
    """Whether a name is meant by ``all`` or stands in a list."""
    return names == "all" or (names is not None and name in names)

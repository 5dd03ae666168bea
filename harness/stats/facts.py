"""What the statistics must know of a model besides its scores."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.metrics import ABOVE_HALF


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model of a run.

    Attributes:
        model_id: Key of its scores.
        name: What tables call it.
        trained_on: Datasets whose training split it saw; empty where its card is silent.
        control: Whether it ignores its prompt by construction.
        threshold: Probability above which a pixel belongs to the mask, in (0, 1).
        foreground: Dataset -> rule by which its run read the true masks.
    """

    model_id: str
    name: str
    trained_on: tuple[str, ...]
    control: bool
    threshold: float
    foreground: Mapping[str, str] = field(default_factory=dict)

    def rule(self, dataset: str | None) -> str:
        """The rule for the true masks of a dataset."""
        return self.foreground.get(dataset or "", ABOVE_HALF)

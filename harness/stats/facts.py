"""What the statistics must know of a model besides its scores."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model of a run.

    Attributes:
        model_id: Key of its scores.
        name: What tables call it.
        trained_on: Datasets whose training split it saw; empty where its card is silent.
        control: Whether it ignores its prompt by construction.
        threshold: Probability above which a pixel belongs to the mask, in (0, 1).
    """

    model_id: str
    name: str
    trained_on: tuple[str, ...]
    control: bool
    threshold: float

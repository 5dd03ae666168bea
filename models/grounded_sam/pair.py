"""A detector and SAM: how both are built, and what they see of a picture."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from harness.cards import Strict
from harness.models import Picture
from harness.weights.pretrained import pretrained

from .boxes import BoxSegmenter
from .canvas import Canvas

NO_WEIGHTS: Mapping[str, Path] = MappingProxyType({})


class PairSettings(Strict):
    """How the models are built.

    `detector` and `segmenter` hold what differs from the defaults of transformers' configurations
    of both, which are those of published models; folders of weights bring their own.
    """

    detector: dict[str, Any] = {}
    segmenter: dict[str, Any] = {}


class DetectorAndSam:
    """Text to boxes to masks; `module` holds both models as ``detector`` and ``segmenter``."""

    def __init__(
        self,
        kind: Any,
        settings: PairSettings,
        *,
        weights: Path | None,
        further_weights: Mapping[str, Path],
    ) -> None:
        """Build both models.

        Args:
            kind: The detector's class in transformers.
            settings: Of both.
            weights: The detector's folder in the hub's format, or None.
            further_weights: SAM's folder as ``segmenter``.
        """
        from transformers import SamModel

        self._detector = pretrained(kind, settings.detector, weights=weights, key="detector")
        segmenter = pretrained(
            SamModel,
            settings.segmenter,
            weights=further_weights.get("segmenter"),
            key="segmenter",
        )
        self.module = torch.nn.ModuleDict({"detector": self._detector, "segmenter": segmenter})
        self._boxes_to_masks = BoxSegmenter(segmenter)

    def _look_through(self, processor: Callable[[], Any], size: tuple[int, int]) -> None:
        """Say what makes the detector's picture, and its largest height and width."""
        self._canvas = Canvas(processor, size, segmenter_side=self._boxes_to_masks.side)
        self.input_size = self._canvas.size

    def preprocess(self, image: Picture) -> Tensor:
        """One picture of any size and mode -> both pictures in one, ``(3, *input_size)``."""
        return self._canvas.lay_out(image)

"""Scores prompts of one sample in milliseconds: its image is encoded once.

Conventions: every prompt is evaluated alone, in a batch of one, so that a number depends
on no other prompt that was tried and a replay gives the same. Masks are compared at the
metric's resolution. Relative changes are percent of the original's Dice.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.data.images import read_image, read_mask
from harness.engine.counts import area, overlap, resize_mask
from harness.errors import DataError, ModelError
from harness.metrics import EMPTY_SCORES, agreement, dice
from harness.model.contract import Features
from harness.model.features import binarise
from harness.model.loading import LoadedModel
from harness.model.sampling import seeded
from harness.records import BY_CONTENT, Reading, Sample
from harness.suite.schema import Metric

# Text features kept at once, the ones used last.
MAX_TEXTS = 512


class Measurement(NamedTuple):
    """Dice with the original and with a changed prompt, and how far the masks agree."""

    dice_original: float
    dice: float
    agreement: float
    n_pred: int

    @property
    def relative_change(self) -> float:
        """Change of Dice in percent of the original's; NaN where that is 0."""
        if self.dice_original == 0:
            return float("nan")
        return 100 * (self.dice - self.dice_original) / self.dice_original


class ImageEncoder:
    """Predicts masks with a model; keeps the features of the last image and of recent texts."""

    def __init__(self, model: LoadedModel, metric: Metric) -> None:
        self.model = model
        self.metric = metric
        self.image: Callable[[Path, Reading, str], tuple[Features, tuple[int, int]]]
        # Samples of one image stand together, so one is enough.
        self.image = lru_cache(maxsize=1)(self._encode_image)
        self._text: Callable[[str], Features] = lru_cache(maxsize=MAX_TEXTS)(self._encode_text)

    def _encode_image(
        self, path: Path, reading: Reading = BY_CONTENT, image_id: str = ""
    ) -> tuple[Features, tuple[int, int]]:
        picture = read_image(path, reading)
        pixels = self.model.adapter.preprocess(picture)[None].to(self.model.device)
        with torch.inference_mode(), self.model.autocast():
            features = self.model.adapter.encode_images(pixels)
            return seeded(self.model.adapter, features, [image_id]), picture.shape[:2]

    def _encode_text(self, text: str) -> Features:
        with torch.inference_mode(), self.model.autocast():
            return self.model.adapter.encode_texts([text])

    def mask(
        self, path: Path, text: str, reading: Reading = BY_CONTENT, image_id: str = ""
    ) -> Tensor:
        """The model's mask, bool ``(H, W)``, at the metric's resolution.

        The noise of a model that samples follows the image's id.
        """
        features, size = self.image(path, reading, image_id)
        with torch.inference_mode(), self.model.autocast():
            logits = self.model.adapter.decode(features, self._text(text)).float()
        if not bool(torch.isfinite(logits).all()):
            raise ModelError(
                f"{self.model.model_id}: logits for {text!r} are not finite. Every logit must be "
                "a finite number. Check the weights, or run with --dtype float32."
            )
        if self.metric.resolution == "native":
            logits = torch.nn.functional.interpolate(
                logits[None], size=size, mode="bilinear", align_corners=False
            )[0]
        return binarise(logits[0], self.model.card.threshold)


class SampleEvaluator:
    """Scores changed prompts of one sample against one of its own; counts calls of the model."""

    def __init__(self, encoder: ImageEncoder, sample: Sample, prompt: str) -> None:
        self._encoder = encoder
        self._sample = sample
        self._own = encoder.mask(sample.image, prompt, sample.reading, sample.image_id)
        truth = read_mask(sample.mask, sample.reading)
        size = encoder.image(sample.image, sample.reading, sample.image_id)[1]
        if truth.shape != size:
            raise DataError(
                f"{sample.mask}: the mask has {truth.shape[0]} x {truth.shape[1]} pixels, its "
                f"image {size[0]} x {size[1]}. Both must have one size. Export the mask again."
            )
        resized = torch.from_numpy(np.array(resize_mask(truth, *self._own.shape)))
        self._truth = resized.to(self._own.device)
        self.calls = 1
        self.original = self._measure(self._own)
        self._known = {prompt: self.original}

    def knows(self, text: str) -> bool:
        """Whether a prompt was tried before, so that the model is not called again."""
        return text in self._known

    def measure(self, text: str) -> Measurement:
        """What the model does with another prompt; called once for each text."""
        if text not in self._known:
            self.calls += 1
            sample = self._sample
            mask = self._encoder.mask(sample.image, text, sample.reading, sample.image_id)
            self._known[text] = self._measure(mask)
        return self._known[text]

    def _measure(self, mask: Tensor) -> Measurement:
        n_pred, n_own = int(area(mask)), int(area(self._own))
        kept = agreement(int(overlap(mask, self._own)), n_pred, n_own)
        return Measurement(self._dice(self._own), self._dice(mask), float(kept), n_pred)

    def _dice(self, mask: Tensor) -> float:
        counts = [overlap(mask, self._truth), area(mask), area(self._truth)]
        empty = EMPTY_SCORES[self._encoder.metric.empty]
        return float(dice(*(int(count) for count in counts), empty=empty))

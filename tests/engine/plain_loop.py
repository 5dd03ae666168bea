"""The plain loop: the whole model for every (image, prompt) pair, one at a time.

It shares nothing with the engine but the model's `predict`, the metric's definitions
and the reading of files, and exists to check the engine. Cases follow each other by
sample: the original that they share is computed, and its files read, once.

Conventions: counts are pixels; `n_near` is the number of pixels whose logit lies
within the model's noise floor of the threshold, in any mask a count is made of: by
so much the engine may differ.
"""

import math
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.images import read_image, read_mask
from harness.engine.counts import resize_mask
from harness.model.contract import Predicts
from harness.model.loading import LoadedModel
from harness.model.sampling import seeded
from harness.records import BY_CONTENT, Reading, Readings
from harness.suite.schema import Metric

COUNTS = ("tp", "n_pred", "n_gt", "tp_original", "n_pred_original", "tp_named", "n_named")


def plain_scores(
    cases: pl.DataFrame,
    model: LoadedModel,
    *,
    root: Path,
    metric: Metric,
    readings: Readings = MappingProxyType({}),
) -> pl.DataFrame:
    """Counts of every case, ``case_id``, `COUNTS` and ``n_near``, in the order of `cases`."""
    key = ("dataset", "split", "sample_id")
    masks = {tuple(row[k] for k in key): row["mask"] for row in cases.iter_rows(named=True)}
    rows, plain = [], _Plain(model, root, metric)
    for row in cases.iter_rows(named=True):
        named = masks.get((row["dataset"], row["split"], row["named_sample_id"]))
        rows.append(_case(row, named, plain, readings.get(row["dataset"], BY_CONTENT)))
    return pl.DataFrame(rows, infer_schema_length=None)


def predict(
    model: LoadedModel, image: NDArray[np.uint8], text: str, *, image_id: str = ""
) -> Tensor:
    """Logits ``(h, w)`` of the unmodified full forward for one image and one prompt."""
    adapter = model.adapter
    pixels = adapter.preprocess(image)[None].to(model.device)
    with torch.inference_mode(), model.autocast():
        if isinstance(model.raw, Predicts):
            return model.raw.predict(pixels, [text])[0].float()
        images = seeded(adapter, adapter.encode_images(pixels), [image_id])
        return adapter.decode(images, adapter.encode_texts([text]))[0].float()


class _Plain:
    """Masks of one model, of prompts and of files; what was asked for lately is remembered."""

    def __init__(self, model: LoadedModel, root: Path, metric: Metric) -> None:
        self.model, self.root, self.metric = model, root, metric
        self.image = lru_cache(maxsize=2)(self._image)
        self.truth = lru_cache(maxsize=4)(self._truth)
        self.answer = lru_cache(maxsize=16)(self._answer)

    def _image(self, image: str, reading: Reading) -> NDArray[np.uint8]:
        return read_image(self.root / image, reading)

    def _truth(self, mask: str, reading: Reading, shape: tuple[int, int]) -> NDArray[np.bool_]:
        return resize_mask(read_mask(self.root / mask, reading), *shape)

    def _answer(
        self, image: str, reading: Reading, text: str, image_id: str
    ) -> tuple[NDArray[np.bool_], int]:
        """The mask of a prompt, and how many of its pixels are near the threshold."""
        pixels, card = self.image(image, reading), self.model.card
        logits = predict(self.model, pixels, text, image_id=image_id)
        if self.metric.resolution == "native":
            logits = torch.nn.functional.interpolate(
                logits[None, None], size=pixels.shape[:2], mode="bilinear", align_corners=False
            )[0, 0]
        cut = math.log(card.threshold / (1 - card.threshold))
        near = int(((logits - cut).abs() < card.noise_floor).sum())
        return (logits > cut).cpu().numpy(), near


def _case(
    row: dict[str, object], named: str | None, plain: _Plain, reading: Reading
) -> dict[str, object]:
    shown = str(row["image"]), reading
    (variant, near), (original, near_original) = (
        plain.answer(*shown, str(row[key]), str(row["image_id"]))
        for key in ("prompt", "original_prompt")
    )
    truth = plain.truth(str(row["mask"]), reading, variant.shape)
    target = None if named is None else plain.truth(named, reading, variant.shape)
    return {
        "case_id": row["case_id"],
        "tp": int((variant & truth).sum()),
        "n_pred": int(variant.sum()),
        "n_gt": int(truth.sum()),
        "tp_original": int((variant & original).sum()),
        "n_pred_original": int(original.sum()),
        "tp_named": None if target is None else int((variant & target).sum()),
        "n_named": None if target is None else int(target.sum()),
        "n_near": near + near_original,
    }

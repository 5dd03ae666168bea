"""The plain loop: the whole model for every (image, prompt) pair, one at a time.

It shares nothing with the engine but the model's `predict`, the metric's definitions
and the reading of files, and exists to check the engine.

Conventions: counts are pixels; `n_near` is the number of pixels whose logit lies
within the model's noise floor of the threshold, in any mask a count is made of: by
so much the engine may differ.
"""

import math
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
    rows = []
    for row in cases.iter_rows(named=True):
        named = masks.get((row["dataset"], row["split"], row["named_sample_id"]))
        reading = readings.get(row["dataset"], BY_CONTENT)
        rows.append(_case(row, named, model, root=root, metric=metric, reading=reading))
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


def _case(
    row: dict[str, object],
    named: str | None,
    model: LoadedModel,
    *,
    root: Path,
    metric: Metric,
    reading: Reading,
) -> dict[str, object]:
    image = read_image(root / str(row["image"]), reading)
    masks, near = [], 0
    for text in (row["prompt"], row["original_prompt"]):
        logits = predict(model, image, str(text), image_id=str(row["image_id"]))
        if metric.resolution == "native":
            logits = torch.nn.functional.interpolate(
                logits[None, None], size=image.shape[:2], mode="bilinear", align_corners=False
            )[0, 0]
        cut = math.log(model.card.threshold / (1 - model.card.threshold))
        near += int(((logits - cut).abs() < model.card.noise_floor).sum())
        masks.append((logits > cut).cpu().numpy())
    variant, original = masks
    truth = resize_mask(read_mask(root / str(row["mask"]), reading), *variant.shape)
    target = (
        None if named is None else resize_mask(read_mask(root / named, reading), *variant.shape)
    )
    return {
        "case_id": row["case_id"],
        "tp": int((variant & truth).sum()),
        "n_pred": int(variant.sum()),
        "n_gt": int(truth.sum()),
        "tp_original": int((variant & original).sum()),
        "n_pred_original": int(original.sum()),
        "tp_named": None if target is None else int((variant & target).sum()),
        "n_named": None if target is None else int(target.sum()),
        "n_near": near,
    }

"""How far equal calls of a model differ."""

from pathlib import Path

import polars as pl
import torch

from harness.data.images import with_image
from harness.errors import DataError
from harness.model.features import binarise
from harness.model.loading import LoadedModel
from harness.records import BY_CONTENT, Readings

N_PROMPTS = 4


def repeat_noise(
    model: LoadedModel, cases: pl.DataFrame, root: Path, readings: Readings
) -> dict[str, float] | None:
    """Ask a model twice the same, of the first picture that can be read and some prompts of it.

    Returns:
        ``logits``, the largest difference of two logits, ``pixels_percent``, the share of
        pixels of the masks that differ, and ``calls``; None where no picture can be read.
    """
    adapter = model.adapter
    for image, dataset in cases.select("image", "dataset").unique(maintain_order=True).iter_rows():
        try:
            pixels = with_image(root / image, readings.get(dataset, BY_CONTENT), adapter.preprocess)
        except DataError:
            continue
        asked = cases.filter(image=image)["prompt"].unique(maintain_order=True).head(N_PROMPTS)
        with torch.inference_mode(), model.autocast():
            features = adapter.encode_images(pixels[None].to(model.device))
            pairs = [(features, adapter.encode_texts([text])) for text in asked]
            first, again = (
                torch.cat([adapter.decode(*pair).float() for pair in pairs]) for _ in range(2)
            )
        masks = [binarise(logits, model.card.threshold) for logits in (first, again)]
        return {
            "calls": 2.0 * len(pairs),
            "logits": float((first - again).abs().nan_to_num(torch.inf).max()),
            "pixels_percent": 100 * float((masks[0] != masks[1]).double().mean()),
        }
    return None

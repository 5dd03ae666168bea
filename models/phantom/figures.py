"""What is measured of a small model: Dice on each set, and who decides on pairs.

Conventions: Dice is the mean over samples of the frozen test streams at P6, logits
resized to the scene (bilinear) and cut at the card's threshold; changes are
``100 (other - own) / own`` of mean Dice, where *other* is Dice with the sample's own
mask when the prompt is the other target's. A refusal is a mask of at most 0.1 % of the picture
and at most 10 px; its rate is that of prompts for absent things in crowds, by the kind of thing,
and of the prompts whose target is there (*missed*). Figures are rounded to 3 digits (Dice and
rates) and 1 (percent): a last bit does not show.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from harness.auditing.choices import select_suite
from harness.auditing.samples import read_sets
from harness.cards import load_dataset_card
from harness.data.generators import generate
from harness.data.images import read_image, read_mask
from harness.model.features import binarise
from harness.models import LoadedModel, load_model
from harness.plan.build import build_plan
from harness.prompts.perturbations.absence import KINDS

IMAGES_PER_BATCH = 16
DATASETS = ("phantom_solo", "phantom_crowd", "phantom_pairs")
# Height and width of every scene, in px.
SIDE = 96
# Pixels up to which a mask is a refusal: 0.1 % of a scene, which is less than 10.
REFUSED = SIDE * SIDE // 1000
Scores = dict[str, list[tuple[float, float]]]
Rows = list[dict[str, Any]]
# The name of a picture, and what is asked of it.
Asked = tuple[str, Sequence[str]]


def measure(name: str, weights: Path, root: Path) -> dict[str, Any]:
    """The figures of a model's card.

    Args:
        name: The model.
        weights: Its weights.
        root: Where the phantom sets are written, if they are not there yet.
    """
    model = load_model(Path(__file__).with_name(f"{name}.yaml"), checkpoint=weights, device="cpu")
    dice: dict[str, float] = {}
    pairs: dict[str, dict[str, float]] = {}
    for dataset in DATASETS:
        scores = _scores(model, generate(load_dataset_card(dataset), root))
        own = [pair[0] for several in scores.values() for pair in several]
        dice[dataset] = round(float(np.mean(own)), 3)
        if dataset == "phantom_pairs":
            pairs = {attribute: _change(several) for attribute, several in scores.items()}
    taught = {"refusal": _refusals(model, root)} if name.endswith("-refusing") else {}
    return {"dice": dice, "pairs": pairs, **taught}


def _change(several: list[tuple[float, float]]) -> dict[str, float]:
    own, other = np.mean(several, axis=0)
    return {
        "dice": round(float(own), 3),
        "dice_other_prompt": round(float(other), 3),
        "change_percent": round(100 * float(other - own) / float(own), 1),
    }


def _scores(model: LoadedModel, folder: Path) -> Scores:
    """By deciding attribute: Dice with the own prompt, and with the other targets'."""
    found: Scores = {}
    images = list(_images(folder))
    for start in range(0, len(images), IMAGES_PER_BATCH):
        batch = images[start : start + IMAGES_PER_BATCH]
        asked = [(rows[0]["img_name"], [row["prompts"]["p6"] for row in rows]) for rows in batch]
        for rows, predicted in zip(batch, _masks(model, folder, asked), strict=True):
            for index, row in enumerate(rows):
                truth = read_mask(folder / "masks" / "test" / row["mask_name"])
                each = [_dice(mask, truth) for mask in predicted]
                others = [d for k, d in enumerate(each) if k != index] or [each[index]]
                found.setdefault(row.get("decides", "none"), []).append(
                    (each[index], float(np.mean(others)))
                )
    return found


def _images(folder: Path) -> Iterator[Rows]:
    rows = json.loads((folder / "anns" / "test.json").read_text(encoding="utf-8"))
    by_image: dict[str, Rows] = {}
    for row in rows:
        by_image.setdefault(row["img_name"], []).append(row)
    yield from by_image.values()


def _refusals(model: LoadedModel, root: Path) -> dict[str, float]:
    """By kind of absent thing the share of prompts that hardly a pixel is painted for."""
    suite = select_suite("refusal", datasets=["phantom_crowd"])
    cases = build_plan(suite, read_sets(suite, root)).cases
    refused: dict[str, list[bool]] = defaultdict(list)
    by_image = [rows for _, rows in cases.group_by("image", maintain_order=True)]
    for start in range(0, len(by_image), IMAGES_PER_BATCH):
        batch = by_image[start : start + IMAGES_PER_BATCH]
        asked = [(Path(rows["image"][0]).name, rows["prompt"].to_list()) for rows in batch]
        for rows, predicted in zip(
            batch, _masks(model, root / "phantom_crowd", asked), strict=True
        ):
            for probe, mask in zip(rows["perturbation"], predicted, strict=True):
                refused[KINDS.get(probe, "missed")].append(int(mask.sum()) <= REFUSED)
    return {kind: round(float(np.mean(several)), 3) for kind, several in sorted(refused.items())}


def _masks(model: LoadedModel, folder: Path, images: Sequence[Asked]) -> list[NDArray[np.bool_]]:
    """Of each image the masks for its prompts, ``(prompts, 96, 96)``."""
    adapter, counts = model.adapter, [len(texts) for _, texts in images]
    pictures = [read_image(folder / "images" / "test" / name) for name, _ in images]
    texts = [text for _, several in images for text in several]
    with torch.inference_mode():
        features = adapter.encode_images(torch.stack([adapter.preprocess(p) for p in pictures]))
        repeats = torch.tensor(counts)
        many = type(features)(*(leaf.repeat_interleave(repeats, 0) for leaf in features))
        logits = resized(adapter.decode(many, adapter.encode_texts(texts)), (SIDE, SIDE))
    masks = binarise(logits, model.card.threshold).numpy()
    return np.split(masks, np.cumsum(counts)[:-1])


def resized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits ``(N, h, w)`` at another size, bilinear."""
    if logits.shape[1:] == size:
        return logits
    return interpolate(logits[:, None], size=size, mode="bilinear").squeeze(1)


def _dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    size = int(predicted.sum()) + int(truth.sum())
    return 1.0 if size == 0 else 2 * int((predicted & truth).sum()) / size

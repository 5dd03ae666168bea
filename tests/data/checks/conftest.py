"""A clean data root, in which tests plant defects."""

import json
import zlib

import numpy as np
import pytest
from PIL import Image

SIDE = 60


def clean_row(
    name, *, number="one", size="small", shape="round", location="top left", word="polyp"
):
    """A row without any defect; boxes as in the released files."""
    described = f"{number} {size} white {shape} {word}"
    return {
        "bbox": [2, 2, 12, 12],
        "img_name": name,
        "mask_name": name,
        "sentences": [{"sent": "a polyp"}],
        "prompts": {
            "p0": "",
            "p1": "polyp",
            "p5": described,
            "p6": f"{described}, located in top left of the image",
            "p7": ["polyp which is a small lump", "polyp which is a bump"],
        },
    }


@pytest.fixture
def write(tmp_path):
    """Write an annotation file, and pictures and masks of rows that have none yet."""

    def to(dataset, rows, *, split="test", pictures=True):
        folder = tmp_path / dataset
        for part in ("anns", "images", "masks")[: 3 if pictures else 1]:
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "anns" / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
        for seed, row in enumerate(rows if pictures else []):
            if isinstance(row, dict) and not (folder / "images" / row["img_name"]).exists():
                _paint(folder, row, seed)
        return tmp_path

    return to


def _paint(folder, row, seed):
    rng = np.random.default_rng([zlib.crc32(row["img_name"].encode()), seed])
    image = rng.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[3:12, 3:12] = 255
    Image.fromarray(image).save(folder / "images" / row["img_name"])
    Image.fromarray(mask).save(folder / "masks" / row["mask_name"])


@pytest.fixture
def row():
    """The function that makes a clean row."""
    return clean_row

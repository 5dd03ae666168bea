"""Contact sheets: scenes, the outline of each target, and the prompt that names it.

Conventions: a sheet is one PNG, labelled as phantom. Each image stands once as it is
and once for each of its first targets, outlined in green. Made to be looked at; no
figure depends on it.
"""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from harness.data.images import read_image, read_mask
from harness.errors import DataError
from harness.writing import write_picture

_ZOOM, _GAP, _TEXT, _TITLE = 2, 8, 44, 34
_OUTLINE = (60, 255, 120)
_INK, _PAPER = (30, 30, 30), (255, 255, 255)

Picture = NDArray[np.uint8]


def contact_sheet(
    root: Path,
    dataset: str,
    out_png: Path,
    *,
    n: int = 24,
    split: str = "test",
    prompt_type: str = "p6",
    columns: int = 6,
) -> Path:
    """Draw the first `n` images of a written phantom set: its streams are balanced.

    Args:
        root: The data root that the set was written below.
        dataset: Name of the set.
        out_png: Where the sheet goes; folders are made.
        n: Number of images, at most as many as the split has.
        split: Which split.
        prompt_type: Which rung stands under the pictures.
        columns: Pictures side by side.

    Returns:
        `out_png`.

    Raises:
        DataError: The split has not been written, or `n` is not positive.
    """
    if n < 1:
        raise DataError(f"contact sheet: {n} images. At least one is needed. Give a larger n.")
    panes = [
        pane
        for rows in _chosen(root / dataset, split, n)
        for pane in _panes(root / dataset, split, rows, prompt_type=prompt_type)
    ]
    title = f"{dataset}/{split}: phantom scenes, generated, no patients; prompts {prompt_type}"
    write_picture(out_png, _compose(panes, title, columns))
    return out_png


def _chosen(folder: Path, split: str, n: int) -> list[list[dict[str, Any]]]:
    """The rows of the first `n` images, image by image."""
    path = folder / "anns" / f"{split}.json"
    if not path.is_file():
        raise DataError(
            f"{path}: no such annotation file. A contact sheet shows a set that has been written. "
            "Write it first."
        )
    by_image: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(path.read_text(encoding="utf-8")):
        by_image.setdefault(row["img_name"], []).append(row)
    return list(by_image.values())[:n]


def _panes(
    folder: Path, split: str, rows: Sequence[dict[str, Any]], *, prompt_type: str
) -> list[tuple[Picture, str]]:
    image = read_image(folder / "images" / split / rows[0]["img_name"])
    big = image.repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)
    panes = [(big, rows[0]["img_name"])]
    for row in rows[:2]:
        mask = read_mask(folder / "masks" / split / row["mask_name"])
        panes.append((_outlined(big, mask), row["prompts"][prompt_type] or "(empty prompt)"))
    return panes


def _outlined(big: Picture, mask: NDArray[np.bool_]) -> Picture:
    """The enlarged picture with the pixels just outside the mask's edge drawn over."""
    inside = mask.repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)
    grown = inside.copy()
    grown[1:] |= inside[:-1]
    grown[:-1] |= inside[1:]
    grown[:, 1:] |= inside[:, :-1]
    grown[:, :-1] |= inside[:, 1:]
    drawn = big.copy()
    drawn[grown & ~inside] = _OUTLINE
    return drawn


def _compose(panes: Sequence[tuple[Picture, str]], title: str, columns: int) -> Image.Image:
    height, width = (side + _GAP for side in panes[0][0].shape[:2])
    height += _TEXT
    n_rows = -(-len(panes) // columns)
    sheet = Image.new("RGB", (columns * width + _GAP, n_rows * height + _TITLE), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), title, fill=_INK, font=ImageFont.load_default(size=15))
    font = ImageFont.load_default(size=11)
    for number, (picture, text) in enumerate(panes):
        row, column = divmod(number, columns)
        x, y = _GAP + column * width, _TITLE + row * height
        sheet.paste(Image.fromarray(picture), (x, y))
        lines = "\n".join(textwrap.wrap(text, 34)[:3])
        draw.text((x, y + picture.shape[0] + 2), lines, fill=_INK, font=font)
    return sheet

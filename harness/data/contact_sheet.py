"""Contact sheets: images, the outline of each target, and the prompt that names it.

Conventions: a sheet is one PNG, labelled with the data's source. Each image stands once
as it is and once for each of its first targets, outlined in green. Made to be looked at;
no figure depends on it.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from harness.cards import DatasetCard
from harness.data.images import read_image, read_mask
from harness.data.layout import load_samples
from harness.errors import DataError
from harness.files.writing import write_picture
from harness.records import Sample

_ZOOM, _GAP, _TEXT, _TITLE = 2, 8, 44, 34
_OUTLINE = (60, 255, 120)
_INK, _PAPER = (30, 30, 30), (255, 255, 255)

Picture = NDArray[np.uint8]


def contact_sheet(
    card: DatasetCard,
    root: Path,
    out_png: Path,
    *,
    n: int = 24,
    split: str = "test",
    prompt_type: str = "p6",
    columns: int = 6,
) -> Path:
    """Draw the first `n` images of a split: those of a generated set are balanced.

    Args:
        card: The dataset's card.
        root: The data root.
        out_png: Where the sheet goes; folders are made.
        n: Number of images, at most as many as the split has.
        split: Which split.
        prompt_type: Which rung stands under the pictures.
        columns: Pictures side by side.

    Returns:
        `out_png`.

    Raises:
        DataError: The split cannot be read, or `n` is not positive.
    """
    if n < 1:
        raise DataError(f"contact sheet: {n} images. At least one is needed. Give a larger n.")
    by_image: dict[Path, list[Sample]] = {}
    for sample in load_samples(card, root, split, pictures=False):
        by_image.setdefault(sample.image, []).append(sample)
    panes = [
        pane
        for samples in list(by_image.values())[:n]
        for pane in _panes(samples, prompt_type=prompt_type)
    ]
    title = f"{card.name}/{split}: {card.source}; prompts {prompt_type}"
    write_picture(out_png, _compose(panes, title, columns))
    return out_png


def _panes(samples: Sequence[Sample], *, prompt_type: str) -> list[tuple[Picture, str]]:
    image = read_image(samples[0].image)
    big = image.repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)
    panes = [(big, samples[0].image_id)]
    for sample in samples[:2]:
        text = sample.prompts[prompt_type][0].text
        panes.append((_outlined(big, read_mask(sample.mask)), text or "(empty prompt)"))
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

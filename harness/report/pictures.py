"""Pictures of a page: an image, and masks drawn over it.

Conventions: images are RGB, scaled so that the longer side has at most `THUMBNAIL` pixels.
A mask is a picture of its own, transparent where it is empty, a light wash with a firm outline
elsewhere; the page lays it over the image, which it therefore holds only once.
"""

import io
from base64 import b64encode
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.images import with_image
from harness.records import BY_CONTENT, Reading

THUMBNAIL = 192
_WASH, _LINE = 70, 255
HUES = {"truth": (255, 214, 64), "original": (64, 190, 255), "variant": (255, 120, 60)}
"""Colour of each mask: bright, since it lies on a photograph in either theme."""


def scaled_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """(width, height) with the longer side at `longest`.

    Example:
        >>> scaled_size(300, 600, 192)
        (192, 96)
    """
    scale = longest / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def thumbnail(
    path: Path, *, longest: int = THUMBNAIL, reading: Reading = BY_CONTENT
) -> Image.Image:
    """An image made small; without what its file says beside the pixels."""

    def small(pixels: NDArray[np.uint8]) -> Image.Image:
        size = scaled_size(pixels.shape[0], pixels.shape[1], longest)
        return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)

    return with_image(path, reading, small)


def overlay(mask: NDArray[np.bool_], size: tuple[int, int], kind: str) -> Image.Image:
    """A mask ``(H, W)`` as a picture with three colours: nothing, wash, outline.

    Args:
        mask: At any resolution, covering the whole image.
        size: (width, height) of the image it lies on.
        kind: Of `HUES`.
    """
    grown = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    inside = np.asarray(grown, dtype=bool)
    codes = inside.astype(np.uint8)
    codes[inside & ~_eroded(_eroded(inside))] = 2
    picture = Image.fromarray(codes).convert("P")
    picture.putpalette([0, 0, 0, *HUES[kind], *HUES[kind]])
    picture.info["transparency"] = bytes([0, _WASH, _LINE])
    return picture


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask without its outermost pixels; what touches the picture's edge stays."""
    padded = np.pad(mask, 1, mode="edge")
    return (
        padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        & padded[1:-1, 1:-1]
    )  # fmt: skip


def jpeg(picture: Image.Image) -> bytes:
    """A photograph as a file."""
    held = io.BytesIO()
    picture.save(held, format="JPEG", quality=82, optimize=True)
    return held.getvalue()


def png(picture: Image.Image) -> bytes:
    """A mask as a file."""
    held = io.BytesIO()
    given = picture.info.get("transparency")
    picture.save(held, format="PNG", bits=2, transparency=given)
    return held.getvalue()


def uri(content: bytes, kind: str) -> str:
    """A file as an address that needs no other file."""
    return f"data:image/{kind};base64,{b64encode(content).decode()}"

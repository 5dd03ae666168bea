"""Reads pictures and masks, and recognises a picture by its content.

Conventions: images are ``(H, W, 3)`` uint8 RGB, masks are ``(H, W)`` bool with
True for the target. `Reading` holds what the dataset's card says of its files; without it
pictures have 8 bits and masks are read by `harness.data.foreground`.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.decoding import with_picture
from harness.data.foreground import Foreground, foreground
from harness.errors import EncodingError
from harness.records import BY_CONTENT, Reading

_SHALLOW = {"1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "YCbCr"}
_ROWS = 1024

Result = TypeVar("Result")
Deep = NDArray[Any]


def read_image(path: Path, reading: Reading = BY_CONTENT) -> NDArray[np.uint8]:
    """Decode a picture to RGB, ``(H, W, 3)`` uint8.

    Raises:
        DataError: The file is missing, no picture, damaged, or too large.
        EncodingError: It has more than 8 bits, an orientation tag, several frames, or
            transparent parts, and the card does not say what that means.
    """
    return with_image(path, reading, lambda image: image)


def with_image(path: Path, reading: Reading, use: Callable[[NDArray[np.uint8]], Result]) -> Result:
    """As ``use(read_image(path))``, but large pictures are in memory one at a time."""
    return with_picture(path, "image", reading, lambda p, depth: use(_rgb(p, path, reading, depth)))


def recognise(path: Path, reading: Reading = BY_CONTENT) -> tuple[str, tuple[int, int]]:
    """A picture's `content_id`, from its stored values, and its (height, width) as read.

    Raises:
        DataError: As for `read_image`.
    """

    def identify(picture: Image.Image, depth: int) -> tuple[str, tuple[int, int]]:
        image = _rgb(picture, path, reading, depth)
        stored = image if picture.mode in _SHALLOW else np.asarray(picture)
        return content_id(stored), (image.shape[0], image.shape[1])

    return with_picture(path, "image", reading, identify)


def read_mask(path: Path, reading: Reading = BY_CONTENT) -> NDArray[np.bool_]:
    """Decode a mask, ``(H, W)`` bool; see `harness.data.foreground`.

    Raises:
        DataError: As for `read_image`.
        EncodingError: What is foreground must be said on the card.
    """
    return look_at_mask(path, reading).mask


def look_at_mask(path: Path, reading: Reading = BY_CONTENT) -> Foreground:
    """A mask and how it was read.

    Raises:
        DataError: As for `read_mask`.
    """
    try:
        return with_picture(
            path, "mask", reading, lambda picture, depth: foreground(picture, reading, depth=depth)
        )
    except EncodingError as problem:
        text = str(problem)
        raise EncodingError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def content_id(image: Deep) -> str:
    """Hash of pixels: the same picture under any name or container.

    The first 16 hexadecimal digits of SHA-256 over shape and pixels.
    """
    digest = hashlib.sha256(repr(image.shape).encode())
    if image.dtype != np.uint8:
        digest.update(image.dtype.newbyteorder("<").str.encode())
        image = image.astype(image.dtype.newbyteorder("<"), copy=False)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:16]


def _rgb(picture: Image.Image, path: Path, reading: Reading, depth: int) -> NDArray[np.uint8]:
    if picture.mode in {"I", "F"} or picture.mode.startswith("I;"):
        grey = _eight_bits(np.asarray(picture), picture.mode, path, reading)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode not in _SHALLOW:
        raise EncodingError(
            f"{path}: the image is of mode {picture.mode}, colours that no rule here makes RGB. "
            "A grey or RGB image is needed. Export it as one."
        )
    if depth > 8 and reading.intensity != "full":
        raise EncodingError(
            f"{path}: the image has {depth} bits in each channel of {picture.mode}, of which the "
            "decoder keeps the upper 8. Write `intensity: full` on the dataset's card if they "
            "use the whole range; else export it with 8 bits."
        )
    _refuse_hidden(picture, path)
    shown = picture if picture.mode == "RGB" else picture.convert("RGB")
    image = np.empty((shown.height, shown.width, 3), dtype=np.uint8)
    for top in range(0, shown.height, _ROWS):
        # In strips: a copy of the whole would double the memory of a large picture.
        bottom = min(top + _ROWS, shown.height)
        image[top:bottom] = np.asarray(shown.crop((0, top, shown.width, bottom)))
    return image


def _refuse_hidden(picture: Image.Image, path: Path) -> None:
    """Transparent pixels may hold a colour that nobody saw; black ones look as they are read."""
    if "A" not in picture.getbands():
        return
    low, high = picture.getchannel("A").getextrema()
    if low == high:
        return
    for top in range(0, picture.height, _ROWS):
        strip = picture.crop((0, top, picture.width, min(top + _ROWS, picture.height)))
        held = strip.convert("RGBA")
        # In "RGBa" the colour is multiplied with alpha: as seen on black.
        if (np.asarray(held) != np.asarray(held.convert("RGBa"))).any():
            raise EncodingError(
                f"{path}: the image has transparent parts (alpha from {low} to {high}) that hide "
                "colours. What was seen there is not known. Lay it on its background and export "
                "it without alpha."
            )


def _eight_bits(values: Deep, mode: str, path: Path, reading: Reading) -> NDArray[np.uint8]:
    """Values of more than 8 bits brought to 0-255 by the card's rule."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise EncodingError(
            f"{path}: the image of mode {mode} holds values that are not finite numbers. Every "
            "value must be one. Export the image again."
        )
    if reading.intensity is None:
        raise EncodingError(
            f"{path}: the image is of mode {mode}, its values run from {low:g} to {high:g}. Only 8 "
            "bits have a meaning of their own. Write `intensity: full`, `intensity: minmax`, "
            "`intensity: [low, high]` or `intensity: {percentiles: [1, 99]}` on the dataset's card."
        )
    bounds = _bounds(values, (low, high), reading.intensity)
    if bounds is None:
        raise EncodingError(
            f"{path}: the image is of mode {mode}, its values run from {low:g} to {high:g}. "
            "`intensity: full` of the dataset's card is for values from 0 to 65535. Write "
            "`intensity: [low, high]` there."
        )
    made = np.empty(values.shape, dtype=np.uint8)
    span = bounds[1] - bounds[0]
    for top in range(0, len(values), _ROWS):
        strip = values[top : top + _ROWS].astype(np.float64)
        scaled = (strip - bounds[0]) / span if span > 0 else np.zeros_like(strip)
        made[top : top + _ROWS] = np.rint(255 * np.clip(scaled, 0, 1))
    return made


def _bounds(
    values: Deep,
    found: tuple[float, float],
    intensity: str | tuple[float, float] | tuple[str, float, float],
) -> tuple[float, float] | None:
    """The values that become 0 and 255; None where `full` says nothing of such values."""
    if intensity == "minmax":
        return found
    if intensity == "full":
        is_whole = values.dtype.kind in "iu" and found[0] >= 0 and found[1] <= 65_535
        return (0.0, 65_535.0) if is_whole else None
    if intensity[0] == "percentiles":
        low, high = np.percentile(values, [float(share) for share in intensity[1:]])
        return float(low), float(high)
    return float(intensity[0]), float(intensity[1])

"""Reads pictures and masks, and recognises a picture by its content.

Conventions: images are ``(H, W, 3)`` uint8 RGB, masks are ``(H, W)`` bool with
True for the target. EXIF orientation is not applied: the masks of the released
sets were drawn on the stored pixels.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from harness.errors import DataError

# A hostile header must not allocate gigabytes; no set of the paper comes near this.
MAX_PIXELS = 100_000_000


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode a picture to RGB, ``(H, W, 3)`` uint8.

    Raises:
        DataError: The file is missing, no picture, cut short, or larger than
            `MAX_PIXELS`.
    """
    return np.asarray(_open(path, "image").convert("RGB"))


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Decode a mask and binarise it at more than half of the range, ``(H, W)`` bool.

    Kvasir's and BKAI's masks are JPEG: their edges carry grey values that are no
    ground truth. Of a picture with several channels the first one counts, the
    reference's rule.

    Raises:
        DataError: As for `read_image`.
    """
    picture = _open(path, "mask")
    if picture.mode in {"P", "PA"}:
        picture = picture.convert("RGB")
    values = np.asarray(picture)
    if values.ndim == 3:
        values = values[..., 0]
    if values.dtype == np.bool_:
        return values
    half = 127 if values.dtype == np.uint8 else 32_767
    return values > half


def mask_size(path: Path) -> tuple[int, int]:
    """Height and width of a mask, from its header alone.

    Raises:
        DataError: The file is no picture.
    """
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as problem:
        raise DataError(
            f"{path}: the mask cannot be read ({problem}). A whole PNG or JPEG file is needed. "
            "Copy the file again or remove its row."
        ) from None


def _open(path: Path, kind: str) -> Image.Image:
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(
                    f"{path}: the {kind} has {picture.width} x {picture.height} pixels. At most "
                    f"{MAX_PIXELS} are read. Scale the file down."
                )
            picture.load()
            return picture.copy()
    except FileNotFoundError:
        raise DataError(
            f"{path}: the {kind} is missing. Every annotation row needs its {kind} at this path. "
            "Add the file or remove the row."
        ) from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as problem:
        raise DataError(
            f"{path}: the {kind} cannot be decoded ({problem}). A whole PNG or JPEG file is "
            "needed. Copy the file again or remove its row."
        ) from None


def content_id(image: NDArray[np.uint8]) -> str:
    """Hash of the decoded pixels: the same picture under any name or container.

    Returns:
        The first 16 hexadecimal digits of SHA-256 over shape and pixels.
    """
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()[:16]

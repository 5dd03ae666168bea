"""Recognises near copies of a picture: scaled, compressed again, or made a little brighter.

Two steps. A 64-bit perceptual hash (the lowest frequencies of a 32 x 32 grey thumbnail against
their median) finds candidates among all pairs; the correlation of 16 x 16 thumbnails confirms them,
because pictures of one kind share their coarse look and with it most bits: of 497,503 pairs of
Kvasir-SEG 839 differ in at most 10 bits, and 4 are copies. It is written here, a few lines on the
project's own readers: a package would decode files outside the limits of `harness.data.decoding`.

Conventions: a *distance* is the number of differing bits, 0 to 64. What is turned, mirrored or
cropped is another picture here; neighbouring frames of a video may be copies.

References:
    C. Zauner, Implementation and benchmarking of perceptual image hash functions, 2010.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.images import with_image
from harness.errors import DataError
from harness.records import Reading

MOST_BITS = 10
LEAST_CORRELATION = 0.98
"""Measured on 60 pictures of each of six sets: every copy was found that was scaled to half, to
256 x 256 or to twice its size, saved as JPEG of quality 20, or made 10 % brighter, 15 % darker or
of gamma 1.2. Of 34,180 pairs of generated scenes none is found: they correlate by 0.83 at most."""
_SIDE, _LOW = 32, 8
_BLOCK = 1 << 24
"""Pairs compared at once."""


class Prints(NamedTuple):
    """Fingerprints of N pictures."""

    paths: tuple[Path, ...]
    hashes: NDArray[np.uint64]  # ``(N,)`` uint64
    # ``(N, 256)`` float32, grey, mean 0 and norm 1; zeros for an even picture.
    thumbnails: NDArray[np.float32]
    unread: Mapping[Path, str]  # files that could not be read, with the reason


class Copy(NamedTuple):
    """Two near copies: places in two lists of pictures, differing bits, and correlation."""

    first: int
    second: int
    distance: int
    correlation: float


def fingerprints(
    pictures: Mapping[Path, Reading], *, tick: Callable[[], None] = lambda: None
) -> Prints:
    """Read pictures, as many at once as there are processors, and fingerprint them."""

    def one(item: tuple[Path, Reading]) -> NDArray[np.float32] | str:
        try:
            return with_image(*item, thumbnail)
        except DataError as problem:
            return str(problem)
        finally:
            tick()

    with ThreadPoolExecutor() as pool:
        found = dict(zip(pictures, pool.map(one, pictures.items()), strict=True))
    read = {path: small for path, small in found.items() if not isinstance(small, str)}
    small = np.stack(list(read.values())) if read else np.empty((0, _SIDE, _SIDE), np.float32)
    half = _SIDE // 2
    flat = small.reshape(len(small), half, 2, half, 2).mean(axis=(2, 4))
    flat = flat.reshape(len(small), half * half)
    flat = flat - flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return Prints(
        tuple(read),
        perceptual_hashes(small),
        np.where(norm > _SIDE, flat / np.maximum(norm, 1e-9), 0).astype(np.float32),
        {path: why for path, why in found.items() if isinstance(why, str)},
    )


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A picture ``(H, W, 3)`` in grey, each cell the mean of what it covers, ``(32, 32)``."""
    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32)


def perceptual_hashes(thumbnails: NDArray[np.float32]) -> NDArray[np.uint64]:
    """64-bit hashes of thumbnails ``(N, 32, 32)``, ``(N,)``."""
    from scipy.fft import dctn

    low = dctn(thumbnails, axes=(1, 2))[:, :_LOW, :_LOW]
    low = low.reshape(len(thumbnails), _LOW * _LOW)
    low[:, 0] = 0  # the mean: how bright the picture is
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def copies(first: Prints, second: Prints) -> Iterator[Copy]:
    """Every pair of near copies, one of each list."""
    rows = max(1, _BLOCK // max(len(second.hashes), 1))
    for start in range(0, len(first.hashes), rows):
        some = slice(start, start + rows)
        distance = np.bitwise_count(first.hashes[some, None] ^ second.hashes[None, :])
        for i, j in np.argwhere(distance <= MOST_BITS):
            place = start + int(i)
            both = float(first.thumbnails[place] @ second.thumbnails[j])
            if both >= LEAST_CORRELATION:
                yield Copy(place, int(j), int(distance[i, j]), both)

"""Smooth noise, lines and directions in arithmetic that no machine rounds differently.

Conventions: fields are ``(96, 96)`` float64, axes (row, column). IEEE 754 fixes the
result of + - * / and sqrt for each element, and a sum of integers below 2**53 is
exact in any order; nothing else is used on the way to a pixel: no exp, no sin, no
float sums, whose last bit depends on the library, the vector width and fused
multiply-adds. No matrix products either: a BLAS that spreads these small ones over
several threads is many times slower than one thread.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from .draws import Stream

SIDE = 96
Field = NDArray[np.float64]

# Centres of the pixels in px, as a column and as a row.
Y: Field = (np.arange(SIDE, dtype=np.float64) + 0.5)[:, None]
X: Field = Y.T


@cache
def _spline(spacing: int) -> tuple[NDArray[np.int64], Field]:
    """Cubic B-spline: the first of each pixel's four lattice points, and their weights.

    The weights, ``(4, 96)``, are multiplied by ``6 spacing**3``: integers, so that
    products are exact.
    """
    first, k = np.divmod(np.arange(SIDE), spacing)
    n = spacing
    weights = (
        (n - k) ** 3,
        3 * k**3 - 6 * k**2 * n + 4 * n**3,
        -3 * k**3 + 3 * k**2 * n + 3 * k * n**2 + n**3,
        k**3,
    )
    return first.astype(np.int64), np.array(weights, dtype=np.float64)


def smooth(stream: Stream, spacing: int) -> Field:
    """Smooth noise in [-1, 1], standard deviation about 0.3.

    Args:
        stream: Where its lattice is drawn from.
        spacing: Distance of the lattice's points in px; divides 96, at most 48.
    """
    first, weights = _spline(spacing)
    points = SIDE // spacing + 3
    lattice = stream.octets(points, points)
    down = sum(w[:, None] * lattice[first + step] for step, w in enumerate(weights))
    both: Field = sum(w * np.take(down, first + step, axis=1) for step, w in enumerate(weights))
    return both / (127.5 * 36.0 * float(spacing) ** 6) - 1.0


def cloudy(stream: Stream, *spacings: int) -> Field:
    """Noise of several scales, each weighing two thirds of the one before, in (-3, 3)."""
    total, weight = smooth(stream, spacings[0]), 1.0
    for spacing in spacings[1:]:
        weight *= 2 / 3
        total = total + weight * smooth(stream, spacing)
    return total


def blurred(field: Field, *, down: tuple[int, ...], across: tuple[int, ...]) -> Field:
    """Separable convolution of integers with integer taps, divided by the taps' sum.

    Args:
        field: Integers as float64, ``(..., 96, 96)``.
        down: Odd number of taps along the rows' axis; ``(1,)`` leaves it.
        across: The same along the columns' axis.
    """
    sideways = _convolved(field, across)
    both = _convolved(sideways.swapaxes(-1, -2), down).swapaxes(-1, -2)
    return both / float(sum(down) * sum(across))


def _convolved(field: Field, taps: tuple[int, ...]) -> Field:
    """Convolution along the last axis; the borders are repeated."""
    half = len(taps) // 2
    padded = field[..., np.clip(np.arange(-half, SIDE + half), 0, SIDE - 1)]
    total = np.zeros_like(field)
    for first, tap in enumerate(taps):
        total += tap * padded[..., first : first + SIDE]
    return total


def direction(turn: int) -> tuple[float, float]:
    """Cosine and sine of direction `turn` of 64 around the circle (nearly even steps).

    Rational points of the circle, ``(1 - t**2, 2 t) / (1 + t**2)``: no library's sine.
    """
    quadrant, step = divmod(turn % 64, 16)
    t = step / 16
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    for _ in range(quadrant):
        cosine, sine = -sine, cosine
    return cosine, sine


def curves(stream: Stream, count: int, *, length: tuple[int, int], bend: int) -> Field:
    """Thin curved lines of a pixel's width, 0 (none) to 1 (on a line).

    Args:
        stream: Where their places are drawn from.
        count: Number of lines.
        length: Least and greatest length in px.
        bend: How far the middle and the end of a line may leave the straight, in px.
    """
    steps = np.arange(257, dtype=np.float64)[None, :] / 256
    ends = np.array([_curve(stream, length, bend) for _ in range(count)]).reshape(count, 6, 1)
    x, y, dx, dy, first, second = (ends[:, part] for part in range(6))
    aside = first * (4 * steps * (1 - steps)) + second * (steps * steps)
    across, along = x + dx * steps - dy * aside, y + dy * steps + dx * aside
    drawn = _splat(across.ravel(), along.ravel())
    return np.minimum(blurred(drawn, down=(1, 4, 1), across=(1, 4, 1)) / 300.0, 1.0)


def _curve(stream: Stream, length: tuple[int, int], bend: int) -> tuple[float, ...]:
    cosine, sine = direction(stream.below(64))
    reach = stream.between(*length)
    start = stream.below(SIDE), stream.below(SIDE)
    sway = [stream.between(-16 * bend, 16 * bend) / (16 * reach) for _ in range(2)]
    return (*start, reach * cosine, reach * sine, *sway)


def _splat(x: Field, y: Field) -> Field:
    """Integer bilinear marks of 256 per point; points outside the frame are left out."""
    column, row = np.floor(16 * x), np.floor(16 * y)
    total = np.zeros(SIDE * SIDE)
    for down in (0, 1):
        for right in (0, 1):
            c, r = np.floor(column / 16) + right, np.floor(row / 16) + down
            weight = _share(column, right) * _share(row, down)
            kept = (c >= 0) & (c < SIDE) & (r >= 0) & (r < SIDE)
            place = (r[kept] * SIDE + c[kept]).astype(np.int64)
            total += np.bincount(place, weights=weight[kept], minlength=SIDE * SIDE)
    return total.reshape(SIDE, SIDE)


def _share(sixteenths: Field, upper: int) -> Field:
    part: Field = sixteenths - 16 * np.floor(sixteenths / 16)
    return part if upper else 16 - part


def pixels(colors: Field) -> NDArray[np.uint8]:
    """Round to the nearest integer in [0, 255]; halves go up."""
    return np.clip(np.floor(colors + 0.5), 0, 255).astype(np.uint8)

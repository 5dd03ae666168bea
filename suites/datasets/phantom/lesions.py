"""The outlines of lesions: where a lesion lies, and which pixels are its own.

Conventions: lengths in px, x to the right, y down, multiples of 1/16 px, so that they
are exact. Depth is positive inside a lesion, 0 on its outline, and near it the
distance from it. All shapes of a radius have about the area of its disc.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .fields import SIDE, Field, X, Y, direction

# Radius in px of the disc of equal area: the areas of neighbouring sizes differ by 1.9 at least.
RADII = {"small": (5.0, 5.75), "medium": (8.0, 8.875), "large": (12.25, 13.25)}

_LONG, _SHORT = 1.45, 0.69  # half axes of an oval of radius 1: 2.1 to 1
_HALF_SIDE, _HOLLOW = 0.915, 0.06
# Greatest distance of an outline from its centre, per radius, with its waviness.
REACH = {"circle": 1.1, "oval": 1.5, "square": 1.36}
# The window a lesion is painted in goes this far beyond its reach, for shadow and rim.
MARGIN_PX = 9


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion: centre, radius of the disc of equal area, and a direction of 64."""

    x: float
    y: float
    radius: float
    shape: str
    turn: int

    @property
    def reach(self) -> float:
        """Radius of a circle around the centre that holds the whole lesion."""
        return REACH[self.shape] * self.radius


@dataclass(frozen=True, slots=True)
class Spot:
    """A lesion ready to be painted.

    `rows` and `columns` cut its window out of a picture; `across` and `down` are the
    pixels' offsets from the centre, `depth` the signed depth there, all ``(h, w)``.
    """

    lesion: Lesion
    color: str
    rows: slice
    columns: slice
    across: Field
    down: Field
    depth: Field

    @property
    def window(self) -> tuple[slice, slice]:
        """Index of the window in a field."""
        return self.rows, self.columns


def make_spot(lesion: Lesion, color: str, *, waves: tuple[Field, Field]) -> Spot:
    """Cut out a lesion's window and work out its depth there.

    Args:
        lesion: Where it lies and how it looks.
        color: The word of its colour.
        waves: Two smooth fields in [-1, 1] that bend the outline by a few percent of
            the radius: nothing in a body is drawn with compasses.
    """
    rows, columns = (_span(centre, lesion.reach) for centre in (lesion.y, lesion.x))
    across, down = (X - lesion.x)[:, columns], (Y - lesion.y)[rows]
    across, down = np.broadcast_arrays(across, down)
    bend = 0.2 * lesion.radius
    u, v = across + bend * waves[0][rows, columns], down + bend * waves[1][rows, columns]
    cosine, sine = direction(lesion.turn)
    depth = _DEPTHS[lesion.shape](cosine * u + sine * v, cosine * v - sine * u, lesion.radius)
    return Spot(lesion, color, rows, columns, across, down, depth)


def _span(centre: float, reach: float) -> slice:
    low, high = int(centre - reach) - MARGIN_PX, int(centre + reach) + MARGIN_PX + 1
    return slice(max(low, 0), min(high, SIDE))


def _circle(u: Field, v: Field, radius: float) -> Field:
    return radius - np.sqrt(u * u + v * v)


def _oval(u: Field, v: Field, radius: float) -> Field:
    """First-order distance to an ellipse: its level function over its gradient's length."""
    a, b = _LONG * radius, _SHORT * radius
    level = np.sqrt((u / a) * (u / a) + (v / b) * (v / b))
    p, q = u / (a * a), v / (b * b)
    slope = np.sqrt(p * p + q * q)
    return np.minimum((1 - level) * level / np.maximum(slope, 1e-6), b)


def _square(u: Field, v: Field, radius: float) -> Field:
    """A square with slightly hollow sides: at 96 px, corners are what tells it from a disc."""
    side = _HALF_SIDE * radius
    u, v = np.abs(u), np.abs(v)
    first = side - u - _HOLLOW * np.maximum(side - v, 0)
    second = side - v - _HOLLOW * np.maximum(side - u, 0)
    return np.minimum(first, second)


_DEPTHS = {"circle": _circle, "oval": _oval, "square": _square}


def mask_of(spots: Sequence[Spot]) -> NDArray[np.bool_]:
    """The pixels whose centre lies in one of the spots, ``(96, 96)`` bool."""
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    for spot in spots:
        mask[spot.window] |= spot.depth > 0
    return mask

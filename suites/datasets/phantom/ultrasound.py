"""Paints a B-mode-like ultrasound scene: speckled tissue in a fan, dark or bright tumors.

Conventions: brightness in [0, 255], ``(96, 96, 3)`` float64 with three equal channels:
the picture is grey to the last bit. Depth runs down. Speckle is the length of a
complex noise (Rayleigh), finer along the beam than across it, compressed by a rational
curve in place of the scanner's logarithm.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from .draws import Stream
from .fields import SIDE, Field, X, Y, blurred, cloudy, smooth
from .lesions import Spot

# Echo strength relative to tissue.
COLORS = {"dark": 0.045, "bright": 4.2}

# The fan: circles of the probe's face and of the deepest echo around the middle column, and
# sides that lean by 9 px in 40.
_FACE = (-92.0, 96.0)
_END = (-110.0, 205.0)
_SIDE_TOP_PX, _SIDE_LEAN = 9.0, 0.225
_LEAN_LENGTH = 1.02500000


def clearance(x: float, y: float) -> float:
    """Distance to the edge of the fan, in px; negative in the black."""
    middle = x - SIDE / 2
    face = math.sqrt(middle * middle + (y - _FACE[0]) * (y - _FACE[0])) - _FACE[1]
    end = _END[1] - math.sqrt(middle * middle + (y - _END[0]) * (y - _END[0]))
    inward = min(x, SIDE - x) - _SIDE_TOP_PX + _SIDE_LEAN * y
    return min(face, end, inward / _LEAN_LENGTH)


@cache
def _visible() -> Field:
    """1 in the fan, 0 in the black, with an edge of one pixel."""
    fan = [[clearance(x, y) for x in X[0].tolist()] for y in Y[:, 0].tolist()]
    return np.clip(np.array(fan) + 0.5, 0, 1)


def paint(stream: Stream, spots: Sequence[Spot]) -> Field:
    """The picture of a scene with tumors at `spots`."""
    echo = _tissue(stream)
    for spot in spots:
        _add_tail(echo, spot)
    for spot in spots:
        cover = np.clip(spot.depth / 1.6 + 0.5, 0, 1)
        here = echo[spot.window]
        echo[spot.window] = here + (COLORS[spot.color] - here) * cover
    strength = echo * (0.22 + 0.78 * _speckle(stream))
    grey = 240.0 * strength / (strength + 1.3) + 6.0
    return np.repeat((grey * _visible())[..., None], 3, axis=2)


def _tissue(stream: Stream) -> Field:
    """Echo strength of skin, fat and gland: wavy layers that fade with depth."""
    waves = cloudy(stream, 32, 16, 8)
    depth = Y / SIDE + 0.16 * smooth(stream, 32)
    layers = 0.9 * np.abs((depth * 7.0) % 2.0 - 1.0) * smooth(stream, 16)
    skin = np.maximum(1 - np.abs(depth * 16 - 0.9), 0)
    gland = np.maximum(1 - np.abs(depth - 0.42) * 3.0, 0)
    echo = 0.66 + 0.42 * waves + layers + 0.8 * skin + 0.25 * gland
    fading: Field = np.clip(echo, 0.36, 1.5) * (1.12 - 0.42 * Y / SIDE)
    return fading


def _speckle(stream: Stream) -> Field:
    """Rayleigh-like noise of mean about 1."""
    noise = stream.octets(2, SIDE, SIDE)
    real, imaginary = blurred(noise, down=(1, 2, 1), across=(1, 6, 15, 20, 15, 6, 1)) / 127.5 - 1
    fine = stream.octets(SIDE, SIDE) / 255 - 0.5
    speckle: Field = np.sqrt(real * real + imaginary * imaginary) * 3.9 * (1 + 0.3 * fine)
    return speckle


def _add_tail(echo: Field, spot: Spot) -> None:
    """Behind a dark tumor echoes are stronger, behind a bright one there is a shadow."""
    lesion = spot.lesion
    reach = 0.8 * lesion.radius
    across = np.maximum(1 - np.abs(X - lesion.x) / reach, 0)
    below = np.clip((Y - lesion.y) / lesion.radius, 0, 1)
    fading = np.maximum(1 - (Y - lesion.y) / 44.0, 0)
    gain = 0.45 if spot.color == "dark" else -0.30
    echo *= 1 + gain * across * (2 - across) * below * fading

"""Paints a B-mode-like ultrasound scene: speckled tissue in a fan, dark or bright tumors.

Conventions: brightness in [0, 255], ``(96, 96, 3)`` float64 with three equal channels:
the picture is grey to the last bit. Depth runs down. Speckle is the length of a
complex noise (Rayleigh), finer along the beam than across it, compressed by a rational
curve in place of the scanner's logarithm.
"""

from collections.abc import Sequence

import numpy as np

from harness.data.phantom.draws import Stream
from harness.data.phantom.fields import SIDE, Field, X, Y, blurred, cloudy, smooth
from harness.data.phantom.lesions import Spot

# Echo strength relative to tissue.
COLORS = {"dark": 0.045, "bright": 4.2}

# The fan: circles of the probe's face and of the deepest echo around the middle column, and
# sides that lean by 1 px in 4.
_FACE = (-92.0, 96.0)
_END = (-60.0, 154.0)
_SIDE_TOP_PX, _SIDE_LEAN = 11.0, 0.25
_LEAN_LENGTH = 1.03077640


def clearance(x: float, y: float) -> float:
    """Distance to the edge of the fan, in px; negative in the black."""
    return float(_fan(np.array(x), np.array(y)))


def _fan(x: Field, y: Field) -> Field:
    middle = x - SIDE / 2
    face = np.sqrt(middle * middle + (y - _FACE[0]) * (y - _FACE[0])) - _FACE[1]
    end = _END[1] - np.sqrt(middle * middle + (y - _END[0]) * (y - _END[0]))
    inward = np.minimum(x, SIDE - x) - _SIDE_TOP_PX + _SIDE_LEAN * y
    return np.minimum(np.minimum(face, end), inward / _LEAN_LENGTH)


_VISIBLE = np.clip(_fan(X, Y) + 0.5, 0, 1)


def paint(stream: Stream, spots: Sequence[Spot]) -> Field:
    """The picture of a scene with tumors at `spots`."""
    echo = _tissue(stream)
    for spot in spots:
        _add_tail(echo, spot)
    for spot in spots:
        cover = np.clip(spot.depth / 1.6 + 0.5, 0, 1)
        here = echo[spot.window]
        echo[spot.window] = here + (COLORS[spot.color] - here) * cover
    strength = echo * _speckle(stream)
    grey = 236.0 * strength / (strength + 1.35) + 5.0
    return np.repeat((grey * _VISIBLE)[..., None], 3, axis=2)


def _tissue(stream: Stream) -> Field:
    """Echo strength of skin, fat and gland: wavy layers that fade with depth."""
    waves = cloudy(stream, 48, 24, 12)
    depth = Y / SIDE + 0.16 * smooth(stream, 32)
    stripes = smooth(stream, 12) * 0.35 + smooth(stream, 6) * 0.3
    skin = np.maximum(1 - np.abs(depth * 16 - 0.9), 0)
    gland = np.maximum(1 - np.abs(depth - 0.42) * 3.0, 0)
    echo = 0.62 + 0.30 * waves + 0.22 * stripes + 0.7 * skin + 0.22 * gland
    return np.clip(echo, 0.34, 1.5) * (1.12 - 0.42 * Y / SIDE)


def _speckle(stream: Stream) -> Field:
    """Rayleigh-like noise of mean about 1."""
    noise = stream.octets(2, SIDE, SIDE)
    real, imaginary = blurred(noise, down=(1, 2, 1), across=(1, 4, 6, 4, 1)) / 127.5 - 1
    fine = stream.octets(SIDE, SIDE) / 255 - 0.5
    return np.sqrt(real * real + imaginary * imaginary) * 3.6 * (1 + 0.5 * fine)


def _add_tail(echo: Field, spot: Spot) -> None:
    """Behind a dark tumor echoes are stronger, behind a bright one there is a shadow."""
    lesion = spot.lesion
    reach = 0.8 * lesion.radius
    across = np.maximum(1 - np.abs(X - lesion.x) / reach, 0)
    below = np.clip((Y - lesion.y) / lesion.radius, 0, 1)
    fading = np.maximum(1 - (Y - lesion.y) / 44.0, 0)
    gain = 0.45 if spot.color == "dark" else -0.30
    echo *= 1 + gain * across * (2 - across) * below * fading

"""Paints a dermoscopy-like scene: skin with creases and hairs, and melanomas.

Conventions: colours are RGB in [0, 255], ``(96, 96, 3)`` float64. Borders of lesions are
soft: half covered where the mask ends.
"""

from collections.abc import Sequence

import numpy as np

from .draws import Stream
from .fields import SIDE, Field, X, Y, cloudy, curves, smooth
from .lesions import Spot

COLORS = {
    "white": (234.0, 220.0, 208.0),
    "red": (184.0, 56.0, 56.0),
    "brown": (124.0, 78.0, 46.0),
    "black": (42.0, 33.0, 34.0),
}
# How strongly a colour is mottled: dark blots in a white patch would read as another colour.
_MOTTLED = {"white": 0.35, "red": 0.8, "brown": 1.0, "black": 1.0}
# Skin tones of a scene, all dark enough for a white patch to be seen.
_SKIN = (
    *((210.0, 162.0, 136.0), (198.0, 148.0, 120.0), (182.0, 132.0, 102.0)),
    *((212.0, 160.0, 146.0), (206.0, 164.0, 128.0)),
)
_HAIR = np.array([46.0, 32.0, 26.0])
# Skin around a lesion is a little redder.
_FLUSH = np.array([0.0, 0.07, 0.06])


def clearance(x: float, y: float) -> float:
    """Distance to the edge of the picture, in px."""
    return min(x, SIDE - x, y, SIDE - y)


def paint(stream: Stream, spots: Sequence[Spot]) -> Field:
    """The picture of a scene with melanomas at `spots`."""
    pigment, fine = cloudy(stream, 32, 16, 8), smooth(stream, 3)
    light = (1 + 0.13 * pigment + 0.07 * fine - 0.06 * _creases(stream)) * _vignette()
    warmth = smooth(stream, 32)[..., None] * np.array([0.01, -0.05, -0.06])
    colors = np.array(stream.choice(_SKIN)) * light[..., None] * (1 + warmth)
    mottle = cloudy(stream, 8, 4, 3)
    for spot in spots:
        _add_melanoma(colors, spot, mottle=mottle, light=light)
    colors = _with_hairs(stream, colors)
    return colors + 6.0 * (stream.octets(SIDE, SIDE, 1) / 255 - 0.5)


def _creases(stream: Stream) -> Field:
    """The fine criss-cross of skin, 0 to 1."""
    return curves(stream, 14, length=(40, 100), bend=5)


def _vignette() -> Field:
    x, y = X / SIDE - 0.5, Y / SIDE - 0.5
    far = 2 * (x * x + y * y)
    return 1.05 - 0.26 * far * (0.4 + far)


def _add_melanoma(colors: Field, spot: Spot, *, mottle: Field, light: Field) -> None:
    """Blend one flat lesion into the skin: mottled inside, slightly darker in the middle."""
    cover = np.clip(spot.depth / 3.6 + 0.5, 0, 1)
    cover = (cover * cover * (3 - 2 * cover))[..., None]
    core = np.clip(spot.depth / spot.lesion.radius, 0, 1)
    shade = (0.12 - 0.26 * core + 0.46 * mottle[spot.window]) * _MOTTLED[spot.color]
    shade = np.clip((1 + shade) * light[spot.window], 0.68, 1.3)[..., None]
    body = np.array(COLORS[spot.color]) * shade
    halo = np.clip(1 + spot.depth / 6.0, 0, 1)[..., None]
    ground = colors[spot.window] * (1 - halo * halo * _FLUSH)
    colors[spot.window] = ground + (body - ground) * cover


def _with_hairs(stream: Stream, colors: Field) -> Field:
    """Up to four thin hairs; they cross lesions as real ones do."""
    count = stream.choice((0, 0, 1, 2, 3, 4))
    if count == 0:
        return colors
    hairs = 0.5 * curves(stream, count, length=(60, 130), bend=26)[..., None]
    return colors + (_HAIR - colors) * hairs

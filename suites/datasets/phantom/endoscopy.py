"""Paints a colonoscopy-like scene: moist mucosa with folds, vessels and polyps.

Conventions: colours are RGB in [0, 255], ``(96, 96, 3)`` float64. The light comes from
the endoscope's tip, so brightness falls off from a point near the middle. Nothing
here is measured from pictures of patients: the colours are chosen by eye.
"""

from collections.abc import Sequence

import numpy as np

from .draws import Stream
from .fields import SIDE, Field, X, Y, cloudy, curves, direction, smooth
from .lesions import Spot

COLORS = {
    "white": (228.0, 210.0, 196.0),
    "pink": (238.0, 148.0, 176.0),
    "red": (164.0, 24.0, 30.0),
    "black": (62.0, 38.0, 38.0),
}
# (paler, redder) mucosa; a scene has one of them.
_MUCOSA = (
    ((222.0, 138.0, 108.0), (184.0, 82.0, 66.0)),
    ((214.0, 126.0, 104.0), (172.0, 72.0, 62.0)),
    ((226.0, 146.0, 112.0), (192.0, 94.0, 70.0)),
)
# The cut corners of an endoscope's picture: x + y of the line across a corner, in px.
_CORNER_PX = 13.0
_GLARE = np.array([255.0, 250.0, 244.0])


def clearance(x: float, y: float) -> float:
    """Distance to the nearest cut corner, in px; negative in the black."""
    near_x, near_y = min(x, SIDE - x), min(y, SIDE - y)
    return (near_x + near_y - _CORNER_PX) / 1.41421356


def paint(stream: Stream, spots: Sequence[Spot]) -> Field:
    """The picture of a scene with polyps at `spots`."""
    tone, fine = cloudy(stream, 32, 16, 8), smooth(stream, 4)
    pale, deep = (np.array(color) for color in stream.choice(_MUCOSA))
    share = np.clip(0.5 + 0.75 * tone, 0, 1)[..., None]
    colors = pale + (deep - pale) * share
    colors = _with_vessels(stream, colors)
    light = _falloff(stream) * _folds(stream, tone) * (1 + 0.09 * fine)
    colors = colors * light[..., None]
    side = stream.below(64)
    for spot in spots:
        _add_polyp(colors, spot, light=light, side=side, grain=fine)
    _add_glare(stream, colors, count=stream.between(1, 4))
    grain = stream.octets(SIDE, SIDE, 1) / 255 - 0.5
    return (colors + 7.0 * grain) * _frame()[..., None]


def _falloff(stream: Stream) -> Field:
    x, y = stream.between(36, 60), stream.between(36, 60)
    far = ((X - x) * (X - x) + (Y - y) * (Y - y)) / (SIDE * SIDE)
    return 1.14 / (1.0 + 1.05 * far + 0.9 * far * far)


def _folds(stream: Stream, warp: Field) -> Field:
    """Two or three haustral folds: a lit crest and, behind it, a soft shadow."""
    light = np.ones((SIDE, SIDE))
    for _ in range(stream.between(2, 3)):
        cosine, sine = direction(stream.below(64))
        away, inward = stream.between(60, 110), stream.between(-34, 34)
        x, y = SIDE / 2 + away * cosine, SIDE / 2 + away * sine
        across = np.sqrt((X - x) * (X - x) + (Y - y) * (Y - y)) - (away + inward) + 7.0 * warp
        crest = np.maximum(1 - np.abs(across + 3.5) / 5.5, 0)
        shadow = np.maximum(1 - np.abs(across - 4.0) / 10.0, 0)
        light = light * (1 + 0.15 * crest * crest) * (1 - 0.33 * shadow * shadow)
    return light


def _with_vessels(stream: Stream, colors: Field) -> Field:
    lines = curves(stream, stream.between(5, 8), length=(20, 60), bend=14)
    faint = np.clip(0.62 + 0.9 * smooth(stream, 16), 0, 1)
    dark = (lines * faint)[..., None]
    absorbed: Field = colors * (1 - dark * np.array([0.13, 0.32, 0.26]))
    return absorbed


def _add_polyp(colors: Field, spot: Spot, *, light: Field, side: int, grain: Field) -> None:
    """Blend one dome into the picture: contact shadow, shading, a wet highlight."""
    radius = spot.lesion.radius
    cosine, sine = direction(side)
    toward = (cosine * spot.across + sine * spot.down) / radius
    rise = np.clip(spot.depth / (0.75 * radius), 0, 1)
    rise = rise * (2 - rise)
    rim = np.clip(1 + spot.depth / 5.0, 0, 1)
    shadow = 1 - 0.34 * rim * rim * np.clip(0.75 - 0.5 * toward, 0, 1)
    lit = np.clip(0.35 + 0.65 * light[spot.window], 0.6, 1.1)
    shade = (
        lit * (0.68 + 0.34 * rise + 0.12 * np.clip(toward, -1, 1)) * (1 + 0.16 * grain[spot.window])
    )
    body = np.array(COLORS[spot.color]) * shade[..., None]
    body = body + (_GLARE - body) * _highlight(spot, cosine, sine)[..., None]
    cover = np.clip(spot.depth + 0.5, 0, 1)[..., None]
    ground = colors[spot.window] * shadow[..., None]
    colors[spot.window] = ground + (body - ground) * cover


def _highlight(spot: Spot, cosine: float, sine: float) -> Field:
    """A soft glint on the lit side: 0 to 0.45."""
    radius = spot.lesion.radius
    width = 0.16 * radius + 0.9
    along = cosine * spot.across + sine * spot.down - 0.36 * radius
    aside = cosine * spot.down - sine * spot.across
    near = (along * along + 0.4 * aside * aside) / (width * width)
    glint = np.maximum(1 - near, 0)
    return 0.45 * glint * glint


def _add_glare(stream: Stream, colors: Field, *, count: int) -> None:
    """Small soft reflections of wet mucosa, at most 2 px in radius."""
    for _ in range(count):
        x, y = stream.between(14, 82) + 0.25, stream.between(14, 82) + 0.25
        cosine, sine = direction(stream.below(64))
        long_px = 1.5 + stream.below(5) / 4
        along = cosine * (X - x) + sine * (Y - y)
        aside = cosine * (Y - y) - sine * (X - x)
        near = (along * along) / (long_px * long_px) + (aside * aside) / 1.4
        glint = np.maximum(1 - near, 0)[..., None]
        colors += (_GLARE - colors) * (0.7 * glint)


def _frame() -> Field:
    """Black corners with an edge of one pixel, and a slight vignette."""
    near = np.minimum(X, SIDE - X) + np.minimum(Y, SIDE - Y) - _CORNER_PX
    return np.clip(near / 1.41421356 + 0.5, 0, 1)

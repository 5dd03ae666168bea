"""What Florence-2 writes, as polygons, and polygons as a mask.

A place in the picture is two tokens, ``<loc_X><loc_Y>``, in thousandths of its width and
height; a polygon is a row of them, ``<sep>`` stands between polygons, ``<poly>`` and
``</poly>`` may enclose those of one thing. Any other token ends the row. What is read and
what is not follows transformers' ``Florence2PostProcessor``:

- of a row shorter than four tokens, whatever they are, nothing is read;
- places that another token than ``<sep>`` follows are dropped, unless they end the row;
- of an odd number of tokens the last is dropped;
- a place is the middle of its thousandth.

Conventions: a *symbol* is a number from 0 to 999 (a location), or one of `SEPARATOR`,
`START`, `END` and `WORD` (any other token). Points are ``(x, y)``, shares of width and height.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

BINS = 1000
SEPARATOR, START, END, WORD = -1, -2, -3, -4
_SHORTEST_ROW = 4

Point = tuple[float, float]


def read_polygons(symbols: Iterable[int]) -> list[list[Point]] | None:
    """The polygons of what was written; None where nothing in it is an answer.

    A polygon may have fewer than three points: it is an answer, and covers nothing.
    """
    found: list[list[Point]] = []
    for is_word, group in groupby(symbols, key=lambda symbol: symbol == WORD):
        row = list(group)
        if is_word or len(row) < _SHORTEST_ROW or not _begins(row):
            continue
        for part in _enclosed(row):
            found += [_points(places) for places in _places(part)]
    return found or None


def _begins(row: Sequence[int]) -> bool:
    """Whether something to read stands behind the row's first place."""
    rest = row[1:] if row[0] >= 0 else row
    return any(symbol >= 0 or symbol == START for symbol in rest)


def _enclosed(row: Sequence[int]) -> list[list[int]]:
    """What stands between each pair of brackets; the whole row where there is none."""
    if START not in row or END not in row:
        return [list(row)]
    parts, start = [], None
    for place, symbol in enumerate(row):
        if symbol == START and start is None:
            start = place + 1
        elif symbol == END and start is not None:
            parts.append(list(row[start:place]))
            start = None
    return parts


def _places(part: Sequence[int]) -> list[list[int]]:
    """Rows of locations that a separator or the end follows."""
    found, own = [], list[int]()
    for symbol in [*part, SEPARATOR]:
        if symbol >= 0:
            own.append(symbol)
            continue
        if own and symbol == SEPARATOR:
            found.append(own)
        own = []
    return found


def _points(places: Sequence[int]) -> list[Point]:
    shares = [(place + 0.5) / BINS for place in places[: len(places) // 2 * 2]]
    return list(zip(shares[::2], shares[1::2], strict=True))


def fill(polygons: Sequence[Sequence[Point]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The union of polygons as a mask ``(height, width)``; their outlines belong to them."""
    height, width = size
    mask = Image.new("1", (width, height))
    draw = ImageDraw.Draw(mask)
    for polygon in polygons:
        if len(polygon) > 2:
            draw.polygon([(int(x * width), int(y * height)) for x, y in polygon], fill=1)
    return np.array(mask)

"""What a mask says in words: how many targets, how large, and where.

Conventions: a mask is bool ``(H, W)``; a *component* is a set of foreground pixels
joined through their edges (not corners), numbered in the order in which a reader meets
them, row by row. Areas are fractions of the image. Places are the cells of a 3 x 3 grid
of true thirds of height and width; the words of the middle row and column are left out
("right", not "center right").

The thresholds are those of the paper's own script (branch ``old`` of its code), with two
repairs. It compared a component's horizontal centre with thirds of the image *height*,
which moves the words to the right on wide images; here it is the width. And it counted
specks in number and place which it left out of the size; here they are left out of all.

Sources: arXiv 2308.07706 and github naamiinepal/medvlsm.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SPECK = 1e-4
"""Components of at most this area are noise of an annotation tool."""

# Smallest area, exclusive, of each size; what is none of them and not tiny is small.
_LARGE, _MEDIUM, _TINY = 0.30, 0.08, 0.001
SIZES = ("tiny", "small", "medium", "large")

# A cell counts as touched when it holds this share of the component.
_TOUCHED = 0.10
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    *("nineteen", "twenty"),
)


class MaskWords(NamedTuple):
    """The words of a mask with something in it: lower case, lists joined by a comma."""

    number: str
    size: str
    location: str


class Component(NamedTuple):
    """One connected component: its pixels' rows and columns, ``(K,)`` each, and the mask's shape.

    Pixels and not a mask of its own: a noisy mask has thousands of components.
    """

    ys: NDArray[np.intp]
    xs: NDArray[np.intp]
    height: int
    width: int

    @property
    def area(self) -> float:
        """Share of the image."""
        return len(self.ys) / (self.height * self.width)


def describe(mask: NDArray[np.bool_]) -> MaskWords | None:
    """Number, size and location of what a mask shows; None where it is empty.

    Sizes are the set of the components' sizes, smallest first; locations are listed per
    component. Of a mask that holds specks alone the largest is described.

    Example:
        >>> mask = np.zeros((30, 60), dtype=bool)
        >>> mask[2:8, 4:16] = mask[22:28, 44:56] = True
        >>> describe(mask)
        MaskWords(number='two', size='small', location='top left, bottom right')
    """
    found = components(mask)
    if not found:
        return None
    kept = [c for c in found if c.area > SPECK] or [max(found, key=lambda c: c.area)]
    sizes = {size_word(component.area) for component in kept}
    return MaskWords(
        number_word(len(kept)),
        ", ".join(word for word in SIZES if word in sizes),
        ", ".join(map(place_word, kept)),
    )


def middle_cell(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Row and column of the grid cell of the middle of the box around a whole mask, not empty."""
    ys, xs = np.nonzero(mask)
    return _cell_of_middle(Component(ys, xs, *mask.shape))


def components(mask: NDArray[np.bool_]) -> list[Component]:
    """The connected components of a mask, in the order in which a reader meets them."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    ys, xs = np.nonzero(labels)
    owners = labels[ys, xs]
    order = np.argsort(owners, kind="stable")
    ends = np.cumsum(np.bincount(owners, minlength=count + 1)[1:])[:-1]
    parts = zip(np.split(ys[order], ends), np.split(xs[order], ends), strict=True)
    return [Component(y, x, *mask.shape) for y, x in parts] if count else []


def number_word(count: int) -> str:
    """A number in words; beyond twenty it is ``many``."""
    return NUMBERS[count] if count < len(NUMBERS) else "many"


def size_word(area: float) -> str:
    """The size of a component that takes the share `area` of the image.

    Example:
        >>> size_word(0.08), size_word(0.081)
        ('small', 'medium')
    """
    if area > _LARGE:
        return "large"
    if area > _MEDIUM:
        return "medium"
    return "tiny" if area < _TINY else "small"


def place_word(component: Component) -> str:
    """The cell a component lies in.

    It is the one cell that holds a tenth of the component or more; where several do, the
    cell of the middle of its bounding box.
    """
    touched = np.argwhere(_shares(component) >= _TOUCHED)
    row, column = touched[0] if len(touched) == 1 else _cell_of_middle(component)
    return f"{_ROWS[row]} {_COLUMNS[column]}".strip() or "center"


def _shares(component: Component) -> NDArray[np.float64]:
    """Share of the component in each cell, ``(3, 3)``, rows first."""
    rows = _third(component.ys, component.height)
    columns = _third(component.xs, component.width)
    return np.bincount(3 * rows + columns, minlength=9).reshape(3, 3) / len(rows)


def _cell_of_middle(component: Component) -> tuple[int, int]:
    ys, xs, height, width = component
    # Twice the middle in twice the side: everything stays a whole number.
    row = _third(ys.min() + ys.max(), 2 * height)
    return int(row), int(_third(xs.min() + xs.max(), 2 * width))


def _third(position: Any, side: int) -> Any:
    """Which third of a side a pixel lies in, counted from 0 as in the paper's script."""
    return 3 * position // side

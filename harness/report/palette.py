"""The colours of pages and charts, for light and dark.

Conventions: a colour has a name and two values, ``#rrggbb``. Charts are drawn in the light
values; on a page each of them becomes the variable ``--name``, so that one drawing serves both
themes. Light values are all different, which makes that exchange exact. Text colours have a
contrast of at least 4.5 with `paper` and `panel` (WCAG AA), hues at least 3.

The hues follow Okabe and Ito's set for colour-blind readers (jfly.uni-koeln.de/color, 2008),
made darker on white and lighter on black; charts also tell series apart by shape.
"""

from typing import NamedTuple


class Colour(NamedTuple):
    """One colour in both themes."""

    light: str
    dark: str


PALETTE: dict[str, Colour] = {
    "paper": Colour("#ffffff", "#10151c"),
    "panel": Colour("#f5f7fa", "#19212b"),
    "ink": Colour("#17202b", "#e9eef4"),
    "muted": Colour("#566272", "#a6b2c0"),
    "line": Colour("#d5dbe3", "#33404e"),
    "zero": Colour("#8a94a1", "#738294"),
    "accent": Colour("#0b5cad", "#7ab8ff"),
    "blue": Colour("#0068a8", "#5ab4f0"),
    "orange": Colour("#b8500a", "#f29b55"),
    "green": Colour("#00735a", "#3fc9a3"),
    "purple": Colour("#8f3d74", "#e08fc6"),
    "ochre": Colour("#8a6200", "#e3b94a"),
    "grey": Colour("#636d79", "#9ba7b4"),
    "wash_good": Colour("#e3f3ee", "#143029"),
    "wash_bad": Colour("#fbeadd", "#38241a"),
    "wash_calm": Colour("#e6eff8", "#16293b"),
    "wash_mute": Colour("#eceff3", "#212b36"),
}

HUES = ("blue", "orange", "green", "purple", "ochre", "grey")
"""Names for series, in the order in which they are taken."""


def light(name: str) -> str:
    """A colour as charts are drawn."""
    return PALETTE[name].light


def stylesheet() -> str:
    """The variables of both themes: the reader's choice, else the system's; paper is light."""
    bright, dim = (
        "".join(f"--{name}:{colour[k]};" for name, colour in PALETTE.items()) for k in (0, 1)
    )
    return (
        f":root{{color-scheme:light;{bright}}}\n"
        "@media (prefers-color-scheme:dark){:root:not([data-theme=light])"
        f"{{color-scheme:dark;{dim}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dim}}}\n"
        f"@media print{{:root,:root[data-theme],:root:not([data-theme=light])"
        f"{{color-scheme:light;{bright}}}}}\n"
    )


def themed(drawing: str) -> str:
    """A drawing with every colour of the palette replaced by its variable.

    Example:
        >>> themed('<path fill="#0068a8"/>')
        '<path fill="var(--blue)"/>'
    """
    for name, colour in PALETTE.items():
        drawing = drawing.replace(f'"{colour.light}"', f'"var(--{name})"')
    return drawing

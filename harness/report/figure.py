"""A figure: panels drawn by Altair, their colours and data, and the ways to write them.

Conventions: a colour has a name and two values, ``#rrggbb``. A chart is drawn in the light colours
at the size in which it is read, `WIDTH` pixels where several stand side by side, so that it is
legible on a telephone. Drawings are SVG without script; on a page each colour becomes the variable
``--name``, so that one drawing serves both themes. Light values are all different, which makes
that exchange exact. Text colours have a contrast of at least 4.5 with `paper` and `panel` (WCAG
AA), hues at least 3. The hues follow Okabe and Ito's set for colour-blind readers
(jfly.uni-koeln.de/color, 2008), made darker on white and lighter on black, and go on
beyond its six; charts also tell series apart by shape.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from harness.files.writing import replace_together
from harness.report.sheet import csv_text

if TYPE_CHECKING:
    from markupsafe import Markup


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
    "red": Colour("#c2273d", "#ff8095"),
    "lime": Colour("#5f7a00", "#b9d24f"),
    "teal": Colour("#007d8f", "#4fd0e0"),
    "violet": Colour("#5b46b8", "#a99bff"),
    "brown": Colour("#7a4a21", "#d6a47c"),
    "wash_good": Colour("#e3f3ee", "#143029"),
    "wash_bad": Colour("#fbeadd", "#38241a"),
    "wash_calm": Colour("#e6eff8", "#16293b"),
    "wash_mute": Colour("#eceff3", "#212b36"),
}

HUES = (
    "blue",
    "orange",
    "green",
    "purple",
    "ochre",
    "grey",
    "red",
    "teal",
    "lime",
    "violet",
    "brown",
)
"""Names for series, in the order in which they are taken: one each for the sets of the paper."""


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


WIDTH = 350
"""Pixels of a panel: what a window of 400 pixels can show."""
LONGEST_NAME = 34
FONT = "Helvetica, Arial, Liberation Sans, sans-serif"
"""One set of metrics nearly everywhere, so that text is as wide as it was measured."""
PNG_PIXELS = 3
"""Dots a pixel of the written pictures: 288 dots an inch."""


class Panel(NamedTuple):
    """One chart with what it is called and what it says, for those who do not see it."""

    title: str
    description: str
    chart: Any


@dataclass(frozen=True)
class Figure:
    """Panels that are read together."""

    name: str  # of its files, letters and dashes
    title: str
    caption: str  # how to read it; what its intervals are
    panels: tuple[Panel, ...]
    data: pl.DataFrame  # every figure that is drawn
    columns: int = 3  # panels side by side in a written picture
    # What another process draws meanwhile (`ChartRenderer`).
    svgs: "Future[list[str]] | None" = field(default=None, compare=False, repr=False)

    @property
    def csv(self) -> str:
        """The data as CSV."""
        return csv_text(self.data)

    @property
    def drawings(self) -> "Iterator[Markup]":
        """Each panel as SVG for a page."""
        made = self.svgs.result() if self.svgs else map(_svg, map(specification, self.panels))
        for place, (panel, svg) in enumerate(zip(self.panels, made, strict=True)):
            yield placed(panel, svg, f"{self.name}-{place}")

    def chart(self) -> Any:
        """All panels as one Altair chart."""
        import altair as alt

        if len(self.panels) == 1:
            return alt.Chart.from_dict(specification(self.panels[0]))
        charts = [p.chart.properties(title=cut(p.title, 48)) for p in self.panels]
        return alt.concat(*charts, columns=self.columns).configure(**look())

    def _repr_mimebundle_(self, *_: Any, **__: Any) -> Any:
        """As Altair shows it in a notebook."""
        return self.chart()._repr_mimebundle_()


def cut(name: str, longest: int = LONGEST_NAME) -> str:
    """A name short enough for a chart; its end tells more than its middle.

    Example:
        >>> cut("a-model-with-a-long-name-v2", 20)
        'a-model-wi…g-name-v2'
    """
    printable = "".join(c if c.isprintable() else "?" for c in name)
    if len(printable) <= longest:
        return printable
    tail = longest // 2 - 1
    return f"{printable[: longest - tail - 1]}…{printable[-tail:]}"


def look() -> dict[str, Any]:
    """The configuration that all charts share."""
    ink, muted, line = light("ink"), light("muted"), light("line")
    return {
        "font": FONT,
        "background": "transparent",
        "aria": False,
        "view": {"stroke": None},
        "axis": {
            "labelColor": muted,
            "titleColor": ink,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "gridColor": line,
            "domainColor": line,
            "tickColor": line,
            "labelLimit": 200,
            "titlePadding": 6,
        },
        "title": {"color": ink, "fontSize": 13, "anchor": "start", "fontWeight": "bold"},
        "text": {"color": ink, "fontSize": 12},
    }


_FIT = {"type": "fit", "contains": "padding"}


def _is_fitted(spec: Mapping[str, Any]) -> bool:
    """A row of charts cannot be fitted to a width: it is sized by its parts."""
    return "hconcat" not in spec


def specification(panel: Panel, *, title: bool = True) -> dict[str, Any]:
    """A panel in Vega-Lite: `WIDTH` wide with all its labels, unless it says otherwise."""
    spec: dict[str, Any] = panel.chart.to_dict(validate=False)
    spec["config"] = look()
    if _is_fitted(spec):
        spec["autosize"] = _FIT
    if title:
        spec["title"] = cut(panel.title, 48)
    return spec


def drawing(panel: Panel, name: str, *, title: bool = True) -> "Markup":
    """A panel as SVG for a page."""
    return placed(panel, _svg(specification(panel, title=title)), name)


def placed(panel: Panel, svg: str, name: str) -> "Markup":
    """A drawn panel for a page: named, in the theme's colours, its ids its own."""
    from markupsafe import Markup, escape

    numbers: dict[str, int] = {}
    svg = re.sub("<[^>]+>", lambda tag: _own(tag[0], name, numbers), svg)
    told = (
        f'role="img" aria-labelledby="{name}-t {name}-d"><title id="{name}-t">'
        f'{escape(panel.title)}</title><desc id="{name}-d">{escape(panel.description)}</desc>'
    )
    head, _, rest = svg.partition(">")
    return Markup(f"{head} {told}{rest}")  # vl-convert escapes every text it draws


_NEEDLESS = re.compile(
    r' (?:(?:role|aria-[a-z]+|pointer-events|font-family)="[^"]*"|class="(?!marks)[^"]*"'
    r'|(?:opacity|stroke-width)="1")'
)
_DIGITS = re.compile(r"(\d\.\d\d)\d+")
_DRAWS_NOTHING = re.compile(r'<path [^>]*d="(?:M0,0h0v0h0Z)?"[^>]*/>')


def _own(tag: str, name: str, numbers: dict[str, int]) -> str:
    """A tag in the theme's colours, with ids of its own; texts between tags stay as they are.

    What Vega says to its own scripts, what is the default and digits that no screen shows are half
    of a drawing. One picture has one role: those of its parts say nothing to a reader.
    """
    if _DRAWS_NOTHING.fullmatch(tag):
        return ""
    bare = _NEEDLESS.sub("", tag)
    if "href=" not in bare:
        bare = _DIGITS.sub(r"\1", bare)

    def named(found: re.Match[str]) -> str:
        # Vega counts them through all drawings of a process.
        return f"{name}-{found[1]}{numbers.setdefault(found[0], len(numbers))}"

    return themed(re.sub(r"\b(clip|gradient_)\d+", named, bare))


def _svg(spec: dict[str, Any]) -> str:
    import vl_convert

    return str(vl_convert.vegalite_to_svg(spec))


_DRAW = """
import json, sys, vl_convert
for line in sys.stdin:
    print(json.dumps([vl_convert.vegalite_to_svg(spec) for spec in json.loads(line)]), flush=True)
"""


class ChartRenderer:
    """Draws figures in another process while this one goes on.

    Drawing holds Python's lock, so that a thread alone would not do. The interpreter is started
    bare, so that it does not matter what the program around this one is.
    """

    def __enter__(self) -> "ChartRenderer":
        command = [sys.executable, "-I", "-c", _DRAW]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._pool = ThreadPoolExecutor(max_workers=1)  # answers come in the order of questions
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._process.communicate()

    def start(self, figure: Figure) -> Figure:
        """Begin to draw a figure; returns it with what will be drawn."""
        specs = [specification(panel) for panel in figure.panels]
        return replace(figure, svgs=self._pool.submit(self._drawn, json.dumps(specs)))

    def _drawn(self, specs: str) -> list[str]:
        assert self._process.stdin is not None, "both ends are pipes"
        assert self._process.stdout is not None, "both ends are pipes"
        self._process.stdin.write(f"{specs}\n".encode())
        self._process.stdin.flush()
        return [str(svg) for svg in json.loads(self._process.stdout.readline())]


def write_figure(figure: Figure, folder: Path) -> list[Path]:
    """Write a figure for print: SVG, PDF and PNG on white, and its data."""
    import vl_convert

    spec = figure.chart().to_dict()
    spec["background"] = light("paper")
    made: dict[str, bytes] = {
        "svg": vl_convert.vegalite_to_svg(spec).encode(),
        "pdf": vl_convert.vegalite_to_pdf(spec),
        "png": vl_convert.vegalite_to_png(spec, scale=PNG_PIXELS),
        "csv": figure.csv.encode(),
    }
    contents = {folder / f"{figure.name}.{kind}": content for kind, content in made.items()}
    replace_together(contents)
    return list(contents)

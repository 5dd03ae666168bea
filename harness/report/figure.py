"""A figure: panels drawn by Altair, their data, and the ways to write them.

Conventions: a chart is drawn in the palette's light colours at the size in which it is read,
`WIDTH` pixels where several stand side by side, so that it is legible on a telephone. Drawings
are SVG without script; on a page their colours are variables and follow the theme.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from harness.report.palette import light, themed
from harness.report.sheet import csv_text

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH = 350
"""Pixels of a panel: what a window of 400 pixels can show."""
LONGEST_NAME = 34
PNG_PIXELS = 3
"""Dots a pixel of the written pictures: 288 dots an inch."""


class Panel(NamedTuple):
    """One chart with what it is called and what it says, for those who do not see it."""

    title: str
    description: str
    chart: Any


@dataclass(frozen=True)
class Figure:
    """Panels that are read together.

    Attributes:
        name: Of its files, letters and dashes.
        title: Heading.
        caption: How to read it; what its intervals are.
        panels: The charts.
        data: Every figure that is drawn.
        columns: Panels side by side in a written picture.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    data: pl.DataFrame
    columns: int = 3

    @property
    def csv(self) -> str:
        """The data as CSV."""
        return csv_text(self.data)

    @property
    def drawings(self) -> "Iterator[Markup]":
        """Each panel as SVG for a page."""
        for place, panel in enumerate(self.panels):
            yield drawing(panel, f"{self.name}-{place}")

    def chart(self) -> Any:
        """All panels as one Altair chart."""
        import altair as alt

        charts = [styled(p.chart, title=p.title) for p in self.panels]
        if len(charts) == 1:
            return charts[0]
        return configured(alt.concat(*(unstyled(c) for c in charts), columns=self.columns))


def cut(name: str, longest: int = LONGEST_NAME) -> str:
    """A name short enough for a chart; its end tells more than its middle.

    Example:
        >>> cut("phantom-biomedclipseg-d-crowd", 20)
        'phantom-bi…d-d-crowd'
    """
    printable = "".join(c if c.isprintable() else "?" for c in name)
    if len(printable) <= longest:
        return printable
    tail = longest // 2 - 1
    return f"{printable[: longest - tail - 1]}…{printable[-tail:]}"


def configured(chart: Any) -> Any:
    """The look that all charts share."""
    ink, muted, line = light("ink"), light("muted"), light("line")
    axis = {
        "labelColor": muted, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12,
        "titleFontWeight": "normal", "gridColor": line, "domainColor": line, "tickColor": line,
        "labelLimit": 200, "titlePadding": 6,
    }  # fmt: skip
    return (
        chart.configure(font="sans-serif", background="transparent", aria=False)
        .configure_view(stroke=None)
        .configure_axis(**axis)
        .configure_legend(
            labelColor=ink, titleColor=muted, labelFontSize=12, titleFontSize=12, orient="bottom",
            titleFontWeight="normal", labelLimit=300, columns=2, symbolStrokeWidth=2,
        )
        .configure_title(color=ink, fontSize=13, anchor="start", fontWeight="bold", offset=8)
        .configure_text(color=ink, fontSize=12)
    )  # fmt: skip


def styled(chart: Any, *, title: str = "") -> Any:
    """A chart in the shared look, `WIDTH` wide with all its labels unless it says otherwise."""
    fitted = chart.properties(autosize={"type": "fit", "contains": "padding"})
    if title:
        fitted = fitted.properties(title=cut(title, 48))
    return configured(fitted)


def unstyled(chart: Any) -> Any:
    """A chart that can stand in a row of others, which have one look together."""
    import altair as alt

    bare = chart.copy()
    bare.config = bare.autosize = alt.Undefined
    return bare


def drawing(panel: Panel, name: str, *, title: bool = True) -> "Markup":
    """A panel as SVG for a page: named, in the theme's colours, its ids its own."""
    from markupsafe import Markup, escape

    svg = themed(_svg(styled(panel.chart, title=panel.title if title else "")))
    svg = re.sub(r"(clip|gradient_)(\d+)", rf"{name}-\1\2", svg)
    told = (
        f'role="img" aria-labelledby="{name}-t {name}-d"><title id="{name}-t">'
        f'{escape(panel.title)}</title><desc id="{name}-d">{escape(panel.description)}</desc>'
    )
    head, _, rest = svg.partition(">")
    return Markup(f"{head} {told}{rest}")  # vl-convert escapes every text it draws


def _svg(chart: Any) -> str:
    import vl_convert

    return str(vl_convert.vegalite_to_svg(chart.to_dict()))


def write_figure(figure: Figure, folder: Path) -> list[Path]:
    """Write a figure for print: SVG, PDF and PNG on white, and its data.

    Returns:
        The paths.
    """
    import vl_convert

    folder.mkdir(parents=True, exist_ok=True)
    spec = figure.chart().configure(background=light("paper"), font="sans-serif").to_dict()
    made: dict[str, bytes] = {
        "svg": vl_convert.vegalite_to_svg(spec).encode(),
        "pdf": vl_convert.vegalite_to_pdf(spec),
        "png": vl_convert.vegalite_to_png(spec, scale=PNG_PIXELS),
        "csv": figure.csv.encode(),
    }
    paths = [folder / f"{figure.name}.{kind}" for kind in made]
    for path, content in zip(paths, made.values(), strict=True):
        path.write_bytes(content)
    return paths

"""Marks that several figures share: a dot with its interval, on rows of words.

Conventions: a frame has the columns `row`, `series`, `value`, `low`, `high` and `hollow`;
limits that are NaN draw no line. Series differ in hue and in shape.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from harness.report.figure import HUES, WIDTH, Panel, cut, light

SHAPES = ("circle", "diamond", "square", "triangle-up", "cross", "triangle-down")
ROW_PX = 15
"""Height of one dot's place."""


def looks(series: Sequence[str]) -> tuple[list[str], list[str]]:
    """A hue and a shape for each series; 11 and 6 share no divisor: no pair comes twice in 66."""
    hues = [light(HUES[k % len(HUES)]) for k in range(len(series))]
    shapes = [SHAPES[k % len(SHAPES)] for k in range(len(series))]
    return hues, shapes


def series_scales(series: Sequence[str]) -> tuple[Any, Any]:
    """Scales of hue and shape."""
    import altair as alt

    hues, shapes = looks(series)
    names = list(series)
    return alt.Scale(domain=names, range=hues), alt.Scale(domain=names, range=shapes)


def dots(
    frame: pl.DataFrame,
    *,
    rows: Sequence[str],
    series: Sequence[str],
    domain: tuple[float, float],
    title: str,
    labels: bool = True,
    lanes: Sequence[str] = (),
) -> Any:
    """Dots with intervals, a row of words each, one place within it a series.

    Rows are in order from the top, series in order of hues; `lanes` are values of the column
    `lane`, in order, where a row has more places than series.
    """
    import altair as alt

    hue, shape = series_scales(series)
    axis = alt.Axis(labelLimit=150, ticks=False, domain=False, grid=False) if labels else None
    base = alt.Chart(frame.with_columns(pl.col("value", "low", "high").clip(*domain))).encode(
        y=alt.Y("row:N", sort=list(rows), title=None, axis=axis)
    )
    field, places = ("lane", lanes) if lanes else ("series", series)
    if len(places) > 1:
        scale = alt.Scale(domain=list(places))
        base = base.encode(yOffset=alt.YOffset(f"{field}:N", scale=scale))
    x = alt.X(
        "value:Q",
        title=title,
        scale=alt.Scale(domain=list(domain), nice=False),
        axis=alt.Axis(tickCount=4, grid=True),
    )
    zero = alt.Chart(pl.DataFrame({"value": [0.0]})).mark_rule(color=light("zero"), strokeWidth=1.5)
    lines = base.transform_filter("isValid(datum.low) && isValid(datum.high)")
    points = base.encode(x=x, shape=alt.Shape("series:N", scale=shape, legend=None))
    stroke = alt.Stroke("series:N", scale=hue, legend=None)
    fill = alt.Fill("series:N", scale=hue, legend=None)
    full = points.transform_filter("!datum.hollow").mark_point(opacity=1, size=50)
    hollow = points.transform_filter("datum.hollow").mark_point(
        opacity=1, size=45, strokeWidth=1.8, fill=light("paper")
    )
    return alt.layer(
        zero.encode(x="value:Q"),
        lines.mark_rule(strokeWidth=2).encode(
            x=alt.X("low:Q", title=title), x2="high", stroke=stroke
        ),
        full.encode(fill=fill, stroke=stroke),
        hollow.encode(stroke=stroke),
    )


def height_px(n_rows: int, n_series: int) -> int:
    """Height of a panel of dots."""
    return max(40, n_rows * (ROW_PX * max(1, n_series) + 8))


class Sign(NamedTuple):
    """One entry of a key: what a mark means. Without a hue it is words alone."""

    text: str
    hue: str = ""
    shape: str = "circle"
    hollow: bool = False


def signs_of(series: Sequence[str]) -> list[Sign]:
    """The signs of series in their usual looks."""
    hues, shapes = looks(series)
    return [Sign(text, hue, shape) for text, hue, shape in zip(series, hues, shapes, strict=True)]


def key_panel(signs: Sequence[Sign]) -> Panel:
    """What the marks of a figure mean, once for all its panels."""
    import altair as alt

    entries = pl.DataFrame(
        [{"row": row, **sign._asdict(), "text": cut(sign.text)} for row, sign in enumerate(signs)]
    )
    rows = alt.Scale(domain=[-0.6, len(signs) - 0.4], reverse=True, nice=False)
    y = alt.Y("row:Q", scale=rows, axis=None)
    chart = alt.Chart(entries)
    marks = chart.transform_filter("datum.hue != ''").mark_point(
        size=80, opacity=1, strokeWidth=1.8
    )
    shape = alt.Shape("shape:N", scale=None)
    layers = [
        marks.transform_filter(f"{'' if hollow else '!'}datum.hollow").encode(
            x=alt.value(8),
            y=y,
            shape=shape,
            stroke=alt.Stroke("hue:N", scale=None),
            fill=alt.value(light("paper")) if hollow else alt.Fill("hue:N", scale=None),
        )
        for hollow in (False, True)
    ]
    words = chart.mark_text(align="left").encode(x=alt.value(20), y=y, text="text:N")
    told = "; ".join(sign.text for sign in signs)
    height = 20 * len(signs) + 10
    return Panel("Key", told, alt.layer(*layers, words).properties(width=WIDTH, height=height))


def padded(values: Sequence[float], *, least: tuple[float, float]) -> tuple[float, float]:
    """A domain that holds all finite values and `least`, with a little room.

    Example:
        >>> padded([-40.0, 3.0], least=(-10, 10))
        (-42.5, 12.5)
    """
    finite = [v for v in values if v == v and abs(v) != float("inf")]
    low, high = min([*finite, least[0]]), max([*finite, least[1]])
    room = 0.05 * (high - low)
    return round(low - room, 6), round(high + room, 6)

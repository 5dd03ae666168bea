"""Marks that several figures share: a dot with its interval, on rows of words.

Conventions: a frame has the columns `row`, `series`, `value`, `low`, `high` and `hollow`;
limits that are NaN draw no line. Series differ in hue and in shape.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from harness.report.palette import HUES, light

SHAPES = ("circle", "diamond", "square", "triangle-up", "cross", "triangle-down")
ROW_PX = 15
"""Height of one dot's place."""


def looks(series: Sequence[str]) -> tuple[list[str], list[str]]:
    """A hue and a shape for each series; after six of them no pair comes twice before 36."""
    hues = [light(HUES[k % len(HUES)]) for k in range(len(series))]
    shapes = [SHAPES[(k + k // len(HUES)) % len(SHAPES)] for k in range(len(series))]
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
    legend: bool = True,
) -> Any:
    """Dots with intervals, a row of words each, one place within it a series.

    Args:
        frame: See the conventions.
        rows: In order from the top.
        series: In order of hues.
        domain: Of the values.
        title: Of the axis of values.
        labels: Whether the rows are named.
        legend: Whether the series are.
    """
    import altair as alt

    hue, shape = series_scales(series)
    axis = alt.Axis(labelLimit=120, ticks=False, domain=False, grid=False) if labels else None
    many = len(series) > 1
    shown = alt.Legend(title=None) if legend and many else None
    base = alt.Chart(frame.with_columns(pl.col("value", "low", "high").clip(*domain))).encode(
        y=alt.Y("row:N", sort=list(rows), title=None, axis=axis),
        color=alt.Color("series:N", scale=hue, legend=shown),
    )
    if many:
        base = base.encode(yOffset=alt.YOffset("series:N", sort=list(series)))
    x = alt.X(
        "value:Q",
        title=title,
        scale=alt.Scale(domain=list(domain), nice=False),
        axis=alt.Axis(tickCount=4, grid=True),
    )
    zero = alt.Chart(pl.DataFrame({"value": [0.0]})).mark_rule(color=light("zero"), strokeWidth=1.5)
    lines = base.transform_filter("isValid(datum.low) && isValid(datum.high)")
    points = base.encode(x=x, shape=alt.Shape("series:N", scale=shape, legend=shown))
    paper = light("paper")
    return alt.layer(
        zero.encode(x="value:Q"),
        lines.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high"),
        points.transform_filter("!datum.hollow").mark_point(filled=True, opacity=1, size=50),
        points.transform_filter("datum.hollow").mark_point(
            filled=True, fill=paper, strokeWidth=1.8, opacity=1, size=45
        ),
    )


def height_px(n_rows: int, n_series: int) -> int:
    """Height of a panel of dots."""
    return max(40, n_rows * (ROW_PX * max(1, n_series) + 8))


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

"""The listening map: how far a change of meaning moves the mask, and how far mere wording does.

Conventions: both axes are percent of the mask that moves, 100 (1 - mean agreement), with 95 %
limits, drawn on a square-root scale; a model stands by the *strongest* of its probes on each
axis, as its language verdict does, and how many there were is in the data. The border between
*moves* and *stays* is that of the verdicts.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from harness.report.figure import WIDTH, Figure, Panel, light
from harness.report.marks import Sign, key_panel, series_scales, signs_of
from harness.stats.assessment import Assessment
from harness.stats.language import STAYS

BORDER = round(100 * (1 - STAYS), 6)
KEYS = ("model_id", "dataset", "prompts", "prompt_type")

QUADRANTS = {
    (True, True): "moves with meaning, steady",
    (True, False): "moves with meaning, brittle",
    (False, True): "unmoved",
    (False, False): "brittle only",
}
"""(whether a change of meaning moves the mask, whether wording leaves it) -> name."""

VERDICT_LOOKS = {
    "listening": ("green", "circle"),
    "moved here": ("blue", "diamond"),
    "deaf": ("orange", "square"),
    "unmoved here": ("ochre", "triangle-up"),
    "cannot tell": ("grey", "cross"),
}
"""Language verdict -> hue and shape."""

_POINT = pl.Schema(
    {name: pl.String for name in (*KEYS, "model", "language", "steadiness", "quadrant")}
    | {name: pl.Float64 for name in ("meaning", "meaning_low", "meaning_high")}
    | {"meaning_by": pl.String, "n_meaning": pl.Int64}
    | {name: pl.Float64 for name in ("wording", "wording_low", "wording_high")}
    | {"wording_by": pl.String, "n_wording": pl.Int64}
)


def listening_points(found: Assessment) -> pl.DataFrame:
    """A row for each (model, dataset, prompts, prompt type) that has a place on the map.

    Those without a probe of changed and one of preserved meaning have none.
    """
    rows = found.summary.filter(
        pl.col("n_cases") > 0, pl.col("agreement").is_finite(), pl.col("probe") != "original"
    )
    said = {tuple(getattr(v, k) for k in KEYS): v for v in found.language}
    points = []
    for key, group in rows.group_by(KEYS, maintain_order=True):
        meaning = _strongest(group.filter(pl.col("meaning") == "changed"), "meaning")
        wording = _strongest(group.filter(pl.col("meaning") == "preserved"), "wording")
        if not meaning or not wording:
            continue
        verdict = said.get(key)
        points.append(
            dict(zip(KEYS, key, strict=True))
            | {"model": group["model"][0], **meaning, **wording}
            | {"language": verdict.language if verdict else "cannot tell"}
            | {"steadiness": verdict.steadiness if verdict else "cannot tell"}
            | {"quadrant": QUADRANTS[meaning["meaning"] > BORDER, wording["wording"] <= BORDER]}
        )
    return pl.DataFrame(points, schema=_POINT)


def _strongest(rows: pl.DataFrame, name: str) -> dict[str, Any]:
    """The probe under which the masks agree least."""
    if rows.is_empty():
        return {}
    row = rows.sort("agreement", "probe", "attribute", "split").row(0, named=True)
    label = " ".join(filter(None, (row["probe"], row["attribute"])))
    return {
        name: 100 * (1 - row["agreement"]),
        f"{name}_low": 100 * (1 - row["agreement_high"]),
        f"{name}_high": 100 * (1 - row["agreement_low"]),
        f"{name}_by": label if row["split"] == "test" else f"{label} ({row['split']})",
        f"n_{name}": rows.height,
    }


def listening_map(points: pl.DataFrame, *, numbers: dict[str, int] | None = None) -> Figure | None:
    """One panel a data set, all models in it; None without a point.

    `numbers` says what stands for each model on the map, by `model_id`; in order when left out.
    """
    if points.is_empty():
        return None
    order = points["model_id"].unique(maintain_order=True).to_list()
    numbers = numbers or {model: n for n, model in enumerate(order, start=1)}
    panels = [
        Panel(_set_name(group), _described(group, numbers), _map(group, numbers))
        for _, group in points.group_by(KEYS[1:], maintain_order=True)
    ]
    names = dict(points.select("model_id", "model").iter_rows())
    panels.append(_key(points, {n: names[m] for m, n in numbers.items() if m in names}))
    caption = (
        "Right: a change of meaning moves the mask. Up: other words for the same leave it in "
        f"place. Each model stands by its strongest probe on each axis (the data name it); lines "
        f"are 95 % intervals of that probe, unadjusted; the border lies at {BORDER:g} % of the "
        "mask, where the verdicts have it. A model far right need not move to the right place: "
        "colour and shape show the verdict, which asks for that too."
    )
    return Figure("listening-map", "Listening map", caption, tuple(panels), points)


def _set_name(group: pl.DataFrame) -> str:
    row = group.row(0, named=True)
    source = "" if row["prompts"] == "released" else f", {row['prompts']} prompts"
    return f"{row['dataset']} ({row['prompt_type']}{source})"


def _described(group: pl.DataFrame, numbers: dict[str, int]) -> str:
    told = [
        f"{numbers[r['model_id']]} {r['model']}: {r['quadrant']} (meaning {r['meaning']:.1f} %, "
        f"wording {r['wording']:.1f} %; {r['language']})"
        for r in group.iter_rows(named=True)
    ]
    return "; ".join(told)


_TICKS = [0, 1, 5, 20, 50, 100]


def _x(field: str) -> Any:
    import altair as alt

    return alt.X(
        f"{field}:Q",
        scale=alt.Scale(type="sqrt", domain=[0, 100], nice=False),
        axis=alt.Axis(values=_TICKS, grid=False),
        title="mask moved by a change of meaning, %",
    )


def _y(field: str) -> Any:
    import altair as alt

    return alt.Y(
        f"{field}:Q",
        scale=alt.Scale(type="sqrt", domain=[100, 0], nice=False),
        axis=alt.Axis(values=_TICKS, grid=False),
        title="mask moved by wording alone, %",
    )


def _map(group: pl.DataFrame, numbers: dict[str, int]) -> Any:
    import altair as alt

    drawn = group.with_columns(
        number=pl.col("model_id").replace_strict(numbers, return_dtype=pl.Int64).cast(pl.String),
        **{c: pl.col(c).clip(0, 100) for c in group.columns if group[c].dtype == pl.Float64},
    )
    base = alt.Chart(drawn).encode(color=alt.Color("language:N", scale=_hues(), legend=None))
    rule = base.mark_rule(strokeWidth=1.5, opacity=0.65)
    x, y = _x("meaning"), _y("wording")
    points = base.mark_point(size=90, filled=True, opacity=1)
    layers = [
        *_quadrants(),
        rule.encode(x=_x("meaning_low"), x2="meaning_high", y=y),
        rule.encode(x=x, y=_y("wording_low"), y2="wording_high"),
        points.encode(x=x, y=y, shape=alt.Shape("language:N", scale=_shapes(), legend=None)),
        *_labels(drawn),
    ]
    return alt.layer(*layers).properties(width=WIDTH, height=WIDTH)


def _hues() -> Any:
    import altair as alt

    hues = [light(hue) for hue, _ in VERDICT_LOOKS.values()]
    return alt.Scale(domain=list(VERDICT_LOOKS), range=hues)


def _shapes() -> Any:
    import altair as alt

    shapes = [shape for _, shape in VERDICT_LOOKS.values()]
    return alt.Scale(domain=list(VERDICT_LOOKS), range=shapes)


_WASHES = {
    (True, True): "wash_good",
    (True, False): "wash_bad",
    (False, True): "wash_mute",
    (False, False): "wash_bad",
}


def _quadrants() -> list[Any]:
    """The four fields, each with its name at its foot, where few points lie."""
    import altair as alt

    fields = [
        {
            "left": BORDER if moves else 0.0,
            "right": 100.0 if moves else BORDER,
            "top": 0.0 if steady else BORDER,
            "bottom": BORDER if steady else 100.0,
            "wash": light(_WASHES[moves, steady]),
            "name": name,
        }
        for (moves, steady), name in QUADRANTS.items()
    ]
    chart = alt.Chart(pl.DataFrame(fields))
    rects = chart.mark_rect(stroke=light("paper"), strokeWidth=2).encode(
        x=_x("left"), x2="right", y=_y("top"), y2="bottom", color=alt.Color("wash:N", scale=None)
    )
    words = chart.mark_text(
        align="left", baseline="bottom", dx=5, dy=-5, fontSize=10.5, color=light("muted")
    )
    return [rects, words.encode(x=_x("left"), y=_y("bottom"), text="name:N")]


_PLOT = 0.82 * WIDTH
"""Pixels of the map without its axes."""
Corner = tuple[Any, int, int]
_CORNERS: tuple[Corner, ...] = (
    *(("left", 8, -9), ("right", -8, -9)),
    *(("left", 8, 17), ("right", -8, 17)),
)
"""Where a label may stand beside its point: how it is aligned, and how far off."""

Box = tuple[float, float, float, float]


def _labels(drawn: pl.DataFrame) -> list[Any]:
    """The numbers of models, where they hide least; those whose points touch share one label."""
    import altair as alt

    schema = {"meaning": pl.Float64, "wording": pl.Float64, "number": pl.String, "n": pl.Int64}
    points = drawn.select("meaning", "wording", "number").rows()
    labels = pl.DataFrame(place_labels(points), schema=schema, orient="row")
    return [
        alt.Chart(own)
        .encode(x=_x("meaning"), y=_y("wording"), text="number:N")
        .mark_text(align=align, dx=dx, dy=dy, fontWeight="bold", fontSize=12)
        for n, (align, dx, dy) in enumerate(_CORNERS)
        if (own := labels.filter(pl.col("n") == n)).height
    ]


def place_labels(
    points: Sequence[tuple[float, float, str]],
) -> list[tuple[float, float, str, int]]:
    """Each label with the corner of its point at which it covers least of the others.

    Example:
        >>> [(text, _CORNERS[n][0]) for *_, text, n in place_labels(
        ...     [(50.0, 3.0, "10"), (56.0, 3.0, "2"), (100.0, 9.0, "3")])]
        [('10', 'left'), ('2', 'right'), ('3', 'right')]
    """
    taken = [_box(x, y, ("left", -6, 6), 12) for x, y, _ in points]
    taken += [_box(*place, ("left", 5, -5), 5.4 * len(name)) for place, name in _NAMES_AT]
    found = []
    for x, y, text in merged(points):
        boxes = [_box(x, y, corner, 7 * len(text)) for corner in _CORNERS]
        hidden = [sum(_shared(box, other) for other in taken) + _outside(box) for box in boxes]
        n = hidden.index(min(hidden))
        taken.append(boxes[n])
        found.append((x, y, text, n))
    return found


_NAMES_AT = tuple(
    ((BORDER if moves else 0.0, BORDER if steady else 100.0), name)
    for (moves, steady), name in QUADRANTS.items()
)


def _box(x: float, y: float, corner: Corner, width: float) -> Box:
    """Left, top, right and bottom of a label in pixels."""
    align, dx, dy = corner
    left = math.sqrt(x) / 10 * _PLOT + dx - (width if align == "right" else 0)
    bottom = math.sqrt(y) / 10 * _PLOT + dy + 1
    return left, bottom - 12, left + width, bottom


def _shared(one: Box, other: Box) -> float:
    """Square pixels that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def _outside(box: Box) -> float:
    """As much as a label that is wholly hidden, where its axis or the page would cut it."""
    return 500.0 * (box[0] < 2 or box[2] > _PLOT + 10 or box[3] > _PLOT)


def merged(
    points: Sequence[tuple[float, float, str]], *, apart: float = 0.35
) -> Iterator[tuple[float, float, str]]:
    """Labels of points, one for all that lie closer than `apart` (in square roots of percent).

    Example:
        >>> list(merged([(0.0, 0.0, "1"), (0.1, 0.0, "2"), (81.0, 0.0, "3")]))
        [(0.1, 0.0, '1, 2'), (81.0, 0.0, '3')]
    """
    groups: list[list[tuple[float, float, str]]] = []
    for point in points:
        near = next((g for g in groups if any(_distance(point, p) < apart for p in g)), None)
        if near is None:
            groups.append([point])
        else:
            near.append(point)
    for group in groups:
        yield (
            max(p[0] for p in group), min(p[1] for p in group), ", ".join(p[2] for p in group)
        )  # fmt: skip


def _distance(one: tuple[float, float, str], other: tuple[float, float, str]) -> float:
    return math.hypot(
        *(math.sqrt(a) - math.sqrt(b) for a, b in zip(one[:2], other[:2], strict=True))
    )


def _key(points: pl.DataFrame, names: dict[int, str]) -> Panel:
    """Which number is which model, and which look is which verdict."""
    said = set(points["language"])
    signs = [Sign(v, light(h), s) for v, (h, s) in VERDICT_LOOKS.items() if v in said]
    return key_panel([*signs, *(Sign(f"{n}  {name}") for n, name in sorted(names.items()))])


_OVER = {"dice": "Dice of present targets", "refusal_rate": "refusal rate", "miss_rate": "missed"}


def threshold_figure(curve: pl.DataFrame, names: Mapping[str, str]) -> Figure | None:
    """Refusal against Dice over thresholds, a panel a model and data set; None without a row."""
    if curve.is_empty():
        return None
    panels = []
    for (model_id, dataset), own in curve.group_by("model_id", "dataset", maintain_order=True):
        told = "; ".join(
            f"{r['threshold']:.2f}: Dice {r['dice']:.3f}, refusal rate {r['refusal_rate']:.3f}"
            for r in own.iter_rows(named=True)
        )
        title = f"{names.get(str(model_id), str(model_id))} on {dataset!s}"
        panels.append(Panel(title, told, _over_thresholds(own)))
    caption = (
        "Counted in the one pass of the run. A lower threshold paints more: targets are found, and "
        "what is not there is painted as well. A verdict that holds at one threshold alone is one "
        "of the threshold, not of the model."
    )
    key = key_panel(signs_of(list(_OVER.values())))
    return Figure("thresholds", "Over thresholds", caption, (*panels, key), curve)


def _over_thresholds(own: pl.DataFrame) -> Any:
    import altair as alt

    long = own.select("threshold", *_OVER).unpivot(index="threshold", variable_name="series")
    long = long.with_columns(pl.col("series").replace(_OVER)).filter(pl.col("value").is_finite())
    hue, shape = series_scales(list(_OVER.values()))
    base = alt.Chart(long).encode(
        x=alt.X("threshold:Q", title="threshold", scale=alt.Scale(domain=[0, 1])),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("series:N", scale=hue, legend=None),
    )
    points = base.mark_point(filled=True, size=30, opacity=1)
    marks = points.encode(shape=alt.Shape("series:N", scale=shape, legend=None))
    return (base.mark_line(strokeWidth=1.6) + marks).properties(width=WIDTH - 30, height=200)

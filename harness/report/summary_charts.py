"""Figures of a summary: one attribute changed, the prompt ladder, other sets, agreement.

The first is the paper's figure 3 (arXiv 2308.07706), here with intervals. On the ladder a rung is
the original prompt itself, a probe of the rule ``prompt_type``, or the empty prompt (P0), which is
given to a model trained with others, not a model trained on none.

Conventions: changes are percent of the Dice of the original prompts, or of the reference named;
Dice and agreement are fractions; limits are 95 %, unadjusted. A figure that is undefined
(``baseline too low``) is not drawn and stands in the data with its reason. Meanings are those of
`harness.records.Meaning`.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from harness.report.figure import WIDTH, Figure, Panel, light
from harness.report.marks import (
    Sign,
    dots,
    height_px,
    key_panel,
    looks,
    padded,
    series_scales,
    signs_of,
)
from harness.report.table import AWAY
from harness.suite.schema import Suite

RANDOM, OPPOSITE, OTHER = "random_word", "antonym", "swap_value"
_SIDE_PX = 118
"""Width of one half: two of them and the words of the rows make a panel."""


def attribute_changes(summary: pl.DataFrame) -> pl.DataFrame:
    """The rows of the figure, drawn or not."""
    rows = summary.filter(
        pl.col("perturbation").is_in([RANDOM, OPPOSITE, OTHER]),
        pl.col("attribute").is_not_null(),
        pl.col("n_cases") > 0,
    )
    keys = ("attribute", "split", "prompts", "prompt_type")
    return rows.select(
        "model_id", "model", "dataset", *keys, "probe", "perturbation",
        value="relative_change_percent", low="relative_change_low_percent",
        high="relative_change_high_percent", reason="reason",
        n_samples="n_samples", n_clusters="n_clusters",
    )  # fmt: skip


def attribute_figure(summary: pl.DataFrame, names: dict[str, str]) -> Figure | None:
    """A panel a model; None if no attribute was changed."""
    data = attribute_changes(summary)
    drawn = _label_series(data.filter(pl.col("value").is_finite()))
    if drawn.is_empty():
        return None
    limits = drawn.select("low", "value", "high").fill_nan(0).to_numpy().ravel()
    domain = padded(limits.tolist(), least=(-10.0, 5.0))
    panels = []
    for model_id, name in names.items():
        own = drawn.filter(pl.col("model_id") == model_id)
        if own.height:
            panels.append(Panel(name, _attribute_text(own), _butterfly(own, drawn, domain)))
    panels.append(_attribute_key(drawn))
    sides = set(drawn["side"])
    left, right = (f", {where}" if len(sides) == 2 else "" for where in ("left", "right"))
    told = {
        "random": f"a random uncommon word{f' ({left[2:]})' if left else ''}",
        "value": f"its opposite (filled{right}) or another value of the data set (hollow{right})",
    }
    caption = (
        f"Relative change of Dice when one attribute's value becomes "
        f"{', or '.join(text for side, text in told.items() if side in sides)}. Lines are 95 % "
        "intervals, unadjusted. At zero the word makes no difference to the score; whether the "
        "mask moves is another question (agreement)."
    )
    return Figure("attributes", "One attribute changes", caption, tuple(panels), data)


def _label_series(rows: pl.DataFrame) -> pl.DataFrame:
    """The label of each set: its name, with what tells its forms apart within an attribute."""
    clash = pl.struct("split", "prompts", "prompt_type").n_unique().over("dataset", "attribute") > 1
    full = pl.format("{}/{} {}", "dataset", "split", "prompt_type")
    return rows.with_columns(
        row=pl.col("attribute"),
        series=pl.when(clash).then(full).otherwise("dataset"),
        side=pl.when(pl.col("perturbation") == RANDOM).then(pl.lit("random")).otherwise(
            pl.lit("value")
        ),
        hollow=pl.col("perturbation") == OTHER,
    ).with_columns(lane=pl.format("{} {}", "hollow", "series"))  # fmt: skip


def _attribute_key(drawn: pl.DataFrame) -> Panel:
    signs = signs_of(sorted(set(drawn["series"])))
    if drawn["hollow"].any():
        grey = light("grey")
        signs += [Sign("opposite", grey), Sign("another value of the data set", grey, hollow=True)]
    return key_panel(signs)


def _attribute_text(own: pl.DataFrame) -> str:
    told = [
        f"{r['series']}, {r['row']}, {r['probe']}: {r['value']:.1f} %"
        for r in own.sort("series", "row", "probe").iter_rows(named=True)
    ]
    return "; ".join(told)


def _butterfly(own: pl.DataFrame, everyone: pl.DataFrame, domain: tuple[float, float]) -> Any:
    import altair as alt

    rows = sorted(set(everyone["row"]))
    series = sorted(set(everyone["series"]))
    lanes = sorted(set(everyone.filter(pl.col("side") == "value")["lane"]))
    height = height_px(len(rows), max(len(series), len(lanes)))
    titles = {"random": "random word, %", "value": "other value, %"}
    sides = [side for side in titles if side in set(everyone["side"])]
    halves = []
    for side in sides:
        chart = dots(
            own.filter(pl.col("side") == side),
            rows=rows,
            series=series,
            domain=domain,
            title=titles[side],
            labels=side == sides[0],
            lanes=lanes if side == "value" else (),
        )
        width = _SIDE_PX if len(sides) == 2 else 2 * _SIDE_PX + 10
        halves.append(chart.properties(width=width, height=height))
    return alt.hconcat(*halves, spacing=10)


BESIDE = {"class_only": "class", "other_sample": "other"}
"""Perturbation -> its place beside the ladder."""

_SET = ("dataset", "split", "prompts")


def ladder_rows(summary: pl.DataFrame, suite: Suite) -> pl.DataFrame:
    """Every Dice that has a place on the ladder or beside it, in the column `rung`."""
    rungs = {p.name: p.rungs[0] for p in suite.probes if len(p.rungs) == 1}
    probe, rule = pl.col("probe"), pl.col("perturbation")
    rung = (
        pl.when(probe == "original").then("prompt_type")
        .when(rule == "empty").then(pl.lit("p0"))
        .when(rule == "prompt_type").then(probe.replace_strict(rungs, default=None))
        .when(rule.is_in(list(BESIDE))).then(rule.replace(BESIDE))
    )  # fmt: skip
    rows = summary.with_columns(rung=rung).filter(
        pl.col("rung").is_not_null(), pl.col("attribute").is_null(), pl.col("dice").is_finite()
    )
    kept = ("model_id", "model", *_SET, "prompt_type", "rung", "probe", "dice")
    return rows.select(*kept, "dice_low", "dice_high", "n_samples", "n_clusters").sort(
        "model_id", *_SET, "rung"
    )


def ladder_figure(
    summary: pl.DataFrame, suite: Suite, names: Mapping[str, str], controls: frozenset[str]
) -> Figure | None:
    """A panel a model, a line a set; None where no set has more than its original rung."""
    rows = ladder_rows(summary, suite)
    rows = rows.filter(pl.col("rung").n_unique().over("model_id", *_SET) > 1)
    if rows.is_empty():
        return None
    floors = (
        rows.filter(pl.col("model_id").is_in(list(controls)), pl.col("probe") == "original")
        .group_by(_SET, maintain_order=True)
        .agg(floor=pl.col("dice").max())
    )
    rows = rows.join(floors, on=_SET, how="left", maintain_order="left")
    several = pl.struct("split", "prompts").n_unique().over("dataset") > 1
    rows = rows.with_columns(
        series=pl.when(several).then(pl.format("{}/{}", "dataset", "split")).otherwise("dataset")
    )
    series = sorted(set(rows["series"]))
    steps = sorted(r for r in set(rows["rung"]) if r not in BESIDE.values())
    steps += [name for name in BESIDE.values() if name in set(rows["rung"])]
    panels = []
    for model_id, name in names.items():
        own = rows.filter(pl.col("model_id") == model_id)
        if own.height:
            panels.append(Panel(name, _ladder_text(own), _ladder_panel(own, steps, series)))
    panels.append(key_panel(signs_of(series)))
    caption = (
        "Dice as the prompt grows from nothing (p0) to all attributes; right of the ladder the "
        "class word alone and another sample's prompt, against the sample's own mask. Bars are "
        "95 % intervals. Dashed: the best image-only control on the same set. A model that uses "
        "its prompt climbs; one whose line is flat draws the same mask whatever it is told."
    )
    return Figure("ladder", "Prompt ladder", caption, tuple(panels), rows.drop("series"))


def _ladder_text(own: pl.DataFrame) -> str:
    return "; ".join(
        f"{r['series']} {r['rung']}: {r['dice']:.3f}" for r in own.iter_rows(named=True)
    )


def _ladder_panel(own: pl.DataFrame, steps: list[str], series: list[str]) -> Any:
    import altair as alt

    hue, shape = series_scales(series)
    axis = alt.Axis(labelAngle=0)
    x = alt.X("rung:N", sort=steps, title=None, scale=alt.Scale(domain=steps), axis=axis)
    y = alt.Y("dice:Q", title="Dice", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5))
    color = alt.Color("series:N", scale=hue, legend=None)
    base = alt.Chart(own).encode(x=x, color=color)
    beside = " && ".join(f"datum.rung != '{name}'" for name in BESIDE.values())
    on_ladder = base.transform_filter(beside).mark_line(strokeWidth=1.6, opacity=0.75)
    bars = base.transform_filter("isValid(datum.dice_low)").mark_rule(strokeWidth=1.5)
    points = base.mark_point(filled=True, size=45, opacity=1)
    known = own.filter(pl.col("floor").is_not_null())
    floors = known.unique("series", keep="first", maintain_order=True)
    floor = alt.Chart(floors).mark_rule(strokeDash=[4, 3], opacity=0.8)
    return alt.layer(
        floor.encode(y=alt.Y("floor:Q"), color=color),
        on_ladder.encode(y=y),
        bars.encode(y=alt.Y("dice_low:Q", title="Dice"), y2="dice_high"),
        points.encode(y=y, shape=alt.Shape("series:N", scale=shape, legend=None)),
    ).properties(width=WIDTH, height=230)


MEANINGS = ("preserved", "removed", "destroyed", "changed")


def away_rows(summary: pl.DataFrame) -> pl.DataFrame:
    """The change of each model on each set away from its training, and the control's."""
    away = summary.filter(pl.col("probe") == AWAY, pl.col("relative_change_percent").is_finite())
    several = pl.struct("split", "prompts", "prompt_type").n_unique().over("dataset") > 1
    label = pl.when(several).then(pl.format("{}/{}", "dataset", "split")).otherwise("dataset")
    parts = [
        away.select(
            *("model_id", "model", "dataset", "split", "prompts", "prompt_type"),
            row=label,
            series=pl.lit(series),
            value=f"{figure}_percent",
            low=f"{figure}_low_percent",
            high=f"{figure}_high_percent",
        )
        for series, figure in zip(_SERIES, ("relative_change", "control_change"), strict=True)
    ]
    return pl.concat(parts).filter(pl.col("value").is_finite())


_SERIES = ("model", "control")


def away_figure(summary: pl.DataFrame, names: Mapping[str, str]) -> Figure | None:
    """Change of Dice away from the sets of training beside the control's; None without one."""
    data = away_rows(summary)
    if data.is_empty():
        return None
    limits = data.select("low", "value", "high").fill_nan(0).to_numpy().ravel().tolist()
    domain = padded(limits, least=(-20.0, 10.0))
    panels = [
        Panel(name, _away_text(own), _away_panel(own, domain))
        for model_id, name in names.items()
        if (own := data.filter(pl.col("model_id") == model_id)).height
    ]
    hues, shapes = looks(_SERIES)
    signs = [
        Sign("the model", hues[0], shapes[0]),
        Sign("the image-only control", hues[1], shapes[1], hollow=True),
    ]
    caption = (
        "Relative change of Dice from the test splits of the sets a model was trained on to each "
        "other set. Another set may simply be harder: the hollow mark is the image-only control's "
        "change on the same sets, and only what lies beyond it speaks of the model."
    )
    return Figure("away", "Away from training", caption, (*panels, key_panel(signs)), data)


def _away_text(own: pl.DataFrame) -> str:
    rows = own.iter_rows(named=True)
    return "; ".join(f"{r['row']}, {r['series']}: {r['value']:.1f} %" for r in rows)


def _away_panel(own: pl.DataFrame, domain: tuple[float, float]) -> Any:
    rows = sorted(set(own["row"]))
    chart = dots(
        own.with_columns(hollow=pl.col("series") == "control"),
        rows=rows,
        series=_SERIES,
        domain=domain,
        title="change of Dice, %",
    )
    return chart.properties(width=WIDTH, height=height_px(len(rows), 2) + 45)


def agreement_figure(summary: pl.DataFrame, names: Mapping[str, str]) -> Figure | None:
    """Agreement of the masks against change of Dice, a point a probe; None without one."""
    data = summary.filter(
        pl.col("meaning").is_in(MEANINGS),
        pl.col("relative_change_percent").is_finite(),
        pl.col("agreement").is_finite(),
    ).select(
        "model_id", "model", "dataset", "split", "prompts", "prompt_type", "probe", "attribute",
        "meaning", change="relative_change_percent", change_low="relative_change_low_percent",
        change_high="relative_change_high_percent", agreement="agreement",
        agreement_low="agreement_low", agreement_high="agreement_high",
    )  # fmt: skip
    if data.is_empty():
        return None
    domain = padded(data["change"].to_list(), least=(-20.0, 10.0))
    panels = [
        Panel(name, _agreement_text(own), _scatter(own, domain))
        for model_id, name in names.items()
        if (own := data.filter(pl.col("model_id") == model_id)).height
    ]
    panels.append(key_panel([Sign("what the probe does to the meaning"), *signs_of(MEANINGS)]))
    caption = (
        "Each point is a probe on a data set. Low and left: the mask moves and the score falls. "
        "Low at zero: the mask moves and the score does not tell. Upper corner: nothing happens."
    )
    return Figure("agreement", "Agreement against change", caption, tuple(panels), data)


def _agreement_text(own: pl.DataFrame) -> str:
    counted = own.group_by("meaning", maintain_order=True).agg(
        n=pl.len(), change=pl.col("change").mean(), agreement=pl.col("agreement").mean()
    )
    return "; ".join(
        f"meaning {r['meaning']}: {r['n']} probes, mean change {r['change']:.1f} %, mean agreement "
        f"{r['agreement']:.2f}"
        for r in counted.iter_rows(named=True)
    )


def _scatter(own: pl.DataFrame, domain: tuple[float, float]) -> Any:
    import altair as alt

    hue, shape = series_scales(MEANINGS)
    x = alt.X(
        "change:Q", title="change of Dice, %", scale=alt.Scale(domain=list(domain), nice=False),
        axis=alt.Axis(tickCount=5),
    )  # fmt: skip
    y = alt.Y(
        "agreement:Q", title="agreement", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5)
    )
    points = (
        alt.Chart(own)
        .mark_point(filled=True, opacity=0.75, size=40)
        .encode(
            x=x,
            y=y,
            color=alt.Color("meaning:N", scale=hue, legend=None),
            shape=alt.Shape("meaning:N", scale=shape, legend=None),
        )
    )
    zero = alt.Chart(pl.DataFrame({"change": [0.0]})).mark_rule(color=light("zero")).encode(x=x)
    return (zero + points).properties(width=WIDTH, height=230)


def refusal_figure(summary: pl.DataFrame, names: Mapping[str, str]) -> Figure | None:
    """Refusal rate of each probe for absent things, by its kind; None without one."""
    asked = summary.filter(pl.col("n_samples_refusal") > 0, pl.col("refusal_rate").is_finite())
    if asked.is_empty():
        return None
    several = pl.struct("split", "prompts", "prompt_type").n_unique().over("dataset") > 1
    probe = pl.when(pl.col("probe") == "original").then(pl.lit("own mask empty")).otherwise("probe")
    data = asked.select(
        *("model_id", "model", "dataset", "split", "prompts", "prompt_type", "probe"),
        kind="absent_kind",
        row=pl.coalesce("absent_kind", probe),
        series=pl.when(several).then(pl.format("{}/{}", "dataset", "split")).otherwise("dataset"),
        value="refusal_rate",
        low="refusal_rate_low",
        high="refusal_rate_high",
        painted="false_positive_area",
        aligned="aligned_share",
    )
    series = sorted(set(data["series"]))
    panels = [
        Panel(name, _refusal_text(own), _refusal_panel(own, series))
        for model_id, name in names.items()
        if (own := data.filter(pl.col("model_id") == model_id)).height
    ]
    caption = (
        "Share of prompts for what is not in the picture that are answered with a (nearly) empty "
        "mask, by the kind of thing. Lines are 95 % intervals, unadjusted. At one the model always "
        "refuses, at zero it always paints something. Read it beside the targets it misses."
    )
    return Figure(
        "refusal", "What is not there", caption, (*panels, key_panel(signs_of(series))), data
    )


def _refusal_text(own: pl.DataFrame) -> str:
    rows = own.iter_rows(named=True)
    return "; ".join(f"{r['series']}, {r['row']}: {r['value']:.3f}" for r in rows)


def _refusal_panel(own: pl.DataFrame, series: list[str]) -> Any:
    rows = sorted(set(own["row"]))
    chart = dots(
        own.with_columns(hollow=False),
        rows=rows,
        series=series,
        # Marks at the ends stand clear of the names.
        domain=(-0.05, 1.05),
        title="refusal rate",
    )
    return chart.properties(width=WIDTH - 40, height=height_px(len(rows), len(series)) + 45)

"""The prompt ladder: Dice of prompts with more and more attributes, P0 to P9.

Conventions: Dice in [0, 1] with 95 % limits. A rung is the original prompt itself, a probe of
the rule ``prompt_type``, or the empty prompt (P0); beside the ladder stand the class word alone
and the prompt of another sample. The dashed line is the best image-only control on the same set.
A P0 here is an empty prompt given to a model trained with others, not a model trained on none.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from harness.report.figure import WIDTH, Figure, Panel
from harness.report.marks import key_panel, series_scales, signs_of
from harness.suite.schema import Suite

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
            panels.append(Panel(name, _described(own), _panel(own, steps, series)))
    panels.append(key_panel(signs_of(series)))
    caption = (
        "Dice as the prompt grows from nothing (p0) to all attributes; right of the ladder the "
        "class word alone and another sample's prompt, against the sample's own mask. Bars are "
        "95 % intervals. Dashed: the best image-only control on the same set. A model that uses "
        "its prompt climbs; one whose line is flat draws the same mask whatever it is told."
    )
    return Figure("ladder", "Prompt ladder", caption, tuple(panels), rows.drop("series"))


def _described(own: pl.DataFrame) -> str:
    return "; ".join(
        f"{r['series']} {r['rung']}: {r['dice']:.3f}" for r in own.iter_rows(named=True)
    )


def _panel(own: pl.DataFrame, steps: list[str], series: list[str]) -> Any:
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

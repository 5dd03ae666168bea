"""In against out of distribution, and agreement against change of Dice.

Conventions: changes are percent of a reference Dice, agreement is a fraction, both with 95 %
limits, unadjusted. Meanings are those of `harness.records.Meaning`.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from harness.report.figure import WIDTH, Figure, Panel
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
from harness.report.palette import light
from harness.report.sections import AWAY

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
        Panel(name, _told_away(own), _away_panel(own, domain))
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


def _told_away(own: pl.DataFrame) -> str:
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
        Panel(name, _told(own), _scatter(own, domain))
        for model_id, name in names.items()
        if (own := data.filter(pl.col("model_id") == model_id)).height
    ]
    panels.append(key_panel([Sign("what the probe does to the meaning"), *signs_of(MEANINGS)]))
    caption = (
        "Each point is a probe on a data set. Low and left: the mask moves and the score falls. "
        "Low at zero: the mask moves and the score does not tell. Upper corner: nothing happens."
    )
    return Figure("agreement", "Agreement against change", caption, tuple(panels), data)


def _told(own: pl.DataFrame) -> str:
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

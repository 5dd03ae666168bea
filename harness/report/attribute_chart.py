"""The paper's figure 3: relative change of Dice per attribute and data set.

On the left a random word stands for the attribute's value, on the right its opposite (filled) or
another value of the data set (hollow): arXiv 2308.07706, figure 3, here with intervals.

Conventions: percent of the Dice of the original prompts, 95 % limits, unadjusted. A figure that
is undefined (``baseline too low``) is not drawn and stands in the data with its reason.
"""

from typing import Any

import polars as pl

from harness.report.figure import Figure, Panel
from harness.report.marks import Sign, dots, height_px, key_panel, padded, signs_of
from harness.report.palette import light

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
    drawn = _series(data.filter(pl.col("value").is_finite()))
    if drawn.is_empty():
        return None
    limits = drawn.select("low", "value", "high").fill_nan(0).to_numpy().ravel()
    domain = padded(limits.tolist(), least=(-10.0, 5.0))
    panels = []
    for model_id, name in names.items():
        own = drawn.filter(pl.col("model_id") == model_id)
        if own.height:
            panels.append(Panel(name, _described(own), _butterfly(own, drawn, domain)))
    panels.append(_key(drawn))
    caption = (
        "Relative change of Dice when one attribute's value becomes a random uncommon word "
        "(left), or its opposite (filled, right) or another value of the data set (hollow, "
        "right). Lines are 95 % intervals, unadjusted. At zero the word makes no difference to "
        "the score; whether the mask moves is another question (agreement)."
    )
    return Figure("attributes", "One attribute changes", caption, tuple(panels), data)


def _series(rows: pl.DataFrame) -> pl.DataFrame:
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


def _key(drawn: pl.DataFrame) -> Panel:
    signs = signs_of(sorted(set(drawn["series"])))
    if drawn["hollow"].any():
        grey = light("grey")
        signs += [Sign("opposite", grey), Sign("another value of the data set", grey, hollow=True)]
    return key_panel(signs)


def _described(own: pl.DataFrame) -> str:
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
    halves = []
    for side, title in (("random", "random word, %"), ("value", "other value, %")):
        chart = dots(
            own.filter(pl.col("side") == side),
            rows=rows,
            series=series,
            domain=domain,
            title=title,
            labels=side == "random",
            lanes=lanes if side == "value" else (),
        )
        halves.append(chart.properties(width=_SIDE_PX, height=height))
    return alt.hconcat(*halves, spacing=10)

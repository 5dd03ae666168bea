"""What is read from single cases: the effect of each word, and Dice in sub-groups.

Conventions: changes are percent of the mean Dice of the originals of the same cases, cases
weighted equally, without intervals: they describe this run and decide nothing. Cases without a
score, or with an undefined one, are left out. Means are rounded to nine decimals: their last
digits depend on the order in which threads add.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from harness.metrics import EMPTY_SCORES
from harness.report.figure import WIDTH, Figure, Panel, light
from harness.report.marks import padded
from harness.runs.store import DONE, RunStore
from harness.stats.columns import TOO_LOW, changed_percent
from harness.suite.schema import Suite

SIZES = (("under 1 %", 0.01), ("1 to 5 %", 0.05), ("5 to 15 %", 0.15), ("over 15 %", 1.01))
"""Target size: share of the picture, upper ends exclusive."""

_ROW = ("dataset", "split", "prompts", "prompt_type", "probe", "attribute")


def dice_expression(empty: float) -> pl.Expr:
    """Dice of a row of counts; null where it is undefined."""
    size = pl.col("n_pred") + pl.col("n_gt")
    both = pl.when(size == 0).then(pl.lit(empty)).otherwise(2 * pl.col("tp") / size)
    return both.fill_nan(None)


def case_dice(store: RunStore, suite: Suite) -> pl.LazyFrame:
    """Dice of every scored case: `model_id`, `case_id`, `dice`, and `size` of the target."""
    scores = store.scores_scan().filter(pl.col("status") == DONE)
    pixels = pl.col("height").cast(pl.Float64) * pl.col("width")
    return scores.select(
        "model_id",
        "case_id",
        dice=dice_expression(EMPTY_SCORES[suite.metric.empty]),
        size=pl.col("n_gt") / pixels,
    )


def word_effects(store: RunStore, suite: Suite, summary: pl.DataFrame) -> pl.DataFrame:
    """A row for each random word in each place: the change it makes there.

    Where the run's `summary` says that the originals' Dice is too low, there is none.
    """
    low = summary.filter(pl.col("reason").str.starts_with(TOO_LOW)).select("model_id", *_ROW)
    low = low.with_columns(low=pl.lit(True))
    dice = case_dice(store, suite)
    cases = store.plan_scan().filter(pl.col("word").is_not_null())
    keyed = cases.select("case_id", "original_case_id", *_ROW, "word")
    originals = dice.select("model_id", original_case_id="case_id", before="dice")
    return (
        keyed.join(dice.drop("size"), on="case_id")
        .join(originals, on=["model_id", "original_case_id"])
        .drop_nulls(["dice", "before"])
        .group_by("model_id", *_ROW, "word")
        .agg(n_cases=pl.len(), after=pl.col("dice").mean(), before=pl.col("before").mean())
        .with_columns(
            change_percent=changed_percent(
                pl.col("after"), pl.col("before"), suite.statistics.dice_floor
            )
        )
        .join(low.lazy(), on=["model_id", *_ROW], how="left", nulls_equal=True)
        .with_columns(change_percent=pl.when(pl.col("low").is_null()).then("change_percent"))
        .drop("low")
        .sort("model_id", *_ROW, "word", nulls_last=False)
        .with_columns(pl.selectors.float().round(9))
        .collect(engine="streaming")
    )


def word_figure(effects: pl.DataFrame, names: Mapping[str, str]) -> Figure | None:
    """A panel a model, a tick a word; None without random words."""
    drawn = effects.drop_nulls("change_percent").with_columns(
        row=pl.concat_str(
            "attribute", pl.format("({})", "dataset"), separator=" ", ignore_nulls=True
        )
    )
    if drawn.is_empty():
        return None
    domain = padded(drawn["change_percent"].to_list(), least=(-10.0, 5.0))
    rows = sorted(set(drawn["row"]))
    panels = []
    for model_id, name in names.items():
        own = drawn.filter(pl.col("model_id") == model_id)
        if own.height:
            panels.append(Panel(name, _worst_words(own), _ticks(own, rows, domain)))
    caption = (
        "Each tick is one random word, the same for all samples: the change of mean Dice it makes "
        "in the place of an attribute; the word that costs most is named. Words that spread far "
        "show that the model reacts to the word itself, not to the loss of the right one."
    )
    return Figure("words", "Word by word", caption, tuple(panels), effects)


def _worst_words(own: pl.DataFrame) -> str:
    worst = own.sort("change_percent", "word").group_by("row", maintain_order=True).first()
    return "; ".join(
        f"{r['row']}: worst {r['word']} ({r['change_percent']:.1f} %)"
        for r in worst.sort("row").iter_rows(named=True)
    )


def _ticks(own: pl.DataFrame, rows: list[str], domain: tuple[float, float]) -> Any:
    import altair as alt

    scale = alt.Scale(domain=list(domain), nice=False)
    x = alt.X(
        "change_percent:Q", title="change of Dice, %", scale=scale, axis=alt.Axis(tickCount=4)
    )
    axis = alt.Axis(labelLimit=150, ticks=False, domain=False)
    y = alt.Y("row:N", sort=rows, title=None, axis=axis, scale=alt.Scale(domain=rows))
    ticks = alt.Chart(own).mark_tick(thickness=1.6, size=13, color=light("blue"), opacity=0.8)
    worst = own.sort("change_percent", "word").unique("row", keep="first", maintain_order=True)
    words = alt.Chart(worst).mark_text(
        align="left", dx=-2, dy=-11, fontSize=10, color=light("muted"), limit=90
    )
    zero = alt.Chart(pl.DataFrame({"change_percent": [0.0]})).mark_rule(color=light("zero"))
    layers = (zero.encode(x=x), ticks.encode(x=x, y=y), words.encode(x=x, y=y, text="word:N"))
    return alt.layer(*layers).properties(width=WIDTH, height=34 * len(rows) + 50)


def subgroups(store: RunStore, suite: Suite, modalities: Mapping[str, str]) -> pl.DataFrame:
    """Dice and its change by size of the target, targets a picture, and modality.

    One row a (model, grouping, group, meaning); the originals' own Dice has the meaning
    ``original``.
    """
    dice = case_dice(store, suite)
    plan = store.plan_scan()
    samples = ("dataset", "split", "sample_id")
    targets = (
        plan.select("image_id", *samples).unique().group_by("image_id").agg(n_targets=pl.len())
    )
    is_original = pl.col("case_id") == pl.col("original_case_id")
    originals = (
        plan.filter(is_original)
        .select("case_id", "dataset", "image_id")
        .join(targets, on="image_id")
        .join(dice, on="case_id")
        .drop_nulls("dice")
        .select(
            "model_id", _grouped_by(modalities), original_case_id="case_id", before="dice"
        )
    )  # fmt: skip
    variants = (
        plan.filter(~is_original)
        .select("case_id", "original_case_id", "meaning")
        .join(dice.drop("size"), on="case_id")
        .drop_nulls("dice")
        .group_by("model_id", "original_case_id", "meaning")
        .agg(after=pl.col("dice").mean())
    )
    own = originals.with_columns(meaning=pl.lit("original"), after="before")
    changed = originals.join(variants, on=["model_id", "original_case_id"])
    columns = ["model_id", "groups", "meaning", "before", "after"]
    return (
        pl.concat([own.select(columns), changed.select(columns)])
        .explode("groups", empty_as_null=True, keep_nulls=False)
        .unnest("groups")
        .group_by("model_id", "grouping", "order", "group", "meaning")
        .agg(
            n_samples=pl.len(), dice=pl.col("after").mean(), dice_original=pl.col("before").mean()
        )
        .with_columns(
            change_percent=changed_percent(
                pl.col("dice"), pl.col("dice_original"), suite.statistics.dice_floor
            )
        )
        .sort("model_id", "grouping", "order", "group", "meaning")
        .with_columns(pl.selectors.float().round(9))
        .collect(engine="streaming")
    )  # fmt: skip


def _grouped_by(modalities: Mapping[str, str]) -> pl.Expr:
    """The groups a sample is in, as a list of (grouping, order, group)."""
    size: Any = pl.when(pl.lit(False)).then(pl.lit(""))
    order: Any = pl.when(pl.lit(False)).then(pl.lit(0))
    for place, (name, end) in enumerate(SIZES):
        size = size.when(pl.col("size") < end).then(pl.lit(name))
        order = order.when(pl.col("size") < end).then(pl.lit(place))
    number = pl.col("n_targets").clip(upper_bound=5)
    several = pl.when(number >= 5).then(pl.lit("5 or more")).otherwise(number.cast(pl.String))
    modality = pl.col("dataset").replace_strict(
        dict(modalities), default="not stated", return_dtype=pl.String
    )
    found = (
        ("target's share of the picture", order, size),
        ("targets a picture", number, several),
        ("modality", pl.lit(0), modality),
    )
    groups = [
        pl.struct(grouping=pl.lit(name), order=place.cast(pl.Int32), group=group)
        for name, place, group in found
    ]
    return pl.concat_list(groups).alias("groups")

"""Recipes: several checkpoints of one model that differ by training seed.

A recipe's figure is that of its seeds together: sums over units are means over seeds, so that
the ratio is of mean Dice over seeds and samples. Seeds are a random factor crossed with
clusters (and words): every seed is asked about every cluster.

Conventions: the squared standard error adds the clusters' (and words') part and the seeds'
part; what single (cluster, seed) cells vary is in both, which errs on the safe side. Limits
take each part with its own quantiles, the clusters' from their studentised bootstrap, the
seeds' from Student's t with one degree of freedom less than there are seeds, and add the
squares (the modified large-sample method). Of 95 % intervals over 3 seeds these hold the truth
in 96 to 99 %, Satterthwaite's degrees of freedom in 92 to 97, a bootstrap that resamples seeds in
80 to 97; over 2 seeds in 97 to 99, 88 to 97, 73 to 96 (`reports/seeds.py`).

References:
    R. K. Burdick and F. A. Graybill, Confidence Intervals on Variance Components, 1992, chapter 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import polars as pl

from harness.stats.inference import PIVOT_LEVELS, Floats, Inference
from harness.stats.intervals import QUANTITIES, RATES
from harness.stats.pairs import ModelFacts, Pairs
from harness.stats.relative import ClusterSums

_SUMMED = (
    *("n_failed", "n_missing", "n_original_lost", "n_undefined", "n_cut_away"),
    *("n_both_empty", "n_same_tokens"),
)


class Pooled(NamedTuple):
    """A run's sums with recipes in place of their seeds."""

    pairs: Pairs  # cells of recipes and of models that are in none
    sums: ClusterSums  # the same
    # ``cell, seed`` and sums over all units of each seed's own, for recipes' cells.
    by_seed: pl.DataFrame


def expand(models: Sequence[ModelFacts]) -> list[ModelFacts]:
    """Every model that has scores: of a recipe its seeds."""
    return [
        replace(model, model_id=seed, seeds=())
        for model in models
        for seed in (model.seeds or (model.model_id,))
    ]


def as_recipes(
    frame: pl.DataFrame | pl.LazyFrame, models: Sequence[ModelFacts]
) -> pl.DataFrame | pl.LazyFrame:
    """Rows of seeds under the id of their recipe, for figures that are means over cases."""
    own = {seed: model.model_id for model in models for seed in model.seeds}
    return frame.with_columns(pl.col("model_id").replace(own)) if own else frame


def pool_seeds(pairs: Pairs, sums: ClusterSums, models: Sequence[ModelFacts]) -> Pooled:
    """Put recipes in place of their seeds."""
    if not any(model.seeds for model in models):
        return Pooled(pairs, sums, pl.DataFrame(schema={"cell": pl.UInt32}))
    recipe = {s: m.model_id for m in models for s in (m.seeds or (m.model_id,))}
    ids = tuple(sorted({*recipe.values()}))
    height = pairs.plan.cells.height
    key = pl.DataFrame(
        [
            (old * height + cell, ids.index(recipe[seed]) * height + cell, old, n)
            for old, seed in enumerate(pairs.model_ids)
            for n in [list(recipe.values()).count(recipe[seed])]
            for cell in range(height)
        ],
        schema={"cell": pl.UInt32, "to": pl.UInt32, "seed": pl.UInt32, "of": pl.UInt32},
        orient="row",
    )
    cells = (
        pairs.cells.join(key, on="cell", maintain_order="left")
        .unique("to", keep="first", maintain_order=True)
        .with_columns(
            cell="to",
            model_id=pl.col("model_id").replace(recipe),
            n_cases=pl.col("n_cases") * pl.col("of"),
        )
        .sort("cell")
        .drop("to", "seed", "of")
    )
    units = _keyed(sums.units, key)
    return Pooled(
        replace(pairs, cells=cells, model_ids=ids),
        ClusterSums(
            figures=_of_seeds(_keyed(sums.figures, key)),
            counted=_counted(_keyed(sums.counted, key)),
            units=_means(units, ["to", "unit"]),
            words=_means(_keyed(sums.words, key), ["to", "unit", "word"]),
            originals=_samples(_keyed(sums.originals, key)),
        ),
        units.filter(pl.col("of") > 1)
        .group_by("to", "seed", maintain_order=True)
        .agg(pl.exclude("cell", "unit", "of").sum())
        .rename({"to": "cell"})
        .sort("cell", "seed"),
    )


def _keyed(frame: pl.DataFrame, key: pl.DataFrame) -> pl.DataFrame:
    typed = frame.with_columns(pl.col("cell").cast(pl.UInt32))
    return typed.join(key, on="cell", how="left", maintain_order="left")


def _means(frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Means over seeds; a seed without a row says nothing, and its clusters weigh less."""
    values = pl.exclude("cell", "seed", "of", *keys)
    summed = frame.group_by(keys, maintain_order=True).agg(values.sum() / pl.col("of").first())
    return summed.rename({"to": "cell"}).sort("cell", *keys[1:])


def _of_seeds(figures: pl.DataFrame) -> pl.DataFrame:
    counts = pl.selectors.integer() - pl.selectors.by_name("cell", "to", "seed", "of")
    return (
        figures.group_by("to", maintain_order=True)
        .agg(counts.min(), pl.selectors.float().mean())
        .rename({"to": "cell"})
        .select(c for c in figures.columns if c not in {"to", "seed", "of"})
        .sort("cell")
    )


def _counted(counted: pl.DataFrame) -> pl.DataFrame:
    rest = pl.exclude("cell", "to", "seed", "of", *_SUMMED)
    return (
        counted.group_by("to", maintain_order=True)
        .agg(pl.col(_SUMMED).sum(), rest.max())
        .rename({"to": "cell"})
        .sort("cell")
    )


def _samples(originals: pl.DataFrame) -> pl.DataFrame:
    keys = ["to", "cluster", "unit", "sample"]
    means = originals.group_by(keys, maintain_order=True).agg(pl.col("dice").mean())
    order = ("cell", "cluster", "sample", "dice", "unit")
    return means.rename({"to": "cell"}).select(order).sort("cell", "sample")


class SeedSpread(NamedTuple):
    """How a quantity differs between the seeds of each cell's recipe; NaN without a recipe."""

    deviation: Floats  # standard deviation of the seeds' own figures, ``(P,)``
    share: Floats  # share of the squared standard error that is the seeds', ``(P,)``, in [0, 1]


def add_seeds(
    solved: Mapping[str, Inference], by_seed: pl.DataFrame
) -> tuple[dict[str, Inference], dict[str, SeedSpread]]:
    """Widen the intervals of recipes by what their seeds vary."""
    if by_seed.is_empty():
        size = len(solved["dice"].intervals.estimate)
        nothing = SeedSpread(*np.full((2, size), np.nan))
        return dict(solved), dict.fromkeys(solved, nothing)
    sums = by_seed.with_columns(
        change=pl.col("dice") - pl.col("reference"),
        gain=pl.col("dice_named") - pl.col("own_named"),
    )
    groups = [(cell, rows) for (cell,), rows in sums.group_by("cell", maintain_order=True)]
    wider, spreads = {}, {}
    for quantity, one in solved.items():
        size = len(one.intervals.estimate)
        error, n_seeds = np.zeros(size), np.zeros(size)
        above, below = {**QUANTITIES, **RATES}[quantity]
        for cell, rows in groups:
            n_seeds[cell] = rows.height
            error[cell] = seed_error(rows[above].to_numpy(), rows[below].to_numpy())
        wider[quantity] = with_seeds(one, error, n_seeds)
        whole = wider[quantity].intervals.standard_error
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(whole > 0, error**2 / whole**2, 0.0)
        is_recipe = (n_seeds > 0) & ~np.isnan(whole)
        spreads[quantity] = SeedSpread(
            np.where(is_recipe, error * np.sqrt(n_seeds), np.nan),
            np.where(is_recipe, share, np.nan),
        )
    return wider, spreads


def seed_effects(numerator: Floats, denominator: Floats) -> Floats:
    """How far each seed's ratio lies from that of all seeds, linearised, ``(S,)``.

    Numerator and denominator, which is not negative, are sums of each seed, ``(S,)``.

    Example:
        >>> seed_effects(np.array([6.0, 8.0, 10.0]), np.array([10.0, 10.0, 10.0])).round(3)
        array([-0.2,  0. ,  0.2])
    """
    total = denominator.sum()
    if not total > 0:
        return np.full(len(numerator), np.nan)
    residual = numerator - numerator.sum() / total * denominator
    return np.asarray(residual * len(numerator) / total)


def seed_error(numerator: Floats, denominator: Floats) -> float:
    """The seeds' part of a ratio's standard error; arguments as of `seed_effects`, two or more."""
    effects = seed_effects(numerator, denominator)
    return float(np.sqrt((effects**2).sum() / (len(effects) * (len(effects) - 1))))


def with_seeds(one: Inference, seed_error: Floats, n_seeds: Floats) -> Inference:
    """Intervals that speak of other seeds, too.

    A problem whose `seed_error` and `n_seeds`, ``(P,)``, are 0 stays as it is. Percentile and BCa
    limits, which know nothing of seeds, are NaN in the others.
    """
    from scipy.special import stdtrit

    is_recipe = (n_seeds > 1) & ~np.isnan(seed_error)
    own, i = one.intervals.standard_error, one.intervals
    error = np.where(is_recipe, np.sqrt(own**2 + seed_error**2), own)
    t = np.asarray(stdtrit(np.maximum(n_seeds - 1, 1)[None, :], PIVOT_LEVELS[:, None]))
    square = _signed_square(one.pivot * own) + _signed_square(t * seed_error)
    with np.errstate(invalid="ignore", divide="ignore"):
        joint = np.where(error > 0, np.sign(square) * np.sqrt(np.abs(square)) / error, one.pivot)
    pivot = np.where(is_recipe, joint, one.pivot)
    places = np.searchsorted(PIVOT_LEVELS, [0.025, 0.05, 0.95, 0.975])
    t_low, t_low90, t_high90, t_high = pivot[places]
    offsets = {"low": t_high, "high": t_low, "low90": t_high90, "high90": t_low90}
    limits = {
        name: np.where(is_recipe, i.estimate - offset * error, getattr(i, name))
        for name, offset in offsets.items()
    }
    others = ("percentile_low", "percentile_high", "bca_low", "bca_high")
    limits |= {name: np.where(is_recipe, np.nan, getattr(i, name)) for name in others}
    wider = i._replace(standard_error=error, **limits)
    return one._replace(intervals=wider, pivot=pivot, seed_error=np.where(is_recipe, seed_error, 0))


def _signed_square(values: Floats) -> Floats:
    return np.asarray(np.sign(values) * np.square(values))


def seed_columns(
    rows: pl.DataFrame, spreads: Mapping[str, SeedSpread], models: Sequence[ModelFacts]
) -> pl.DataFrame:
    """Rows with how much seeds differ, and a note where they do by more than the effect."""
    n_seeds = {m.model_id: len(m.seeds) for m in models}
    place = rows["cell"].to_numpy()
    relative, dice = spreads["relative"], spreads["dice"]
    is_original = (rows["probe"] == "original").to_numpy()
    share = np.where(is_original, dice.share[place], relative.share[place])
    rows = rows.with_columns(
        pl.Series("seed_deviation_dice", dice.deviation[place]),
        pl.Series("seed_deviation_percent", 100 * relative.deviation[place]),
        pl.Series("seed_share", share),
        n_seeds=pl.col("model_id").replace_strict(n_seeds, return_dtype=pl.Int64),
    )
    return rows.with_columns(notes=pl.col("notes").list.concat(_note()))


def _note() -> pl.Expr:
    """What is said of the seeds of a row; an empty list where it is of no recipe."""
    spread, effect = "seed_deviation_percent", "relative_change_percent"
    differs = pl.format(
        "{} seeds, {} % of the variance is theirs",
        "n_seeds",
        (100 * pl.col("seed_share")).fill_nan(0).round(0).cast(pl.Int64),
    )
    more = pl.format(
        "{}: they differ by more ({} %) than the change itself",
        differs,
        pl.col(spread).round(1),
    )
    is_more = (pl.col("probe") != "original") & (pl.col(spread) > pl.col(effect).abs())
    text = pl.when(is_more.fill_null(False)).then(more).otherwise(differs)
    known = (pl.col("n_seeds") > 1) & pl.col("seed_share").is_not_nan()
    return pl.concat_list(pl.when(known).then(text)).list.drop_nulls()

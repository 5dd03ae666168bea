"""Nested means of a run's cases, and their sums over clusters.

Conventions: means nest: repeats -> word -> prompt index -> sample; samples are then
summed within their cluster, so that every sample weighs the same in a ratio of sums.
A null value is left out of its mean at its own level, and an index, word or sample
without any value drops out. Relative changes are percent of the original Dice,
changes in points are 100 times a difference of Dice. Cases are read in chunks of whole
clusters; sums and counts of the chunks add up to those of a run. Clusters are called by the
names that the bootstrap resamples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from harness.stats.coding import PLAN_KEYS
from harness.stats.pairs import Pairs

_NAMED = ("dice_named", "own_named", "reference_named")
REFUSAL = ("refused", "missed", "false_positive", "aligned", "painted", "present_dice")
"""What is asked of prompts for absent things, and of those for present ones beside them."""

VALUES = (
    *("dice", "reference", "agreement", "original_empty"),
    *_NAMED,
    *("catastrophic", *REFUSAL),
)
"""Columns of the cases that are averaged."""

_INDEX = ("cell", "cluster", "sample", "prompt_index")
_SAMPLE = ("cell", "cluster", "sample")


class Nested(NamedTuple):
    """Averages of cases."""

    # One row a (cell, sample): ``cell, cluster, sample``, `VALUES`, ``worst`` (the lowest Dice
    # among a prompt's variants) and ``n_variants``.
    samples: pl.DataFrame
    # One row a (cell, cluster, word) of the cells with words: how far the cluster's sums of
    # ``dice`` and ``agreement`` with this word lie from those over all words.
    words: pl.DataFrame


def nested_means(cases: pl.DataFrame) -> Nested:
    """Average cases up to samples.

    A word that a prompt lacks (its case failed) deviates by nothing: the prompt's mean
    over its other words stands in.
    """
    cases = cases.with_columns(
        worst=pl.col("dice"), n_variants=pl.col("dice").is_not_null().cast(pl.Float64)
    )
    several, means = (pl.col("worst").min(), pl.col("n_variants").sum()), pl.col(VALUES).mean()
    # The order within a group decides how a sum is rounded: keep that of the sorted cases.
    by_word = cases.group_by(*_INDEX, "word", maintain_order=True).agg(means, *several)
    by_index = by_word.group_by(_INDEX, maintain_order=True).agg(means, *several)
    samples = by_index.group_by(_SAMPLE, maintain_order=True).agg(
        means, pl.col("worst").mean(), pl.col("n_variants").filter(pl.col("n_variants") > 0).mean()
    )
    return Nested(samples, _word_deviations(by_word, by_index))


def _word_deviations(by_word: pl.DataFrame, by_index: pl.DataFrame) -> pl.DataFrame:
    named = ("dice", "agreement")
    worded = by_word.filter(pl.col("word") > 0)
    cells = worded.select(pl.col("cell").unique())
    by_index = by_index.join(cells, on="cell", how="semi", maintain_order="left")
    shares = [1 / pl.col(v).count().over(_SAMPLE) for v in named]
    means = by_index.select(
        *_INDEX,
        *(pl.col(v).alias(f"{v}_mean") for v in named),
        *(share.alias(f"{v}_share") for v, share in zip(named, shares, strict=True)),
    )
    deviations = [
        ((pl.col(v) - pl.col(f"{v}_mean")) * pl.col(f"{v}_share")).fill_null(0).alias(v)
        for v in named
    ]
    return (
        worded.join(means, on=_INDEX, how="left", maintain_order="left")
        .select("cell", "cluster", "word", *deviations)
        .group_by("cell", "cluster", "word", maintain_order=True)
        .agg(pl.col(named).sum())
    )


def cluster_sums(samples: pl.DataFrame) -> pl.DataFrame:
    """Sums over the samples of each (cell, cluster), in the order of both.

    ``cell, cluster``; ``n`` and the sums of ``dice``, ``reference`` and ``worst``; the number of
    samples with, and the sums of, ``agreement``, ``catastrophic``, the Dice of named targets and
    `REFUSAL`.
    """
    counted = {"dice": "n", "agreement": "n_agreement", "catastrophic": "n_catastrophic"}
    counted |= {"dice_named": "n_named"} | {c: f"n_{c}" for c in _ASKED}
    summed = ("dice", "reference", "worst", "agreement", "catastrophic", *_NAMED, *REFUSAL)
    return samples.group_by("cell", "cluster", maintain_order=True).agg(
        *(pl.col(c).count().cast(pl.Float64).alias(n) for c, n in counted.items()),
        pl.col(summed).sum(),
    )


_ASKED = ("refused", "missed", "present_dice")
_COUNTED = ("agreement", "original_empty", "dice_named", "refused", "missed")


def cell_totals(samples: pl.DataFrame, sums: pl.DataFrame, *, floor: float) -> pl.DataFrame:
    """Sums and counts of each cell that `cell_figures` turns into figures; they may be added up.

    Samples with an original Dice below `floor` have no ratio of their own.
    """
    reference, n = pl.col("reference"), pl.col("n")
    segmented = (reference >= floor) & (reference > 0)
    ratio = (pl.col("dice") / reference - 1).filter(segmented)
    of_samples = samples.group_by("cell", maintain_order=True).agg(
        pl.col(_COUNTED).sum(),
        n_samples=pl.col("dice").count(),
        ratios=ratio.sum(),
        n_ratios=ratio.count(),
        variants=pl.col("n_variants").sum(),
        n_variants=pl.col("n_variants").count(),
        **{f"n_{c}": pl.col(c).count() for c in _COUNTED},
    )
    of_clusters = sums.group_by("cell", maintain_order=True).agg(
        n_clusters=(n > 0).sum(),
        n_clusters_named=(pl.col("n_named") > 0).sum(),
        n_clusters_refusal=(pl.col("n_refused") > 0).sum(),
        equal_dice=(pl.col("dice") / n).filter(n > 0).sum(),
        equal_reference=(reference / n).filter(n > 0).sum(),
    )
    return of_samples.join(of_clusters, on="cell", how="left", maintain_order="left")


def cell_figures(totals: pl.DataFrame) -> pl.DataFrame:
    """Figures of each cell that are given without an interval.

    ``cell``; number of samples and clusters; mean of the samples' own relative changes
    (descriptive: samples are chosen by their original Dice, so it regresses to the mean); relative
    change with clusters weighted equally; share of originals with an empty mask where there is a
    target; Dice with the named mask; samples asked for what is absent and for what is present; how
    many variants a sample has.
    """
    equal = pl.col("equal_dice") / pl.col("equal_reference")
    share = {c: pl.col(c) / pl.col(f"n_{c}") for c in _COUNTED}
    return totals.select(
        "cell",
        "n_samples",
        "n_clusters",
        "n_clusters_named",
        "n_clusters_refusal",
        n_samples_agreement="n_agreement",
        sample_ratio_percent=100 * pl.col("ratios") / pl.col("n_ratios"),
        n_sample_ratios="n_ratios",
        relative_change_clusters_percent=100 * (equal - 1),
        originals_empty_share=share["original_empty"],
        dice_named=share["dice_named"],
        n_samples_named="n_dice_named",
        n_samples_refusal="n_refused",
        n_samples_present="n_missed",
        worst_of=pl.col("variants") / pl.col("n_variants"),
    ).with_columns(pl.selectors.float().fill_nan(None))


_FLAGS = (
    *("failed", "missing", "original_lost", "undefined", "cut_away"),
    *("both_empty", "same_tokens"),
)


@dataclass(frozen=True, slots=True)
class ClusterSums:
    """Per-cluster sums of a run's cases."""

    figures: pl.DataFrame  # of `harness.stats.relative.cell_figures`, a row a cell
    counted: pl.DataFrame  # what became of each cell's cases, a row a cell
    units: pl.DataFrame  # sums over the samples of each (cell, unit), in order
    # How far each (cell, unit, word) lies from the sums over all words, in order.
    words: pl.DataFrame
    originals: pl.DataFrame  # ``cell, cluster, unit, sample, dice`` of the original prompts


def reduce(pairs: Pairs) -> ClusterSums:
    """Go through all cases once.

    Raises:
        RunError: A (model, case) has two scores, or counts are impossible.
    """
    unit_of = pairs.plan.clusters.select("cluster", "unit")
    original = pairs.cells.filter(pl.col("probe") == "original").select("cell")
    parts: dict[str, list[pl.DataFrame]] = {}
    for cases in pairs.chunks():
        for name, frame in _of_chunk(cases, unit_of, original, floor=pairs.floor).items():
            parts.setdefault(name, []).append(frame)
    whole = {name: pl.concat(frames) for name, frames in parts.items()}
    return ClusterSums(
        figures=cell_figures(_summed(whole["totals"], ["cell"])),
        counted=_counted(whole["counted"], whole["used_words"]),
        units=_summed(whole["units"], ["cell", "unit"]),
        words=_summed(whole["words"], ["cell", "unit", "word"]),
        originals=whole["originals"].sort("cell", "sample"),
    )


def _of_chunk(
    cases: pl.DataFrame, unit_of: pl.DataFrame, original: pl.DataFrame, *, floor: float
) -> dict[str, pl.DataFrame]:
    nested: Nested = nested_means(cases)
    sums = cluster_sums(nested.samples)
    worded = pl.col("dice").is_not_null() & (pl.col("word") > 0)
    own = nested.samples.drop_nulls("dice").join(original, on="cell", how="semi")
    own = own.select("cell", "cluster", "sample", "dice")
    return {
        "totals": cell_totals(nested.samples, sums, floor=floor),
        "counted": cases.group_by("cell", maintain_order=True).agg(pl.col(_FLAGS).sum()),
        "used_words": cases.filter(worded).select("cell", "word").unique(),
        "units": _to_units(sums, unit_of, ["cell", "unit"]),
        "words": _to_units(nested.words, unit_of, ["cell", "unit", "word"]),
        "originals": own.join(unit_of, on="cluster", how="left"),
    }


def _to_units(frame: pl.DataFrame, unit_of: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    joined = frame.join(unit_of, on="cluster", how="left", maintain_order="left").drop("cluster")
    return joined.group_by(keys, maintain_order=True).agg(pl.exclude(keys).sum())


def _summed(frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Rows of several chunks added up, in the order of their keys."""
    summed = frame.group_by(keys, maintain_order=True).agg(pl.exclude(keys).sum())
    return summed.sort(keys)


def _counted(flags: pl.DataFrame, used_words: pl.DataFrame) -> pl.DataFrame:
    words = used_words.unique().group_by("cell").agg(n_words=pl.len())
    counts = _summed(flags, ["cell"]).rename({flag: f"n_{flag}" for flag in _FLAGS})
    return counts.join(words, on="cell", how="left").with_columns(pl.col("n_words").fill_null(0))


SUM_KEYS = PLAN_KEYS
SUMS = (
    *("n", "reference", "dice", "n_named", "own_named", "dice_named"),
    *("n_refused", "refused"),
)
"""Samples with both Dice, sums of original and changed Dice; the same where a target is named;
samples that ask for what is absent, and how many of them are refused."""

_KNOWN = {"dice": ("dice", "reference"), "dice_named": _NAMED, "refused": ("refused",)}


def named_sums(units: pl.DataFrame, pairs: Pairs) -> pl.DataFrame:
    """Sums of each (cell, unit) of one model, under the names of their rows and clusters."""
    named = pairs.plan.units.select("unit", cluster="name")
    return (
        units.join(pairs.cells.select("cell", *SUM_KEYS), on="cell")
        .join(named, on="unit")
        .select(*SUM_KEYS, "cluster", *SUMS)
        .sort(*SUM_KEYS, "cluster", nulls_last=False)
    )


def matched_sums(new: Pairs, old: Pairs) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sums of two runs of one plan over the cases that both of them have.

    Raises:
        ValueError: The two plans hold other cases.
    """
    parts: tuple[list[pl.DataFrame], list[pl.DataFrame]] = ([], [])
    for both in _matched(new, old):
        for frames, cases, pairs in zip(parts, both, (new, old), strict=True):
            sums = cluster_sums(nested_means(cases).samples)
            unit_of = pairs.plan.clusters.select("cluster", "unit")
            frames.append(sums.join(unit_of, on="cluster").drop("cluster"))
    found = []
    for frames, pairs in zip(parts, (new, old), strict=True):
        keys = ["cell", "unit"]
        units = pl.concat(frames).group_by(keys).agg(pl.exclude(keys).sum())
        found.append(named_sums(units, pairs))
    return found[0], found[1]


def _matched(new: Pairs, old: Pairs) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Chunks of both runs, a value kept only where the other run has it as well."""
    for left, right in zip(new.chunks(), old.chunks(), strict=True):
        if not left["case_id"].equals(right["case_id"]):
            raise ValueError("matching: the two runs hold other cases. Compare them by cluster.")
        yield _where_known(left, right), _where_known(right, left)


def _where_known(own: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    columns = []
    for key, names in _KNOWN.items():
        known = other[key].is_not_null()
        columns += [pl.when(known).then(pl.col(name)).alias(name) for name in names]
    return own.with_columns(columns)

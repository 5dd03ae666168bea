"""Nested means and relative Dice changes.

Conventions: means nest: repeats -> word -> prompt index -> sample; samples are then
summed within their cluster, so that every sample weighs the same in a ratio of sums.
A null value is left out of its mean at its own level, and an index, word or sample
without any value drops out. Relative changes are percent of the original Dice,
changes in points are 100 times a difference of Dice.
"""

from typing import NamedTuple

import polars as pl

VALUES = ("dice", "reference", "agreement", "original_empty", "dice_named", "false_positive")
"""Columns of the cases that are averaged."""

_INDEX = ("cell", "cluster", "sample", "prompt_index")
_SAMPLE = ("cell", "cluster", "sample")


class Nested(NamedTuple):
    """Averages of cases.

    Attributes:
        samples: One row a (cell, sample): ``cell, cluster, sample`` and `VALUES`.
        words: One row a (cell, cluster, word) of the cells with words: how far
            the cluster's sums of ``dice`` and ``agreement`` with this word lie from
            those over all words.
    """

    samples: pl.DataFrame
    words: pl.DataFrame


def nested_means(cases: pl.DataFrame) -> Nested:
    """Average cases up to samples.

    A word that a prompt lacks (its case failed) deviates by nothing: the prompt's mean
    over its other words stands in.

    Args:
        cases: Sorted, as `harness.stats.pairs.Pairs.cases`.
    """
    by_word = _means(cases, [*_INDEX, "word"])
    by_index = _means(by_word, list(_INDEX))
    samples = _means(by_index, list(_SAMPLE))
    return Nested(samples, _word_deviations(by_word, by_index))


def _means(frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    # The order within a group decides how a sum is rounded: keep that of the sorted cases.
    return frame.group_by(keys, maintain_order=True).agg(pl.col(VALUES).mean())


def _word_deviations(by_word: pl.DataFrame, by_index: pl.DataFrame) -> pl.DataFrame:
    named = ("dice", "agreement")
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
        by_word.filter(pl.col("word") > 0)
        .join(means, on=_INDEX, how="left", maintain_order="left")
        .select("cell", "cluster", "word", *deviations)
        .group_by("cell", "cluster", "word", maintain_order=True)
        .agg(pl.col(named).sum())
    )


def cluster_sums(samples: pl.DataFrame) -> pl.DataFrame:
    """Sums over the samples of each (cell, cluster), in the order of both.

    Returns:
        ``cell, cluster, n, dice, reference, n_agreement, agreement``.
    """
    return samples.group_by("cell", "cluster", maintain_order=True).agg(
        pl.col("dice").count().cast(pl.Float64).alias("n"),
        pl.col("dice", "reference").sum(),
        pl.col("agreement").count().cast(pl.Float64).alias("n_agreement"),
        pl.col("agreement").sum(),
    )


def cell_means(samples: pl.DataFrame, sums: pl.DataFrame, *, floor: float) -> pl.DataFrame:
    """Figures of each cell that are given without an interval.

    Args:
        samples: As in `Nested`.
        sums: Of `cluster_sums`.
        floor: Samples with a lower original Dice have no ratio of their own.

    Returns:
        ``cell``; number of samples and clusters; mean of the samples' own relative
        changes (descriptive: samples are chosen by their original Dice, so it regresses
        to the mean); relative change with clusters weighted equally; share of
        originals with an empty mask; Dice with the named mask; false-positive share.
    """
    reference, named, false = pl.col("reference"), pl.col("dice_named"), pl.col("false_positive")
    segmented = (reference >= floor) & (reference > 0)
    means = samples.group_by("cell", maintain_order=True).agg(
        n_samples=pl.col("dice").count(),
        n_samples_agreement=pl.col("agreement").count(),
        sample_ratio_percent=100 * (pl.col("dice") / reference - 1).filter(segmented).mean(),
        n_sample_ratios=reference.filter(segmented).count(),
        originals_empty_share=pl.col("original_empty").mean(),
        dice_named=named.mean(),
        n_samples_named=named.count(),
        false_positive_share=false.mean(),
        n_samples_false_positive=false.count(),
    )
    equal = [(pl.col(v) / pl.col("n")).sum() for v in ("dice", "reference")]
    clusters = (
        sums.filter(pl.col("n") > 0)
        .group_by("cell", maintain_order=True)
        .agg(n_clusters=pl.len(), relative_change_clusters_percent=100 * (equal[0] / equal[1] - 1))
    )
    return means.join(clusters, on="cell", how="left", maintain_order="left")

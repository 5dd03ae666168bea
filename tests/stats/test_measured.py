"""Figures before anything is decided: the same as those that the summary shows."""

import polars as pl
from polars.testing import assert_frame_equal

from harness.stats.assessment import assess, signature_of
from harness.stats.matching import SUM_KEYS, named_sums
from harness.stats.measured import measured

SHOWN = ("relative_change_percent", "relative_change_low_percent", "dice", "n_clusters")


def figures(run, suite):
    arguments = run.arguments
    arguments.pop("not_applicable")
    return measured(**arguments, suite=suite)


def test_they_are_the_summarys(synthetic, quick_suite):
    run, suite = synthetic(), quick_suite()

    found = figures(run, suite)

    assessment = assess(**run.arguments, suite=suite)
    keys = ("model_id", *SUM_KEYS)
    summary = assessment.summary.filter(pl.col("probe") != "out_of_distribution")
    own = found.named.select(*keys, *SHOWN).cast({"n_clusters": pl.Int64})
    assert own.height == summary.height == 24
    assert_frame_equal(own.sort(keys), summary.select(*keys, *SHOWN).sort(keys), check_exact=True)
    assert assessment.signature == signature_of(suite.statistics)


def test_sums_under_their_names_are_the_means_of_the_cases(synthetic, quick_suite):
    run = synthetic({"inside": 20}, models=synthetic().models[:1])
    found = figures(run, quick_suite())

    sums = named_sums(found.left.units, found.pairs)

    scored = run.plan.join(run.scores, on="case_id")
    scored = scored.with_columns(d=2 * pl.col("tp") / (pl.col("n_pred") + pl.col("n_gt")))
    empty = scored.filter(pl.col("probe") == "empty_prompt")
    by_hand = empty.group_by("cluster_id").agg(pl.col("d").sum()).sort("cluster_id")
    own = sums.filter(pl.col("probe") == "empty_prompt").sort("cluster")
    assert own["cluster"].to_list() == by_hand["cluster_id"].to_list()
    assert (own["dice"] - by_hand["d"]).abs().max() < 1e-12
    assert own["n"].to_list() == [2.0] * 10

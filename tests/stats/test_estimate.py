"""Per-cell estimates, and the means that stand beside them without an interval."""

import math

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from harness.plan.build import PLAN_SCHEMA
from harness.report.table import sections
from harness.stats.assessment import assess, signature_of
from harness.stats.columns import SUMMARY_SCHEMA, with_all_columns
from harness.stats.estimate import estimate, prompts_cut, surface_means
from harness.stats.relative import SUM_KEYS, named_sums

SHOWN = ("relative_change_percent", "relative_change_low_percent", "dice", "n_clusters")


def figures(run, suite):
    arguments = run.arguments
    arguments.pop("not_applicable")
    return estimate(**arguments, suite=suite)


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

    sums = named_sums(found.sums.units, found.pairs)

    scored = run.plan.join(run.scores, on="case_id")
    scored = scored.with_columns(d=2 * pl.col("tp") / (pl.col("n_pred") + pl.col("n_gt")))
    empty = scored.filter(pl.col("probe") == "empty_prompt")
    by_hand = empty.group_by("cluster_id").agg(pl.col("d").sum()).sort("cluster_id")
    own = sums.filter(pl.col("probe") == "empty_prompt").sort("cluster")
    assert own["cluster"].to_list() == by_hand["cluster_id"].to_list()
    assert (own["dice"] - by_hand["d"]).abs().max() < 1e-12
    assert own["n"].to_list() == [2.0] * 10


def plan(*cases):
    """Cases (probe, prompt, original prompt), numbered from 1."""
    rows = [
        dict.fromkeys(PLAN_SCHEMA)
        | {"case_id": k, "dataset": "d", "split": "test", "prompts": "released"}
        | {"prompt_type": "p6", "probe": probe, "prompt": text, "original_prompt": original}
        for k, (probe, text, original) in enumerate(cases, 1)
    ]
    return pl.DataFrame(rows, schema=PLAN_SCHEMA, orient="row")


def texts(model_id="m@1", **cut):
    rows = [{"text": t, "truncated": c, "model_id": model_id} for t, c in cut.items()]
    return pl.DataFrame(rows).with_columns(original_text="text")


def test_a_prompt_that_is_cut_counts_whether_or_not_its_edit_survives():
    """The second case's own prompt is cut, the third's original, the fourth's both."""
    cases = plan(
        *(("original", "a", "a"), ("typo", "b", "c"), ("typo", "c", "a"), ("typo", "b", "a")),
        ("case", "c", "c"),
    )
    found = prompts_cut(cases, texts(a=True, b=True, c=False))
    assert dict(found.select("probe", "n_truncated").iter_rows()) == {"original": 1, "typo": 3}
    assert set(found["model_id"]) == {"m@1"}


def test_where_nothing_is_cut_or_known_nothing_is_counted():
    cases = plan(("original", "a", "a"))
    assert prompts_cut(cases, texts(a=False)) is None
    assert prompts_cut(cases, None) is None
    assert prompts_cut(cases, texts(a=True).drop("truncated")) is None


def test_each_model_cuts_its_own():
    both = pl.concat([texts(a=True), texts("n@1", a=False)])
    found = prompts_cut(plan(("original", "a", "a")), both)
    assert found["model_id"].to_list() == ["m@1"]


def scores(*rows):
    names = ("case_id", "n_pred", "n_gt", "hausdorff_px", "hd95_px", "nsd", "status")
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(model_id=pl.lit("m@1"))


def test_a_mean_distance_stands_beside_the_cases_that_have_none():
    """A missed lesion, a mask where none should be, and two empty masks: only the first two are
    cases with one mask; their nsd is 0, and the failed case is none."""
    nan = math.nan
    found = surface_means(
        plan(*(("typo", f"{k}", "a") for k in range(6))),
        scores(
            (1, 9, 9, 4.0, 2.0, 0.5, "done"), (2, 9, 9, 8.0, 3.0, 1.0, "done"),
            (3, 0, 9, nan, nan, 0.0, "done"), (4, 9, 0, nan, nan, 0.0, "done"),
            (5, 0, 0, nan, nan, nan, "done"), (6, None, None, None, None, None, "failed"),
        ),
    )  # fmt: skip
    (row,) = found.rows(named=True)
    assert (row["hausdorff_px"], row["hd95_px"], row["nsd"]) == pytest.approx((6, 2.5, 0.375))
    assert (row["n_surface"], row["n_one_empty"]) == (2, 2)


def test_distances_are_a_table_of_their_own(summary_of):
    measured = {"hausdorff_px": 6.0, "hd95_px": 2.5, "nsd": 0.375, "n_surface": 2}
    row = {"probe": "typo", "attribute": "size", "cluster_kind": "patient", "n_one_empty": 1}
    bare, whole = (
        list(sections(summary_of(r))) for r in (row | {"n_one_empty": 0}, row | measured)
    )
    assert len(bare) == 1
    assert whole[1].title == "m on d (test, p6): distances between contours"
    assert whole[1].rows == (("typo", "size", "6.0", "2.5", "0.375", "2", "1"),)
    assert whole[1].header[-1] == "one mask empty"


def test_a_summary_of_an_earlier_version_has_counts_of_nothing():
    old = pl.DataFrame({"model": ["m"], "n_cases": [3]}, schema_overrides={"n_cases": pl.Int64})
    found = with_all_columns(old)
    assert set(found.columns) == set(SUMMARY_SCHEMA)
    assert found.select("model", "n_cases", "n_truncated", "nsd").row(0) == ("m", 3, 0, None)

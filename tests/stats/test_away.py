"""Which sets are compared, which images are left out, and what the rows say."""

import dataclasses
import math

import polars as pl
import pytest

from harness.stats.assessment import summarise
from harness.stats.facts import ModelFacts

SIZES = {"a": 24, "b": 44, "out": 50}


def facts(model_id, trained_on, control=False):
    return ModelFacts(model_id, model_id, trained_on, control, 0.5)


MODELS = [
    facts("m", ("b", "a")),
    facts("blind", ("a", "b"), control=True),
    facts("other", ("a", "gone")),
    facts("elsewhere", ("gone", "lost")),
    facts("other-control", ("out",), control=True),
]


@pytest.fixture(scope="module")
def run(synthetic):
    return synthetic(SIZES, models=MODELS)


def away(run, suite):
    out = summarise(**run.arguments, suite=suite)
    rows = out.filter(pl.col("probe") == "out_of_distribution").rows(named=True)
    return {(r["model_id"], r["dataset"]): r for r in rows}


@pytest.fixture(scope="module")
def rows(run, quick_suite):
    return away(run, quick_suite())


def mean_dice(run, model_id, dataset, leave_out=()):
    """Mean over originals, from the counts."""
    plan = run.plan.filter(pl.col("dataset") == dataset, probe="original").filter(
        ~pl.col("image_id").is_in(list(leave_out))
    )
    own = run.scores.filter(pl.col("model_id") == model_id).join(plan, on="case_id")
    return (2 * own["tp"] / (own["n_pred"] + own["n_gt"])).mean()


def test_sets_of_training_are_not_away(rows):
    assert {k for k in rows if k[0] in ("m", "blind")} == {("m", "out"), ("blind", "out")}
    assert {k[1] for k in rows if k[0] == "other"} == {"b", "out"}
    assert {k[1] for k in rows if k[0] == "elsewhere"} == {"a", "b", "out"}


def test_the_reference_is_the_unweighted_mean_of_the_sets(run, rows):
    r = rows["m", "out"]
    inside = (mean_dice(run, "m", "a") + mean_dice(run, "m", "b")) / 2
    outside = mean_dice(run, "m", "out")

    assert r["reference_dice"] == pytest.approx(inside)
    assert r["dice"] == pytest.approx(outside)
    assert r["relative_change_percent"] == pytest.approx(100 * (outside / inside - 1))
    assert r["change_points"] == pytest.approx(100 * (outside - inside))
    assert r["in_distribution"] == "a/test p6, b/test p6"
    assert (r["n_samples"], r["n_clusters"], r["n_shared_images"]) == (50, 25, 0)
    assert r["relative_change_low_percent"] < r["relative_change_percent"]
    assert r["relative_change_percent"] < r["relative_change_high_percent"]


def test_the_control_stands_beside_models_of_the_same_training_only(rows):
    m, blind = rows["m", "out"], rows["blind", "out"]

    assert m["control"] == "blind"
    assert m["control_change_percent"] == pytest.approx(blind["relative_change_percent"])
    difference = m["relative_change_percent"] - blind["relative_change_percent"]
    assert m["beyond_control_percent"] == pytest.approx(difference)
    assert m["beyond_control_low_percent"] < difference < m["beyond_control_high_percent"]
    # A control that was trained on the target would measure something else.
    for r in (blind, rows["other", "out"]):
        assert r["control"] is None
        assert math.isnan(r["control_change_percent"])
        assert math.isnan(r["beyond_control_percent"])


def test_sets_of_training_that_the_run_lacks_are_named(rows):
    r = rows["other", "b"]

    assert r["in_distribution"] == "a/test p6"
    notes = [n for n in r["notes"] if "gone" in n]
    assert notes == ["also trained on gone, which this run does not test"]


def test_without_any_set_of_training_the_reason_is_given(rows):
    r = rows["elsewhere", "out"]

    assert r["reason"] == "not applicable: no test split of gone, lost is in this run"
    assert math.isnan(r["relative_change_percent"])
    assert r["verdict_allowed"] is False


def test_the_smallest_set_decides_about_a_verdict(rows):
    """a has 12 clusters, b and out have more than 20."""
    r = rows["m", "out"]

    assert r["verdict_allowed"] is False
    assert r["notes"] == ["a set has under 20 clusters: no verdict"]


def test_images_of_both_are_left_out_of_both(run, quick_suite):
    shared = [f"a-{i}" for i in range(5)]
    renamed = run.plan.with_columns(
        image_id=pl.when(pl.col("dataset") == "out", pl.col("sample_id") < "s0005")
        .then(pl.col("image_id").str.replace("out", "a"))
        .otherwise("image_id")
    )
    changed = dataclasses.replace(run, plan=renamed)

    r = away(changed, quick_suite())["m", "out"]

    inside = (mean_dice(changed, "m", "a", shared) + mean_dice(run, "m", "b")) / 2
    assert r["n_shared_images"] == 5
    assert r["n_samples"] == 45
    assert r["reference_dice"] == pytest.approx(inside)
    assert r["dice"] == pytest.approx(mean_dice(changed, "m", "out", shared))


def test_a_set_that_is_wholly_shared_leaves_nothing_to_compare(run, quick_suite):
    same = run.plan.with_columns(
        image_id=pl.when(pl.col("dataset") == "out")
        .then(pl.col("image_id").str.replace("out", "b"))
        .otherwise("image_id")
    ).filter((pl.col("dataset") != "out") | (pl.col("sample_id") < "s0044"))

    r = away(dataclasses.replace(run, plan=same), quick_suite())["m", "out"]

    assert r["reason"] == "no Dice is left to compare"
    assert (r["n_samples"], r["n_shared_images"]) == (0, 44)


def test_only_test_splits_are_in_distribution(run, quick_suite):
    split = run.plan.with_columns(
        split=pl.when(pl.col("dataset") == "a").then(pl.lit("val")).otherwise("split")
    )

    found = away(dataclasses.replace(run, plan=split), quick_suite())

    assert found["m", "out"]["in_distribution"] == "b/test p6"
    assert "a" not in {k[1] for k in found if k[0] == "m"}
    assert found["other", "out"]["reason"].startswith("not applicable: no test split of a, gone")


def test_a_set_is_compared_at_its_own_prompt_type_else_at_the_highest(run, quick_suite):
    """Set b has p6 and p5; the targets out (p6) and low (p5) take what fits."""
    new = {"case_id": pl.col("case_id") + 1, "original_case_id": pl.col("original_case_id") + 1}
    second = run.plan.filter(dataset="b").with_columns(prompt_type=pl.lit("p5"), **new)
    low = run.plan.filter(dataset="out").with_columns(
        dataset=pl.lit("low"), prompt_type=pl.lit("p5"), **new
    )
    scores = run.scores.with_columns(case_id=pl.col("case_id") + 1)
    changed = dataclasses.replace(
        run,
        plan=pl.concat([run.plan, second, low]),
        scores=pl.concat([run.scores, scores]),
    )

    found = away(changed, quick_suite())

    assert found["m", "out"]["in_distribution"] == "a/test p6, b/test p6"
    assert found["m", "low"]["in_distribution"] == "a/test p6, b/test p5"


def test_a_low_baseline_has_no_change_and_hides_none_of_the_control(run, quick_suite):
    weak = run.scores.with_columns(
        tp=pl.when(pl.col("model_id") == "m").then(pl.col("tp") // 20).otherwise("tp")
    )

    found = away(dataclasses.replace(run, scores=weak), quick_suite())

    assert found["m", "out"]["reason"] == "baseline too low: Dice under 0.1"
    assert math.isnan(found["m", "out"]["relative_change_percent"])
    assert found["m", "out"]["reference_dice"] < 0.1
    assert found["blind", "out"]["reason"] is None


def test_a_control_with_a_low_baseline_is_no_control(run, quick_suite):
    weak = run.scores.with_columns(
        tp=pl.when(pl.col("model_id") == "blind").then(pl.col("tp") // 20).otherwise("tp")
    )

    r = away(dataclasses.replace(run, scores=weak), quick_suite())["m", "out"]

    assert r["control"] is None
    assert math.isnan(r["beyond_control_percent"])
    assert math.isfinite(r["relative_change_percent"])


def test_a_suite_that_does_not_ask_gets_no_rows(run, quick_suite):
    quiet = quick_suite().model_copy(update={"out_of_distribution": False})

    assert away(run, quiet) == {}

"""Out of distribution: intervals, which sets are compared, and what the rows say."""

import dataclasses
import math
import re

import numpy as np
import polars as pl
import pytest

from harness.stats.assessment import assess
from harness.stats.bootstrap import cluster_draws
from harness.stats.inference import LEAST_ERROR
from harness.stats.pairs import ModelFacts
from harness.stats.shift import ShiftSet, shift_intervals

NAMES = ("target", "reference", "points", "harmonic", "relative")


def make_set(name, size, models=2, seed=0, mean=0.8, draws=120):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, (size, 1)) * np.ones((1, models))
    sums = counts * np.clip(rng.normal(mean, 0.1, (size, models)), 0, 1)
    units = cluster_draws(name, [f"c{i}" for i in range(size)], count=draws, seed=0)
    return ShiftSet(units, counts, sums)


def slow_values(sets, weights, model):
    """(values, influences by set): one figure after the other, clusters in a loop."""
    means = [
        sum(w * s for w, s in zip(ws, one.sums[:, model], strict=True))
        / sum(w * c for w, c in zip(ws, one.counts[:, model], strict=True))
        for one, ws in zip(sets, weights, strict=True)
    ]
    away, inside = means[0], sum(means[1:]) / len(means[1:])
    values = {"target": away, "reference": inside, "points": away - inside}
    values["harmonic"] = 2 / (1 / away + 1 / inside)
    values["relative"] = away / inside - 1
    influences = {name: [] for name in NAMES}
    for j, (one, ws) in enumerate(zip(sets, weights, strict=True)):
        total = sum(w * c for w, c in zip(ws, one.counts[:, model], strict=True))
        own = [
            (s - means[j] * c) / total
            for s, c in zip(one.sums[:, model], one.counts[:, model], strict=True)
        ]
        first, share = j == 0, 1 / (len(sets) - 1)
        slopes = {
            "target": float(first),
            "reference": 0.0 if first else share,
            "points": 1.0 if first else -share,
            "harmonic": 2
            * ((inside if first else away) / (away + inside)) ** 2
            * (1 if first else share),
            "relative": 1 / inside if first else -share * away / inside**2,
        }
        for name in NAMES:
            influences[name].append([slopes[name] * x for x in own])
    return values, influences


def slow_error(influences, weights):
    square = 0.0
    for own, ws in zip(influences, weights, strict=True):
        size = len(own)
        square += size / (size - 1) * sum(w * x * x for w, x in zip(ws, own, strict=True))
    return square**0.5


def slow_limits(estimate, error, drawn):
    t = [(e - estimate) / max(s, LEAST_ERROR * error) for e, s in drawn]
    return estimate - np.quantile(t, 0.975) * error, estimate - np.quantile(t, 0.025) * error


def weight_rows(sets):
    """For each draw the weights of every set."""
    blocks = [np.vstack([b for _, b in one.draws.blocks()]) for one in sets]
    return list(zip(*blocks, strict=True))


def subtract(first, second):
    return [[a - b for a, b in zip(x, y, strict=True)] for x, y in zip(first, second, strict=True)]


def test_every_figure_agrees_with_a_plain_loop_over_the_same_draws():
    sets = [
        make_set("out", 7, seed=1, mean=0.6),
        make_set("a", 6, seed=2),
        make_set("b", 9, seed=3),
    ]
    ones = [np.ones(len(s.counts)) for s in sets]

    found = shift_intervals(sets[0], sets[1:], controls=[1])

    for name in NAMES:
        for model in (0, 1):
            values, influences = slow_values(sets, ones, model)
            drawn = []
            for ws in weight_rows(sets):
                v, i = slow_values(sets, ws, model)
                drawn.append((v[name], slow_error(i[name], ws)))
            error = slow_error(influences[name], ones)
            low, high = slow_limits(values[name], error, drawn)
            intervals = getattr(found, name)
            assert intervals.estimate[model] == pytest.approx(values[name], rel=1e-9)
            assert intervals.standard_error[model] == pytest.approx(error, rel=1e-6)
            assert intervals.low[model] == pytest.approx(low, rel=1e-6)
            assert intervals.high[model] == pytest.approx(high, rel=1e-6)


def test_the_difference_from_the_control_is_paired():
    sets = [make_set("out", 7, seed=1, mean=0.6), make_set("a", 6, seed=2)]
    ones = [np.ones(len(s.counts)) for s in sets]

    found = shift_intervals(sets[0], sets[1:], controls=[1])

    def beyond(ws):
        (v0, i0), (v1, i1) = (slow_values(sets, ws, m) for m in (0, 1))
        difference = subtract(i0["relative"], i1["relative"])
        return v0["relative"] - v1["relative"], slow_error(difference, ws)

    estimate, error = beyond(ones)
    low, high = slow_limits(estimate, error, [beyond(ws) for ws in weight_rows(sets)])
    assert found.beyond.estimate[0] == pytest.approx(estimate)
    assert found.beyond.low[0] == pytest.approx(low, rel=1e-6)
    assert found.beyond.high[0] == pytest.approx(high, rel=1e-6)
    assert found.control.estimate[0] == found.relative.estimate[1]


def test_a_model_equal_to_its_control_differs_by_exactly_nothing():
    one = make_set("out", 8, models=1, seed=1, mean=0.5)
    two = make_set("in", 8, models=1, seed=2)
    doubled = [
        ShiftSet(s.draws, np.hstack([s.counts] * 2), np.hstack([s.sums] * 2)) for s in (one, two)
    ]

    found = shift_intervals(doubled[0], doubled[1:], controls=[1])

    assert found.beyond.estimate[0] == pytest.approx(0, abs=1e-15)
    assert found.beyond.low[0] == pytest.approx(0, abs=1e-12)
    assert found.beyond.high[0] == pytest.approx(0, abs=1e-12)
    assert found.relative.high[0] - found.relative.low[0] > 0.01


def test_several_controls_count_by_their_mean():
    sets = [make_set("out", 7, models=3, seed=1, mean=0.6), make_set("a", 6, models=3, seed=2)]

    found = shift_intervals(sets[0], sets[1:], controls=[1, 2])

    mean = found.relative.estimate[1:].mean()
    assert found.control.estimate[0] == pytest.approx(mean)
    assert found.beyond.estimate[0] == pytest.approx(found.relative.estimate[0] - mean)


def test_without_a_control_there_is_no_difference():
    sets = [make_set("out", 7, seed=1), make_set("a", 6, seed=2)]

    found = shift_intervals(sets[0], sets[1:])

    assert np.isnan(found.beyond.estimate).all()
    assert np.isnan(found.control.high).all()
    assert np.isfinite(found.relative.high).all()


def test_a_set_of_one_cluster_leaves_no_limits():
    sets = [make_set("out", 1, seed=1), make_set("a", 6, seed=2)]

    found = shift_intervals(sets[0], sets[1:])

    assert np.isfinite(found.relative.estimate).all()
    assert np.isnan(found.relative.low).all()


def test_no_training_set_is_refused():
    message = "shift: no set of the training data. At least one is needed. Name its reason instead."
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        shift_intervals(make_set("out", 3), [])


def test_intervals_of_a_shift_cover():
    """240 studies of one truth, two training sets of 30 and 40 clusters, one other of 30."""
    models = 60
    covered = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        sets = []
        for name, size, a in (("out", 30, 3), ("in", 30, 8), ("in2", 40, 8)):
            draws = cluster_draws(name, [f"c{i}" for i in range(size)], count=400, seed=seed)
            sets.append(ShiftSet(draws, np.ones((size, models)), rng.beta(a, 2, (size, models))))
        # Models are independent here: compare them one at a time to keep the forms small.
        for m in range(models):
            own = [ShiftSet(s.draws, s.counts[:, [m]], s.sums[:, [m]]) for s in sets]
            found = shift_intervals(own[0], own[1:]).relative
            covered.append(bool(found.low[0] <= 0.6 / 0.8 - 1 <= found.high[0]))
    assert 0.90 <= np.mean(covered) <= 0.985


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
    out = assess(**run.arguments, suite=suite).summary
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

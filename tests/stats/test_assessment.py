"""The summary: its rows, its reasons, its counts, and that the order of rows changes nothing."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from harness.errors import RunError
from harness.plan.build import NOT_APPLICABLE_SCHEMA
from harness.stats.assessment import assess
from harness.stats.columns import SUMMARY_SCHEMA
from harness.stats.pairs import CELL_KEYS, ModelFacts

NOTHING = pl.DataFrame(schema=NOT_APPLICABLE_SCHEMA)


def row(summary, **keys):
    """The one row with these keys; an attribute that is not given is null."""
    keys = {"model_id": "m@1", "dataset": "inside", "attribute": None} | keys
    tests = [pl.col(k).is_null() if v is None else pl.col(k) == v for k, v in keys.items()]
    return summary.row(by_predicate=pl.all_horizontal(tests), named=True)


@pytest.fixture(scope="module")
def run(synthetic):
    return synthetic(n_words=10)


@pytest.fixture(scope="module")
def summary(run, quick_suite):
    return assess(**run.arguments, suite=quick_suite(), cluster_kinds={"inside": "patient"}).summary


def with_scores(run, change):
    """The run with its table of scores changed."""
    return dataclasses.replace(run, scores=change(run.scores)).arguments


def cases_of(run, **keys):
    """Case ids of the plan's rows with these keys."""
    tests = [pl.col(k) == v for k, v in keys.items()]
    return run.plan.filter(pl.all_horizontal(tests))["case_id"]


def test_there_is_one_row_a_cell_sorted_by_its_keys(summary):
    keys = summary.select(CELL_KEYS)

    assert summary.schema == pl.Schema(SUMMARY_SCHEMA)
    assert keys.is_unique().all()
    assert keys.equals(keys.sort(CELL_KEYS, nulls_last=False))
    probes = summary.group_by("probe").agg(pl.col("attribute").unique().sort())
    found = {probe: attributes for probe, attributes in probes.iter_rows()}
    assert found == {
        "original": [None],
        "empty_prompt": [None],
        "swap": ["color", "size"],
        "random_word": ["color", "size"],
        "out_of_distribution": [None],
    }


def test_every_limit_encloses_its_estimate_and_the_95_percent_the_90(summary):
    probes = summary.filter(~pl.col("probe").is_in(["original", "out_of_distribution"]))
    assert probes.height == 20
    for r in probes.iter_rows(named=True):
        low, high = (r[f"relative_change_{end}_percent"] for end in ("low", "high"))
        low90, high90 = (r[f"relative_change_{end}90_percent"] for end in ("low", "high"))
        assert low <= low90 <= r["relative_change_percent"] <= high90 <= high
        assert r["change_low_points"] <= r["change_points"] <= r["change_high_points"]
        assert r["dice_low"] <= r["dice"] <= r["dice_high"]
        assert r["agreement_low"] <= r["agreement"] <= r["agreement_high"]


def test_figures_of_a_row_fit_together(summary):
    for r in summary.filter(pl.col("probe") != "original").iter_rows(named=True):
        change = r["dice"] - r["reference_dice"]
        assert r["change_points"] == pytest.approx(100 * change)
        expected = 100 * change / r["reference_dice"]
        assert r["relative_change_percent"] == pytest.approx(expected)


def test_an_original_is_its_own_reference_and_changes_nothing(summary):
    r = row(summary, probe="original")

    assert (r["dice"], r["dice_low"]) == (r["reference_dice"], r["reference_dice_low"])
    assert math.isnan(r["relative_change_percent"])
    assert math.isnan(r["agreement"])
    assert (r["reason"], r["notes"]) == (None, [])
    assert (r["n_samples"], r["n_clusters"], r["n_cases"]) == (40, 20, 40)


def test_names_facts_and_signatures_stand_on_every_row(summary):
    assert row(summary, probe="original")["cluster_kind"] == "patient"
    assert row(summary, dataset="outside", probe="original")["cluster_kind"] == "kind not stated"
    blind = summary.filter(pl.col("model") == "blind")
    assert set(blind["signature"]) == {"dice|res:model|thr:0.35|empty:1|gt:>127|v:1"}
    assert set(blind["threshold"]) == {0.35}


def test_worst_of_n_and_catastrophic_drops_stand_beside(run, summary):
    r, empty = row(summary, probe="swap", attribute="size"), row(summary, probe="empty_prompt")
    assert r["worst_of"] == 3
    assert r["worst_change_percent"] < r["relative_change_percent"]
    assert (
        r["worst_change_low_percent"] < r["worst_change_percent"] < r["worst_change_high_percent"]
    )
    # With one variant a sample, the worst is the only one.
    assert empty["worst_of"] == 1
    assert empty["worst_change_percent"] == pytest.approx(empty["relative_change_percent"])
    low, high = (r[f"catastrophic_share_{end}"] for end in ("low", "high"))
    assert 0 < low < r["catastrophic_share"] < high
    original = row(summary, probe="original")
    assert math.isnan(original["catastrophic_share"])
    assert math.isnan(original["worst_of"])


def test_the_smallest_effect_follows_the_standard_error(summary):
    moved = row(summary, probe="swap", attribute="size")
    error = moved["relative_change_standard_error_percent"]
    assert moved["smallest_effect_percent"] == pytest.approx((2.093 + 0.861) * error, rel=0.001)
    assert moved["relative_change_word_error_percent"] == 0


def test_words_have_a_part_of_the_error(summary):
    words = row(summary, probe="random_word", attribute="size")
    error = words["relative_change_standard_error_percent"]
    assert 0 < words["relative_change_word_error_percent"] < error
    assert row(summary, probe="swap", attribute="size")["relative_change_word_error_percent"] == 0


def test_the_harmonic_mean_stands_with_the_rows_away(summary):
    r = row(summary, dataset="outside", probe="out_of_distribution")
    both = 2 / (1 / r["dice"] + 1 / r["reference_dice"])
    assert r["harmonic_dice"] == pytest.approx(both)
    assert r["harmonic_dice_low"] < both < r["harmonic_dice_high"]


def test_words_are_resampled_from_ten_on(synthetic, quick_suite, summary):
    many = row(summary, probe="random_word", attribute="size")
    few = assess(**synthetic(n_words=9).arguments, suite=quick_suite()).summary
    few = row(few, probe="random_word", attribute="size")

    assert (many["n_words"], many["resampled"], many["notes"]) == (10, "words x clusters", [])
    assert (few["n_words"], few["resampled"]) == (9, "clusters")
    assert few["notes"] == ["for these words only"]


@pytest.mark.parametrize(("n_words", "alike"), [(9, True), (10, False)])
def test_fewer_words_are_a_mean_and_not_a_sample(synthetic, quick_suite, n_words, alike):
    """Without their names, words are repeats: the mean is the same, only clusters are drawn."""
    run = synthetic(n_words=n_words)
    nameless = dataclasses.replace(
        run, plan=run.plan.with_columns(word=pl.lit(None, dtype=pl.String))
    )

    named, repeats = (
        row(
            assess(**r.arguments, suite=quick_suite()).summary,
            probe="random_word",
            attribute="size",
        )
        for r in (run, nameless)
    )

    same = pytest.approx(named["relative_change_percent"], rel=1e-9)
    assert repeats["relative_change_percent"] == same
    limit = "relative_change_low_percent"
    assert (repeats[limit] == pytest.approx(named[limit], rel=1e-9)) is alike


def test_the_order_of_rows_changes_nothing(run, quick_suite, summary):
    shuffled = dataclasses.replace(
        run,
        plan=run.plan.sample(fraction=1, shuffle=True, seed=1),
        scores=run.scores.sample(fraction=1, shuffle=True, seed=2),
        models=run.models[::-1],
    )

    again = assess(
        **shuffled.arguments, suite=quick_suite(), cluster_kinds={"inside": "patient"}
    ).summary

    assert again.equals(summary)


@pytest.mark.parametrize("threads", ["1", "4"])
def test_the_number_of_threads_changes_nothing(run, quick_suite, summary, tmp_path, threads):
    """Polars fixes its threads when it is imported, so each count needs a process."""
    run.plan.write_parquet(tmp_path / "plan.parquet")
    run.scores.write_parquet(tmp_path / "scores.parquet")
    facts = [dataclasses.asdict(m) for m in run.models]
    (tmp_path / "run.json").write_text(json.dumps([facts, quick_suite().model_dump()]))
    program = (
        "import json, pathlib, polars as pl\n"
        "from harness.plan.build import NOT_APPLICABLE_SCHEMA\n"
        "from harness.stats.pairs import ModelFacts\n"
        "from harness.stats.assessment import assess\n"
        "from harness.suite.schema import Suite\n"
        "facts, suite = json.loads(pathlib.Path('run.json').read_text())\n"
        "models = [ModelFacts(**f | {'trained_on': tuple(f['trained_on'])}) for f in facts]\n"
        "out = assess(pl.read_parquet('plan.parquet'), pl.read_parquet('scores.parquet'),\n"
        "    models=models, not_applicable=pl.DataFrame(schema=NOT_APPLICABLE_SCHEMA),\n"
        "    suite=Suite.model_validate(suite), cluster_kinds={'inside': 'patient'})\n"
        "out.summary.write_parquet('summary.parquet')\n"
    )
    threads_of = {"POLARS_MAX_THREADS": threads, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, env=os.environ | threads_of
    )

    found = pl.read_parquet(tmp_path / "summary.parquet")

    figures = [c for c, t in SUMMARY_SCHEMA.items() if t == pl.Float64]
    assert found.drop(figures).equals(summary.drop(figures))
    # BLAS here may use other kernels than one thread does: equal up to its rounding only.
    for name in figures:
        np.testing.assert_allclose(found[name], summary[name], rtol=1e-9, atol=1e-9)


def test_a_low_baseline_has_no_relative_change_and_keeps_its_points(run, quick_suite):
    tiny = with_scores(run, lambda s: s.with_columns(tp=(pl.col("tp") * 0.1).cast(pl.Int64)))

    r = row(assess(**tiny, suite=quick_suite()).summary, probe="swap", attribute="size")

    assert r["reason"] == "baseline too low: Dice under 0.1"
    assert all(math.isnan(v) for k, v in r.items() if k.startswith("relative_change"))
    assert r["change_points"] < 0
    assert r["reference_dice_low"] < 0.10
    assert r["verdict_allowed"] is False
    assert r["n_samples"] == 40


def test_the_floor_is_the_suites(run, quick_suite, summary):
    strict = assess(**run.arguments, suite=quick_suite(dice_floor=0.95)).summary

    assert row(strict, probe="empty_prompt")["reason"] == "baseline too low: Dice under 0.95"
    assert row(summary, probe="empty_prompt")["reason"] is None


def test_few_clusters_show_an_interval_and_get_no_verdict(summary):
    few = row(summary, dataset="outside", probe="swap", attribute="size")
    enough = row(summary, probe="swap", attribute="size")

    assert few["n_clusters"] == 15
    assert few["notes"] == ["under 20 clusters: no verdict"]
    assert few["verdict_allowed"] is False
    assert few["relative_change_low_percent"] < few["relative_change_high_percent"]
    assert (enough["n_clusters"], enough["verdict_allowed"]) == (20, True)


def test_a_model_that_is_empty_on_its_originals_gets_no_verdict(run, quick_suite):
    originals = cases_of(run, probe="original")[::3].to_list()
    silent = with_scores(
        run,
        lambda s: s.with_columns(
            pl.when(pl.col("case_id").is_in(originals)).then(0).otherwise(c).alias(c)
            for c in ("tp", "n_pred", "tp_original", "n_pred_original")
        ),
    )

    r = row(assess(**silent, suite=quick_suite()).summary, probe="swap", attribute="size")

    assert r["originals_empty_share"] == pytest.approx(14 / 40)
    assert r["notes"] == ["mask empty for 35 % of originals: no verdict"]
    assert r["verdict_allowed"] is False


def test_a_model_that_does_not_hear_changes_by_exactly_nothing(run, quick_suite):
    """Every variant's counts are its original's: all intervals are [0, 0]."""
    own = run.plan.select("case_id", "original_case_id")
    counts = ["tp", "n_pred", "n_gt"]
    originals = run.scores.select("model_id", *counts, original_case_id="case_id")
    deaf = run.scores.drop(counts, "tp_original", "n_pred_original").join(own, on="case_id")
    deaf = deaf.join(originals, on=["model_id", "original_case_id"]).with_columns(
        tp_original="n_pred", n_pred_original="n_pred"
    )

    out = assess(**with_scores(run, lambda s: deaf.select(s.columns)), suite=quick_suite()).summary

    probes = out.filter(~pl.col("probe").is_in(["original", "out_of_distribution"]))
    changes = [c for c in out.columns if c.startswith(("relative_change", "change_"))]
    assert len(changes) == 15
    np.testing.assert_allclose(probes.select(changes).to_numpy(), 0, atol=1e-12)
    np.testing.assert_array_equal(probes.select("agreement_low", "agreement_high").to_numpy(), 1)
    assert probes.filter(dataset="inside")["verdict_allowed"].all()


def test_failed_missing_and_orphaned_cases_are_counted_and_left_out(run, quick_suite):
    swaps = cases_of(run, dataset="inside", probe="swap", attribute="size").to_list()
    lost = cases_of(run, dataset="inside", probe="original", sample_id="s0000").to_list()
    counts = ["tp", "n_pred", "n_gt", "tp_original", "n_pred_original", "height", "width"]
    # The first three swaps belong to s0000, whose original fails, too.
    failing = [swaps[0], swaps[4], *lost]

    def damage(scores):
        fails = pl.col("case_id").is_in(failing)
        return scores.filter(pl.col("case_id") != swaps[8]).with_columns(
            pl.when(fails).then(pl.lit("failed")).otherwise("status").alias("status"),
            *(pl.when(~fails).then(c).alias(c) for c in counts),
        )

    out = assess(**with_scores(run, damage), suite=quick_suite()).summary

    r = row(out, probe="swap", attribute="size")
    assert (r["n_cases"], r["n_failed"], r["n_missing"], r["n_original_lost"]) == (120, 2, 1, 2)
    assert (r["n_samples"], r["n_clusters"]) == (39, 20)
    o = row(out, probe="original")
    assert (o["n_cases"], o["n_failed"], o["n_samples"]) == (40, 1, 39)


def test_a_run_without_scores_says_so(run, quick_suite):
    out = assess(**with_scores(run, lambda s: s.clear()), suite=quick_suite()).summary

    r = row(out, probe="swap", attribute="size")
    assert (r["reason"], r["n_missing"], r["n_samples"]) == ("not scored yet", 120, 0)
    away = row(out, dataset="outside", probe="out_of_distribution")
    assert (away["reason"], away["n_samples"]) == ("no Dice is left to compare", 0)


def test_when_every_case_failed_the_row_says_so(run, quick_suite):
    out = assess(
        **with_scores(run, lambda s: s.with_columns(status=pl.lit("failed"))), suite=quick_suite()
    ).summary

    r = row(out, probe="swap", attribute="size")
    assert (r["reason"], r["n_failed"], r["verdict_allowed"]) == ("every case failed", 120, False)


def test_undefined_dice_is_counted_when_empty_masks_have_none(run, quick_suite):
    """BUSI's normal images: no truth, and rightly no prediction."""
    ids = cases_of(run, dataset="inside", sample_id="s0001").to_list()
    zeros = ("tp", "n_pred", "n_gt", "tp_original", "n_pred_original")
    empty = with_scores(
        run,
        lambda s: s.with_columns(
            pl.when(pl.col("case_id").is_in(ids)).then(0).otherwise(c).alias(c) for c in zeros
        ),
    )
    suite = quick_suite()
    undefined = suite.model_copy(
        update={"metric": suite.metric.model_copy(update={"empty": "nan"})}
    )

    one = row(assess(**empty, suite=suite).summary, probe="swap", attribute="size")
    nan = row(assess(**empty, suite=undefined).summary, probe="swap", attribute="size")

    assert (one["n_samples"], one["n_undefined"], one["n_both_empty"]) == (40, 0, 3)
    assert (nan["n_samples"], nan["n_undefined"], nan["n_both_empty"]) == (39, 3, 3)
    # Agreement needs no ground truth: two empty masks agree under either rule.
    assert nan["n_samples_agreement"] == 40
    assert nan["agreement"] == pytest.approx(one["agreement"])
    assert "empty:nan" in nan["signature"]


def test_what_does_not_apply_is_counted_with_its_reasons(run, quick_suite):
    skipped = pl.DataFrame(
        [
            ("inside", "test", "swap", "size", "released", "p6", "one value only", 2),
            ("inside", "test", "swap", "shape", "released", "p6", "attribute absent", 7),
            ("inside", "test", "swap", "shape", "released", "p6", "no opposite", 33),
        ],
        schema=NOT_APPLICABLE_SCHEMA,
        orient="row",
    )

    out = assess(**run.arguments | {"not_applicable": skipped}, suite=quick_suite()).summary

    partly = row(out, probe="swap", attribute="size")
    assert (partly["n_not_applicable"], partly["not_applicable"]) == (2, "one value only (2)")
    assert partly["n_samples"] == 40
    never = row(out, probe="swap", attribute="shape")
    assert never["n_not_applicable"] == 40
    assert never["not_applicable"] == "no opposite (33); attribute absent (7)"
    assert (never["reason"], never["n_cases"], never["prompts"]) == (
        "not applicable",
        0,
        "released",
    )
    assert math.isnan(never["dice"])
    assert row(out, probe="swap", attribute="color")["n_not_applicable"] == 0


def test_named_targets_and_false_positives_stand_beside(run, quick_suite):
    named = cases_of(run, dataset="inside", probe="swap", attribute="size").to_list()
    plan = run.plan.with_columns(
        expected_mask=pl.when(pl.col("probe") == "empty_prompt")
        .then(pl.lit("empty"))
        .otherwise("expected_mask")
    )
    # The named mask is the predicted one in all but one case.
    is_named = pl.col("case_id").is_in(named) & (pl.col("model_id") == "m@1")
    tp_named = pl.when(is_named).then(
        pl.when(pl.col("case_id") == named[0]).then(0).otherwise("n_pred")
    )
    scores = run.scores.with_columns(tp_named=tp_named, n_named=pl.when(is_named).then("n_pred"))

    out = assess(**run.arguments | {"plan": plan, "scores": scores}, suite=quick_suite()).summary

    r = row(out, probe="swap", attribute="size")
    assert r["n_samples_named"] == 40
    assert r["dice_named"] == pytest.approx(1 - 1 / 120)
    gain = 100 * (r["dice_named"] - r["dice"])
    assert r["named_gain_points"] == pytest.approx(gain)
    assert r["named_gain_low_points"] < gain < r["named_gain_high_points"]
    # Every sample has a named target, so that the relative change is the decisive one.
    assert r["decisive_change_percent"] == pytest.approx(r["relative_change_percent"])
    assert r["n_clusters_named"] == r["n_clusters"]
    assert math.isnan(row(out, probe="swap", attribute="color")["named_gain_points"])
    assert row(out, probe="swap", attribute="color")["n_samples_named"] == 0
    e = row(out, probe="empty_prompt")
    ids = cases_of(run, dataset="inside", probe="empty_prompt").to_list()
    own = scores.filter(pl.col("case_id").is_in(ids), pl.col("model_id") == "m@1")
    assert e["n_samples_refusal"] == 40
    assert e["false_positive_area"] == pytest.approx(own["n_pred"].mean() / 64**2)
    assert e["false_positive_area_low"] < e["false_positive_area"] < e["false_positive_area_high"]


def test_a_case_with_two_scores_is_refused(run, quick_suite):
    message = (
        "scores: 1 cases are scored twice for one model. A case has one score. "
        "Merge the parts before averaging (harness.runs.store does)."
    )
    doubled = with_scores(run, lambda s: pl.concat([s, s.head(1)]))
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        assess(**doubled, suite=quick_suite())


def test_only_the_given_models_are_summarised(run, quick_suite, summary):
    one = assess(
        **run.arguments | {"models": run.models[:1]},
        suite=quick_suite(),
        cluster_kinds={"inside": "patient"},
    ).summary

    kept = summary.filter(pl.col("model_id") == "m@1", pl.col("probe") != "out_of_distribution")
    assert one.filter(pl.col("probe") != "out_of_distribution").equals(kept)


def test_the_same_model_twice_is_one_model(run, quick_suite, summary):
    twice = run.arguments | {"models": [*run.models, run.models[0]]}

    again = assess(**twice, suite=quick_suite(), cluster_kinds={"inside": "patient"}).summary

    assert again.equals(summary)


def test_a_seed_fixes_the_limits_and_another_moves_them(run, quick_suite, summary):
    other = assess(**run.arguments, suite=quick_suite(seed=1)).summary

    first, second = (row(s, probe="swap", attribute="size") for s in (summary, other))
    assert first["relative_change_percent"] == second["relative_change_percent"]
    assert first["relative_change_low_percent"] != second["relative_change_low_percent"]


def test_a_model_of_unknown_training_still_has_its_probes(run, quick_suite):
    models = [ModelFacts("m@1", "m", (), False, 0.5)]

    out = assess(**run.arguments | {"models": models}, suite=quick_suite()).summary

    away = out.filter(pl.col("probe") == "out_of_distribution")
    assert set(away["dataset"]) == {"inside", "outside"}
    reason = "not applicable: the model's card does not say what it was trained on"
    assert set(away["reason"]) == {reason}
    assert away["relative_change_percent"].is_nan().all()
    assert row(out, probe="swap", attribute="size")["reason"] is None


def reach(run, *, survives, same=False, **keys):
    """A table of texts in which the edits of the cases with these keys fare so for `m@1`."""
    chosen = cases_of(run, **keys)
    plan = run.plan.with_columns(
        prompt=pl.when(pl.col("case_id").is_in(chosen.implode()))
        .then(pl.format("{} cut", "case_id"))
        .otherwise("prompt")
    )
    texts = plan.filter(pl.col("case_id").is_in(chosen.implode())).select(
        text="prompt", original_text="original_prompt", model_id=pl.lit("m@1")
    )
    return dataclasses.replace(run, plan=plan).arguments | {
        "texts": texts.with_columns(edit_survives=pl.lit(survives), same_tokens=pl.lit(same))
    }


def test_a_probe_whose_edits_are_cut_away_is_no_robust_one(run, quick_suite, summary):
    keys = {"dataset": "inside", "probe": "swap", "attribute": "size"}
    out = assess(**reach(run, survives=False, **keys), suite=quick_suite()).summary

    cut = row(out, **keys)
    assert cut["reason"] == "edits cut away by the model's token limit"
    assert (cut["n_cases"], cut["n_cut_away"], cut["n_samples"]) == (120, 120, 0)
    assert math.isnan(cut["relative_change_percent"])
    assert math.isnan(cut["agreement"])
    assert not cut["verdict_allowed"]
    assert cut["n_undefined"] == cut["n_missing"] == cut["n_failed"] == 0
    # Nobody else is touched: not the other model, not the other attribute.
    before = row(summary, model_id="blind@1", **keys)
    assert row(out, model_id="blind@1", **keys)["dice"] == before["dice"]
    other = keys | {"attribute": "color"}
    assert (
        row(out, **other)["relative_change_percent"]
        == row(summary, **other)["relative_change_percent"]
    )


def test_edits_cut_away_in_part_are_counted_and_left_out(run, quick_suite):
    keys = {"dataset": "inside", "probe": "swap", "attribute": "size"}
    out = assess(**reach(run, survives=False, repeat=0, **keys), suite=quick_suite()).summary
    gone = set(cases_of(run, repeat=0, **keys))
    without = with_scores(run, lambda s: s.filter(~pl.col("case_id").is_in(list(gone))))
    expected = row(assess(**without, suite=quick_suite()).summary, **keys)

    found = row(out, **keys)
    assert found["n_cut_away"] == 40
    assert found["relative_change_percent"] == expected["relative_change_percent"]
    assert found["agreement"] == expected["agreement"]


def test_edits_that_leave_the_tokens_alone_are_counted_and_kept(run, quick_suite, summary):
    keys = {"dataset": "inside", "probe": "swap", "attribute": "size"}
    out = assess(**reach(run, survives=True, same=True, **keys), suite=quick_suite()).summary
    found, before = row(out, **keys), row(summary, **keys)
    assert (found["n_same_tokens"], found["n_cut_away"]) == (120, 0)
    assert found["relative_change_percent"] == before["relative_change_percent"]

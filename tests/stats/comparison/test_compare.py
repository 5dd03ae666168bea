"""Comparisons of models and their ranks: against plain Python, laws, and what is left out."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from scipy.special import ndtri

from harness.auditing.subjects import subjects_of
from harness.errors import NothingSelectedError, RunError
from harness.files.writing import Ledger, parquet_bytes
from harness.runs.store import RunStore
from harness.stats.comparison.common import CHANGE, ORIGINAL, STEADINESS
from harness.stats.comparison.compare import (
    DIFFERENCE_SCHEMA,
    RANK_SCHEMA,
    compare,
    ranks,
    two_sided,
)
from harness.stats.inference import PIVOT_LEVELS, Inference, Intervals

KEYS = ["figure", "dataset", "probe", "attribute"]


@pytest.fixture(scope="module")
def run(compared_run):
    return compared_run()


def compared(*runs, **rules):
    settings = {"statistics": rules} if rules else {}
    return compare(subjects_of([str(r) for r in runs], [], rules=settings))


@pytest.fixture(scope="module")
def found(run):
    return compared(run)


def dice(row):
    whole = row["n_pred"] + row["n_gt"]
    return 2 * row["tp"] / whole if whole else 1.0


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def slow_figures(folder, model_id):
    """Original Dice, relative changes and steadiness of one model from its counts: plain loops."""
    store = RunStore(folder)
    plan = {r["case_id"]: r for r in store.plan_cases().iter_rows(named=True)}
    scores = {
        r["case_id"]: r
        for r in store.scores().filter(pl.col("model_id") == model_id).iter_rows(named=True)
    }
    originals = [c for c, row in plan.items() if row["probe"] == "original"]
    figures = {(ORIGINAL, None, None): 100 * mean(dice(scores[c]) for c in originals)}
    cells, agreements = {}, []
    for case, row in plan.items():
        if row["probe"] != "original":
            cell = cells.setdefault((row["probe"], row["attribute"]), {})
            cell.setdefault(row["sample_id"], []).append(case)
    for (probe, attribute), samples in cells.items():
        after = [mean(dice(scores[c]) for c in cases) for cases in samples.values()]
        before = [dice(scores[plan[cases[0]]["original_case_id"]]) for cases in samples.values()]
        figures[CHANGE, probe, attribute] = 100 * (mean(after) / mean(before) - 1)
        if plan[next(iter(samples.values()))[0]]["meaning"] == "preserved":
            for cases in samples.values():
                own = [scores[c] for c in cases]
                kept = [2 * s["tp_original"] / (s["n_pred"] + s["n_pred_original"]) for s in own]
                agreements.append(mean(kept))
    figures[STEADINESS, None, None] = 100 * mean(agreements)
    return figures


def test_figures_agree_with_plain_loops_over_the_counts(run, found):
    first, second = slow_figures(run, "m@1"), slow_figures(run, "blind@1")
    rows = found.differences.rows(named=True)
    assert len(rows) == len(first) == 7
    for row in rows:
        key = row["figure"], row["probe"], row["attribute"]
        assert row["value_first"] == pytest.approx(first[key])
        assert row["value_second"] == pytest.approx(second[key])
        assert row["difference"] == pytest.approx(first[key] - second[key])
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["n_clusters"] == 30
    assert set(found.differences.filter(pl.col("probe") == "random_word")["resampled"]) == {
        "words x clusters"
    }


def test_limits_agree_with_a_plain_bootstrap(run, found):
    """Original Dice: the same draws, looped over in Python, studentised by hand."""
    from harness.stats.bootstrap import cluster_draws

    plan = RunStore(run).plan_cases().filter(pl.col("probe") == "original")
    rows = plan.join(RunStore(run).scores(), on="case_id").rows(named=True)
    sums = {}
    for row in rows:
        sign = 1 if row["model_id"] == "m@1" else -1
        one = sums.setdefault(row["cluster_id"], [0.0, 0])
        one[0] += sign * dice(row)
        one[1] += sign == 1
    names = sorted(sums)

    def estimate(weights):
        total = sum(w * sums[n][1] for w, n in zip(weights, names, strict=True))
        value = sum(w * sums[n][0] for w, n in zip(weights, names, strict=True)) / total
        pairs = zip(weights, names, strict=True)
        square = sum(w * (sums[n][0] - value * sums[n][1]) ** 2 for w, n in pairs)
        return value, (len(names) / (len(names) - 1) * square) ** 0.5 / total

    value, error = estimate([1] * len(names))
    draws = cluster_draws("inside/test", names, count=400, seed=0)
    drawn = [estimate(w) for _, block in draws.blocks() for w in block]
    t = [(v - value) / max(e, error / 4) for v, e in drawn]
    row = found.differences.filter(pl.col("figure") == ORIGINAL).row(0, named=True)
    assert row["low"] == pytest.approx(100 * (value - np.quantile(t, 0.975) * error))
    assert row["high"] == pytest.approx(100 * (value - np.quantile(t, 0.025) * error))


def test_a_model_against_itself_is_zero_and_nothing_differs(run):
    same = compared(f"{run}#m", f"{run}#m")
    assert same.differences["figure"].n_unique() == 3
    for name in ("difference", "low", "high"):
        assert (same.differences[name] == 0).all()
    assert (same.differences["p_adjusted"] == 1).all()
    assert not same.differences["differs"].any()
    assert same.ranks.select("rank", "last_rank").unique().rows() == [(1, 2)]
    assert [c.label for c in same.coverage] == ["m (1)", "m (2)"]


def test_the_order_of_models_turns_signs_and_nothing_else(run, found):
    other = compared(f"{run}#blind", f"{run}#m").differences.sort(KEYS)
    here = found.differences.sort(KEYS)
    np.testing.assert_allclose(here["difference"], -other["difference"])
    np.testing.assert_allclose(here["low"], -other["high"], rtol=1e-6)
    assert here["differs"].to_list() == other["differs"].to_list()
    np.testing.assert_allclose(here["p_adjusted"], other["p_adjusted"], rtol=0.2, atol=1e-3)


def test_the_order_of_rows_does_not_matter(compared_run, found):
    shuffled = compared(
        compared_run(
            change=lambda run: replace(
                run,
                plan=run.plan.sample(fraction=1, shuffle=True, seed=3),
                scores=run.scores.sample(fraction=1, shuffle=True, seed=4),
            )
        )
    )
    assert_frame_equal(shuffled.differences, found.differences)
    assert_frame_equal(shuffled.ranks, found.ranks)


def test_schemas_and_signature_are_kept(found):
    assert dict(found.differences.schema) == DIFFERENCE_SCHEMA
    assert dict(found.ranks.schema) == RANK_SCHEMA
    assert found.signature == (
        "dice|res:model|thr:own|empty:1|gt:>127|v:1|compare|holm|clusters:20|draws:400|floor:0.1|v:2"
    )


def test_models_of_two_runs_are_compared_on_the_cases_they_share(compared_run, run):
    """Half the samples are in one run only, and one model failed on a few cases more."""
    whole = RunStore(run).plan_cases()
    gone = set(whole["sample_id"].unique().sort()[:10])
    broken = whole.filter(pl.col("sample_id") == "s0030", pl.col("probe") != "original")

    def smaller(found):
        failed = pl.col("case_id").is_in(broken["case_id"].implode())
        status = pl.when(failed).then(pl.lit("failed")).otherwise("status")
        return replace(
            found,
            plan=found.plan.filter(~pl.col("sample_id").is_in(gone)),
            scores=found.scores.with_columns(status=status),
        )

    other = compared_run(change=smaller)
    both = compared(f"{run}#m", f"{other}#blind")
    alone = compared(f"{other}#m", f"{other}#blind")

    n = whole.height
    here, there = both.coverage
    kept = n - 10 * (n // 60)
    assert (here.n_planned, here.n_common) == (n, kept)
    assert (there.n_planned, there.n_common) == (kept, kept)
    assert here.n_compared == there.n_compared == kept - broken.height
    shown = both.differences.drop("first", "second")
    assert_frame_equal(shown, alone.differences.drop("first", "second"))
    assert set(both.differences.filter(pl.col("figure") == CHANGE)["n_samples"]) == {49}


def test_plans_without_a_common_case_select_nothing(compared_run, run):
    with pytest.raises(NothingSelectedError, match="^compare: 0 cases stand in every plan"):
        compared(run, compared_run(seed=5))


def test_other_metrics_are_refused(compared_run, run):
    other = compared_run(("native",))
    text = (other / "suite.lock.yaml").read_text() + "metric: {resolution: native}\n"
    Ledger(other).write({"suite.lock.yaml": text.encode()})
    message = f"{other} has 'dice|res:native|thr:0.5|empty:1|gt:>127|v:1'. Numbers of different"
    with pytest.raises(RunError, match=re.escape(message)):
        compared(run, other)


def test_other_data_behind_the_same_cases_are_refused(compared_run, run):
    def grown(found):
        return replace(found, scores=found.scores.with_columns(pl.col("n_gt") + 1))

    other = compared_run(change=grown)
    message = "cases have true masks of different sizes in "
    with pytest.raises(RunError, match=re.escape(message)):
        compared(f"{run}#m", f"{other}#blind")


def test_another_backend_is_named(compared_run, run):
    other = compared_run()
    entries = [entry | {"backend": "openvino"} for entry in RunStore(other).manifest["models"]]
    RunStore(other).update(models=entries)
    found = compared(f"{run}#m", f"{other}#m")
    said = "computed by {}, others are not: pixels near the threshold may differ"
    assert [c.note for c in found.coverage] == [said.format(b) for b in ("torch", "openvino")]
    assert [c.note for c in compared(other).coverage] == ["", ""]


def test_few_clusters_have_intervals_and_no_test(compared_run):
    few = compared(compared_run(size=30))
    assert few.differences["differs"].null_count() == few.differences.height
    assert set(few.differences["reason"]) == {"15 clusters, and 20 are needed"}
    assert few.differences["low"].is_finite().all()
    assert few.ranks.select("rank", "last_rank").unique().rows() == [(None, None)]
    assert few.ranks["tied_with"].list.len().sum() == 0


def test_a_baseline_too_low_is_undefined_in_a_comparison_as_in_a_run(compared_run):
    """Fewer than 20 clusters, too: that is no reason to print what `run` leaves out."""
    low = compared(compared_run(size=30, change=poor))
    changes = low.differences.filter(pl.col("figure") == CHANGE)
    assert set(changes["reason"]) == {"baseline too low: Dice under 0.1"}
    figures = ("difference", "low", "high", "value_second", "p_value")
    assert all(changes[name].is_nan().all() for name in figures)


def test_the_lower_limit_alone_may_be_too_low(compared_run):
    found = compared(compared_run(size=30, change=scattered))
    changes = found.differences.filter(pl.col("figure") == CHANGE)
    assert changes["difference"].is_nan().all()
    assert set(changes["reason"]) == {"baseline too low: lower limit of Dice under 0.1"}
    second = found.differences.filter(pl.col("figure") == ORIGINAL)["value_second"]
    assert second.min() > 10, "its mean is not"


def poor(found):
    """The second model finds next to nothing."""
    tp = pl.when(pl.col("model_id") == "blind@1").then(pl.col("tp") // 20).otherwise("tp")
    return replace(found, scores=found.scores.with_columns(tp=tp))


def scattered(found):
    """The second model finds a fifth of the pictures, and nothing in the others."""
    plan = found.plan.select("case_id", "cluster_id")
    hit = pl.col("cluster_id").rank("dense") % 5 == 0
    scores = found.scores.join(plan.with_columns(hit=hit), on="case_id", how="left")
    lost = (pl.col("model_id") == "blind@1") & ~pl.col("hit")
    scores = scores.with_columns(tp=pl.when(lost).then(0).otherwise("tp"))
    return replace(found, scores=scores.drop("cluster_id", "hit"))


def test_a_model_that_misses_its_targets_has_no_relative_change(compared_run):
    rows = compared(compared_run(change=poor)).differences
    changes = rows.filter(pl.col("figure") == CHANGE)
    assert set(changes["reason"]) == {"baseline too low: Dice under 0.1"}
    assert changes["difference"].is_nan().all()
    assert changes["value_second"].is_nan().all()
    assert changes["value_first"].is_finite().all()
    original = rows.filter(pl.col("figure") == ORIGINAL).row(0, named=True)
    assert original["differs"] is True


@pytest.mark.parametrize(("errors", "p"), [(1.8, 0.0719), (-1.8, 0.0719), (2.0, 0.0455), (0, 1)])
def test_a_difference_is_tested_on_both_sides(errors, p):
    """Normal draws: 1.8 errors from 0 are 3.6 % on one side, and 7.2 % on two."""
    limits = [np.array([errors + z]) for z in ndtri([0.025, 0.975, 0.05, 0.95, *[0.5] * 4])]
    intervals = Intervals(np.array([float(errors)]), np.ones(1), *limits)
    solved = Inference(intervals, ndtri(PIVOT_LEVELS)[:, None], np.array([1e6]), *np.zeros((2, 1)))
    assert two_sided(solved) == pytest.approx([p], abs=2e-4)


def test_an_empty_model_is_not_ranked_by_steadiness(compared_run):
    def empty(found):
        nothing = (pl.col("model_id") == "blind@1") & (pl.col("case_id") % 2 == 0)
        counts = ("tp", "n_pred", "tp_original")
        zero = [pl.when(nothing).then(0).otherwise(c).alias(c) for c in counts]
        return replace(found, scores=found.scores.with_columns(zero))

    placed = compared(compared_run(change=empty)).ranks
    steady = placed.filter(pl.col("figure") == STEADINESS)
    reasons = dict(steady.select("model", "reason").iter_rows())
    assert re.fullmatch(r"mask empty for \d+ % of originals", reasons["blind"])
    placed = dict(steady.select("model", "rank").iter_rows())
    assert placed == {"m": 1, "blind": None}
    assert steady["model"].to_list() == ["m", "blind"], "those without a rank come last"
    assert steady["last_rank"].to_list() == [1, None], "no rank counts what has none"


def test_three_models_are_ranked_and_ties_share_their_ranks(compared_run):
    """Two models are one and the same; the third lost half of what it had."""

    def change(found):
        first = found.scores.filter(pl.col("model_id") == "a@1")
        worse = (pl.col("tp") * 0.5).cast(pl.Int64)
        twins = [first.with_columns(model_id=pl.lit(m)) for m in ("a@1", "b@1")]
        weak = first.with_columns(worse.alias("tp"), model_id=pl.lit("c@1"))
        return replace(found, scores=pl.concat([*twins, weak]))

    found = compared(compared_run(("a", "b", "c"), change=change))
    placed = found.ranks.filter(pl.col("figure") == ORIGINAL)
    assert placed.select("model", "rank", "last_rank").rows() == [
        ("a", 1, 2), ("b", 1, 2), ("c", 3, 3),
    ]  # fmt: skip
    assert placed["tied_with"].to_list() == [["b"], ["a"], []]
    original = found.differences.filter(pl.col("figure") == ORIGINAL)
    assert original["n_family"].to_list() == [3, 3, 3]
    assert original["differs"].to_list() == [False, True, True]


def test_too_few_draws_for_a_large_family_are_named(run):
    assert compared(run).n_tests_too_many == 0
    assert compared(run, draws=100).n_tests_too_many == 5
    assert compared(run, draws=100, correction="none").n_tests_too_many == 0


def test_cut_away_edits_are_left_out_for_both(compared_run):
    """A text that the first model's token limit cuts says nothing of either model."""

    def worded(found):
        cut = (pl.col("probe") == "empty_prompt") & (pl.col("sample_id") < "s0010")
        prompt = pl.when(cut).then(pl.lit("long")).otherwise("prompt")
        return replace(found, plan=found.plan.with_columns(prompt=prompt))

    folder = compared_run(change=worded)
    row = {"text": "long", "original_text": "x", "edit_survives": False, "same_tokens": True}
    Ledger(folder).write({"texts/m@1.parquet": parquet_bytes(pl.DataFrame([row]))})
    found = compared(folder)
    assert [c.n_compared for c in found.coverage] == [c.n_common - 10 for c in found.coverage]
    empty = found.differences.filter(pl.col("probe") == "empty_prompt")
    assert empty["n_samples"].to_list() == [50]


def test_cases_without_an_agreement_are_left_out_for_both(compared_run):
    """Of the second model ten cases of one probe lack the overlap with the original's mask."""

    def changed(found):
        cases = found.plan.filter(pl.col("probe") == "swap").sort("case_id")["case_id"][:10]
        lost = pl.col("case_id").is_in(cases.implode()) & (pl.col("model_id") == "blind@1")
        overlap = pl.when(~lost).then("tp_original")
        return replace(found, scores=found.scores.with_columns(tp_original=overlap))

    found = compared(compared_run(change=changed))
    assert [c.n_common - c.n_compared for c in found.coverage] == [10, 10]
    assert found.differences.filter(pl.col("figure") == STEADINESS)["difference"].is_finite().all()


def test_models_that_are_not_shown_to_differ_share_their_ranks():
    assert [r.text for r in ranks(3, [(0, 1), (0, 2)])] == ["1", "2-3", "2-3"]
    assert [r.text for r in ranks(2, [])] == ["1-2", "1-2"]
    assert [r.tied_with for r in ranks(3, [(0, 1), (0, 2)])] == [(), (2,), (1,)]


def test_a_tie_need_not_be_transitive_and_the_ranges_say_so():
    first, second, third = ranks(3, [(0, 2)])
    assert (first.text, second.text, third.text) == ("1-2", "1-3", "2-3")
    assert second.tied_with == (0, 2)


@st.composite
def tournaments(draw):
    size = draw(st.integers(1, 6))
    pairs = [(a, b) for a in range(size) for b in range(a + 1, size)]
    results = [draw(st.sampled_from([None, (a, b), (b, a)])) for a, b in pairs]
    return size, [r for r in results if r]


@given(tournaments())
def test_ranges_are_within_bounds_and_ties_are_mutual(tournament):
    size, shown = tournament
    found = ranks(size, shown)
    for place, rank in enumerate(found):
        assert 1 <= rank.first <= rank.last <= size
        assert rank.last - rank.first == len(rank.tied_with)
        assert all(place in found[other].tied_with for other in rank.tied_with)


@given(st.integers(1, 6), st.randoms())
def test_a_full_order_has_no_ties_whatever_the_order_of_the_pairs(size, random):
    shown = [(a, b) for a in range(size) for b in range(a + 1, size)]
    random.shuffle(shown)
    assert [r.text for r in ranks(size, shown)] == [str(k + 1) for k in range(size)]

"""Plans in numbers: nothing is lost, and chunks and pools change no figure that they may not."""

import dataclasses
import io
import re

import numpy as np
import polars as pl
import pytest

from harness.errors import RunError
from harness.stats import coding, pairs
from harness.stats.assessment import assess
from harness.stats.bootstrap import cluster_draws, ratio_inference
from harness.stats.coding import PLAN_KEYS, code_plan, code_scores


@pytest.fixture(scope="module")
def run(synthetic):
    return synthetic(n_words=10)


def test_numbers_stand_for_the_names_of_the_plan(run):
    coded = code_plan(run.plan)
    named = (
        coded.scan()
        .collect()
        .join(coded.cells.drop("n_cases"), on="plan_cell")
        .join(coded.clusters.drop("dataset", "split"), on="cluster")
        .join(coded.images, on="sample")
        .with_columns(word=pl.col("word").map_elements(lambda n: coded.words[n], pl.String))
        .sort("case_id")
    )
    plan = run.plan.sort("case_id")
    for column in (*PLAN_KEYS, "cluster_id", "image_id", "repeat", "prompt_index"):
        assert named[column].to_list() == plan[column].to_list(), column
    assert named["word"].to_list() == plan["word"].fill_null("").to_list()
    assert coded.cells["n_cases"].sum() == plan.height


def test_slices_of_the_plan_give_the_same_codes(run, monkeypatch):
    whole = code_plan(run.plan).scan().collect().sort("case_id")
    monkeypatch.setattr(coding, "_ROWS", 97)
    assert code_plan(run.plan.lazy()).scan().collect().sort("case_id").equals(whole)


@pytest.mark.parametrize("rows", [97, 10_000_000])
def test_ranges_of_ids_hold_each_case_once(run, monkeypatch, rows):
    ends = pl.DataFrame({"case_id": [0, 2**64 - 1]}, schema={"case_id": pl.UInt64})
    plan = pl.concat([run.plan, run.plan.head(2).with_columns(ends)])
    monkeypatch.setattr(coding, "_ROWS", rows)
    coded = code_plan(plan)
    found = [coded.scan().filter(own).collect() for own in coded.ranges()]
    assert len(found) == -(-plan.height // rows)
    assert pl.concat(found)["case_id"].sort().equals(plan["case_id"].sort())


def test_chunks_are_whole_and_in_order_wherever_ranges_end(run, quick_suite, monkeypatch):
    """Scores are put beside cases by ranges of ids, figures are made from whole clusters."""
    suite = quick_suite()
    whole = assess(**run.arguments | {"suite": suite})
    monkeypatch.setattr(coding, "_ROWS", 97)
    assert assess(**run.arguments | {"suite": suite}).summary.equals(whole.summary)


def test_small_chunks_change_nothing(run, quick_suite, monkeypatch):
    arguments = run.arguments | {"suite": quick_suite()}
    whole = assess(**arguments)
    monkeypatch.setattr(pairs.Pairs.chunks, "__kwdefaults__", {"rows": 60})
    cut = assess(**arguments)
    for name in whole.summary.columns:
        first, second = whole.summary[name], cut.summary[name]
        if first.dtype == pl.Float64:
            np.testing.assert_allclose(second, first, rtol=1e-9, atol=1e-9, err_msg=name)
        else:
            assert second.to_list() == first.to_list(), name


def test_chunks_end_with_clusters(run):
    def chunks(*sizes, rows):
        clusters = pl.DataFrame({"cluster": range(len(sizes)), "n_cases": sizes})
        return pairs._chunks_of(clusters, rows)["chunk"].to_list()

    assert chunks(2, 3, 1, 2, rows=3) == [0, 0, 1, 1]
    assert chunks(5, rows=2) == [0]
    assert chunks(rows=2) == []


def test_a_scored_case_has_its_counts_and_a_failed_one_none(run):
    scores = run.scores.with_columns(
        status=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("failed")).otherwise("status")
    )
    coded = pl.read_parquet(io.BytesIO(code_scores(scores, "m@1")))
    assert coded.height == run.scores.filter(pl.col("model_id") == "m@1").height
    failed = coded.filter("failed")
    assert failed["case_id"].to_list() == [scores["case_id"][0]]
    assert failed["tp"].to_list() == [None]
    assert set(coded["pixels"].drop_nulls()) == {64 * 64}


def test_a_case_with_two_scores_is_refused(run, quick_suite):
    twice = pl.concat([run.scores, run.scores.head(1)])
    message = "scores: 1 cases are scored twice for one model. A case has one score."
    with pytest.raises(RunError, match="^" + re.escape(message)):
        assess(**run.arguments | {"suite": quick_suite(), "scores": twice})


def test_few_clusters_are_units_and_many_are_pooled(run):
    plain = code_plan(run.plan)
    assert plain.units["name"].to_list() == plain.clusters["cluster_id"].to_list()
    pooled = code_plan(run.plan, most_units=6)
    sizes = pooled.clusters.group_by("dataset", "unit").len()
    assert pooled.units.group_by("dataset").len()["len"].to_list() == [6, 6]
    # Pools differ by one cluster at most.
    for _, rows in sizes.group_by("dataset"):
        assert rows["len"].max() - rows["len"].min() <= 1
    assert pooled.clusters["cluster"].to_list() == plain.clusters["cluster"].to_list()


def test_pools_keep_every_estimate_and_about_the_intervals(synthetic, quick_suite, monkeypatch):
    run = synthetic({"inside": 600}, n_words=2, seed=4)
    one = quick_suite(draws=2000)
    single = assess(**run.arguments, suite=one).summary
    monkeypatch.setattr(coding.code_plan, "__kwdefaults__", {"most_units": 100})
    pooled = assess(**run.arguments, suite=one).summary
    exact = ("dice", "relative_change_percent", "n_clusters", "n_samples", "agreement")
    for name in (*exact, "relative_change_clusters_percent"):
        np.testing.assert_allclose(single[name], pooled[name], rtol=1e-9, atol=1e-12)
    probes = pl.col("model_id") == "m@1", pl.col("probe") == "swap"
    width = [
        (s["relative_change_high_percent"] - s["relative_change_low_percent"]).to_numpy()
        for s in (single.filter(probes), pooled.filter(probes))
    ]
    np.testing.assert_allclose(width[0], width[1], rtol=0.3)


def test_pooled_intervals_cover():
    """1,000 skewed clusters in 50 pools: the truth lies in about 95 % of the intervals."""
    rng = np.random.default_rng(0)
    base = rng.beta(8, 2, (1000, 400))
    after = base * (1 - rng.exponential(0.1, base.shape).clip(0, 1))
    truth = after.mean() / base.mean()
    pool = rng.permutation(1000) % 50
    pooled = [np.array([x[pool == k].sum(axis=0) for k in range(50)]) for x in (after, base)]
    draws = cluster_draws("d", [f"p{k}" for k in range(50)], count=1000, seed=0)
    found = ratio_inference(*pooled, draws=draws).intervals
    assert 0.92 <= np.mean((found.low <= truth) & (found.high >= truth)) <= 0.98


def test_a_run_read_lazily_is_the_same_run(run, quick_suite, tmp_path):
    run.plan.write_parquet(tmp_path / "plan.parquet")
    run.scores.write_parquet(tmp_path / "scores.parquet")
    scans = {name: pl.scan_parquet(tmp_path / f"{name}.parquet") for name in ("plan", "scores")}
    eager = assess(**run.arguments, suite=quick_suite())
    lazy = assess(**run.arguments | scans, suite=quick_suite())
    assert lazy.summary.equals(eager.summary)
    assert lazy.records() == eager.records()


def test_models_without_scores_are_not_forgotten(run, quick_suite):
    only = dataclasses.replace(run, scores=run.scores.filter(pl.col("model_id") == "m@1"))
    out = assess(**only.arguments, suite=quick_suite()).summary
    blind = out.filter(pl.col("model_id") == "blind@1", pl.col("probe") == "swap")
    assert set(blind["reason"]) == {"not scored yet"}

"""Averages against their definition, written as loops over cases."""

import math
from collections import defaultdict
from statistics import mean

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.plan.build import PLAN_SCHEMA
from harness.runs.store import SCORE_SCHEMA
from harness.stats.pairs import ModelFacts, pair
from harness.stats.relative import REFUSAL, cell_figures, cell_totals, cluster_sums, nested_means

MODELS = [ModelFacts("m", "m", (), False, 0.5)]
PIXELS = 40
FLOOR = 0.1


@st.composite
def count_rows(draw):
    """Counts of one case, possibly failed, possibly with empty masks."""
    n_gt, n_pred = draw(st.integers(0, PIXELS)), draw(st.integers(0, PIXELS))
    return {
        "n_gt": n_gt,
        "n_pred": n_pred,
        "tp": draw(st.integers(0, min(n_gt, n_pred))),
        "status": draw(st.sampled_from(["done"] * 5 + ["failed"])),
    }


@st.composite
def small_runs(draw):
    """A few samples in clusters, some prompts each, some variants (words, repeats) each."""
    plan, scores = [], []
    for s in range(draw(st.integers(1, 4))):
        cluster = f"c{draw(st.integers(0, 2))}"
        for index in range(draw(st.integers(1, 2))):
            original = draw(count_rows())
            keys = {"sample_id": f"s{s}", "cluster_id": cluster, "prompt_index": index}
            variants = draw(
                st.lists(st.tuples(st.sampled_from([None, "u", "v"]), st.integers(0, 1)),
                         max_size=4, unique=True)
            )  # fmt: skip
            original_id = len(plan)
            add_case(plan, scores, keys, original, original_id, original, ("original", None, 0))
            for word, repeat in variants:
                case = draw(count_rows())
                place = ("probe", word, repeat)
                add_case(plan, scores, keys, case, original_id, original, place)
                both = min(case["n_pred"], original["n_pred"])
                if original["status"] == "done":
                    scores[-1]["tp_original"] = draw(st.integers(0, both))
    return plan, scores


def add_case(plan, scores, keys, counts, original_id, original, place):
    probe, word, repeat = place
    row = dict.fromkeys(PLAN_SCHEMA) | keys
    row |= {"case_id": len(plan), "original_case_id": original_id, "dataset": "d", "split": "test"}
    row |= {"prompts": "released", "prompt_type": "p6", "probe": probe, "word": word}
    row |= {"repeat": repeat, "image_id": keys["sample_id"], "expected_mask": "empty"}
    plan.append(row)
    failed = counts["status"] == "failed"
    score = dict.fromkeys(SCORE_SCHEMA) | {"model_id": "m", "case_id": row["case_id"]}
    score |= {"status": counts["status"], "error": "out of memory" if failed else None}
    if not failed:
        score |= counts | {"height": 8, "width": 5}
        score["n_pred_original"] = original["n_pred"] if original["status"] == "done" else None
    scores.append(score)


def frames(run):
    plan, scores = run
    return (
        pl.DataFrame(plan, schema=PLAN_SCHEMA, orient="row"),
        pl.DataFrame(
            [s if s["status"] == "done" else s | {"tp_original": None} for s in scores],
            schema=SCORE_SCHEMA,
            orient="row",
        ),
    )


def slow_dice(part, first, second, empty):
    return 2 * part / (first + second) if first + second else empty


def nested(values):
    """Mean of {(sample, index, word): [values]}: repeats, words, indices; by sample."""
    for _ in range(2):
        upper = defaultdict(list)
        for key, found in values.items():
            upper[key[:-1]].append(mean(found))
        values = upper
    return {key[0]: mean(found) for key, found in values.items()}


def slow(run, empty):
    """All figures of the one probe, from loops over cases."""
    plan, scores = run
    dice_of, out = {}, defaultdict(lambda: defaultdict(list))
    counted = defaultdict(int)
    cluster_of = {r["sample_id"]: r["cluster_id"] for r in plan}
    for row, score in zip(plan, scores, strict=True):
        if score["status"] == "done":
            n = slow_dice(score["tp"], score["n_pred"], score["n_gt"], empty)
            dice_of[row["case_id"]] = n
    for row, score in zip(plan, scores, strict=True):
        if row["probe"] == "original":
            continue
        key = (row["sample_id"], row["prompt_index"], row["word"])
        done, whole = row["case_id"] in dice_of, row["original_case_id"] in dice_of
        counted["failed"] += not done
        counted["original_lost"] += done and not whole
        if done:
            out["false_positive"][key].append(score["n_pred"] / PIXELS)
        if not (done and whole):
            continue
        pred, before = score["n_pred"], score["n_pred_original"]
        out["agreement"][key].append(slow_dice(score["tp_original"], pred, before, 1.0))
        counted["both_empty"] += pred == before == 0
        pair = dice_of[row["case_id"]], dice_of[row["original_case_id"]]
        if any(map(math.isnan, pair)):
            counted["undefined"] += 1
            continue
        out["dice"][key].append(pair[0])
        out["reference"][key].append(pair[1])
        out["worst"][(row["sample_id"], row["prompt_index"], "all")].append(pair[0])
        if pair[1] >= FLOOR:
            out["catastrophic"][key].append(float(pair[0] / pair[1] - 1 < -0.5))
    out["worst"] = {key: [min(values)] for key, values in out["worst"].items()}
    return {name: nested(values) for name, values in out.items()}, counted, cluster_of


@given(small_runs(), st.sampled_from([1.0, 0.0, math.nan]))
@settings(max_examples=60)
def test_means_agree_with_loops_over_cases(run, empty):
    plan, scores = frames(run)
    expected, counted, cluster_of = slow(run, empty)

    pairs = pair(plan, scores, models=MODELS, empty=empty, floor=0.1)
    all_cases = pl.concat(pairs.chunks())
    means = nested_means(all_cases)
    figures = cell_figures(cell_totals(means.samples, cluster_sums(means.samples), floor=0.1))

    cell = pairs.cells.filter(pl.col("probe") == "probe")["cell"]
    cases = all_cases.filter(pl.col("cell").is_in(cell.implode()))
    for flag in ("failed", "original_lost", "undefined", "both_empty"):
        assert cases[flag].sum() == counted[flag], flag
    if not len(cell):
        assert not any(expected.values())
        return
    row = figures.row(by_predicate=pl.col("cell") == cell[0], named=True)
    dice, before = expected.get("dice", {}), expected.get("reference", {})
    assert row["n_samples"] == len(dice)
    variants = cases.filter(pl.col("dice").is_not_null()).group_by("sample", "prompt_index").len()
    if dice:
        each = variants.group_by("sample").agg(pl.col("len").mean())["len"]
        assert row["worst_of"] == pytest.approx(each.mean())
    assert row["n_samples_agreement"] == len(expected.get("agreement", {}))
    false = expected.get("false_positive", {})
    assert row["n_samples_refusal"] == len(false)
    if false:
        own = means.samples.filter(pl.col("cell") == cell[0])
        assert own["false_positive"].mean() == pytest.approx(mean(false.values()))
    ratios = [dice[s] / before[s] - 1 for s in dice if before[s] >= 0.1]
    assert row["n_sample_ratios"] == len(ratios)
    if ratios:
        assert row["sample_ratio_percent"] == pytest.approx(100 * mean(ratios), abs=1e-9)
    check_sums(means.samples, cell[0], expected)
    check_clusters(row, dice, before, cluster_of)


def check_sums(samples, cell, expected):
    """Sums over clusters hold each sample's mean once."""
    own = cluster_sums(samples).filter(pl.col("cell") == cell)
    for name in ("dice", "reference", "agreement", "worst", "catastrophic"):
        assert own[name].sum() == pytest.approx(sum(expected.get(name, {}).values()))


def check_clusters(row, dice, before, cluster_of):
    """Each cluster's mean weighs the same."""
    groups = defaultdict(list)
    for sample in dice:
        groups[cluster_of[sample]].append(sample)
    assert (row["n_clusters"] or 0) == len(groups)
    base = sum(mean(before[s] for s in g) for g in groups.values())
    if base > 0:
        changed = sum(mean(dice[s] for s in g) for g in groups.values())
        percent = 100 * (changed / base - 1)
        assert row["relative_change_clusters_percent"] == pytest.approx(percent, abs=1e-9)


@given(small_runs())
@settings(max_examples=40)
def test_word_deviations_give_each_words_sum_and_cancel(run):
    """Sum over samples of (mean with this word less mean over words), missing words at the mean."""
    plan, scores = frames(run)
    cases = pl.concat(pair(plan, scores, models=MODELS, empty=1.0, floor=0.1).chunks())
    means = nested_means(cases)
    by_word, indices = defaultdict(dict), defaultdict(set)
    for case in cases.filter(pl.col("dice").is_not_null()).iter_rows(named=True):
        key = (case["cell"], case["cluster"], case["sample"])
        indices[key].add(case["prompt_index"])
        by_word[(*key, case["prompt_index"])].setdefault(case["word"], []).append(case["dice"])
    expected = defaultdict(float)
    for (*key, _), words in by_word.items():
        middle = mean(mean(v) for v in words.values())
        for word, values in words.items():
            share = (mean(values) - middle) / len(indices[tuple(key)])
            expected[(key[0], key[1], word)] += share
    found = {
        row[:3]: row[3] for row in means.words.select("cell", "cluster", "word", "dice").rows()
    }
    named = {key: value for key, value in expected.items() if key[2] > 0}
    for key in named.keys() | found.keys():
        assert found.get(key, 0.0) == pytest.approx(named.get(key, 0.0), abs=1e-12)


def test_a_sample_without_any_dice_has_no_ratio_even_without_a_floor():
    samples = pl.DataFrame(
        {"cell": [0, 0], "cluster": [0, 1], "sample": [0, 1], "dice": [0.4, 0.3]}
        | {"reference": [0.5, 0.0], "agreement": [1.0, 1.0], "original_empty": [0.0, 1.0]}
        | {key: [None, None] for key in ("dice_named", "own_named", "reference_named")}
        | {key: [None, None] for key in ("catastrophic", *REFUSAL)}
        | {"worst": [0.4, 0.3], "n_variants": [1.0, 1.0]}
    )

    totals = cell_totals(samples, cluster_sums(samples), floor=0.0)
    row = cell_figures(totals).row(0, named=True)

    assert row["n_sample_ratios"] == 1
    assert row["sample_ratio_percent"] == pytest.approx(-20)
    assert row["originals_empty_share"] == 0.5

"""Every expectation is decided, explained, and would flip where it says."""

import math
import re
from dataclasses import replace

import polars as pl
import pytest

from harness.stats.assessment import assess
from harness.suite.expectations import Expectation
from harness.suite.schema import Suite


def suite_of(expect=None, **statistics):
    """One probe with an expectation."""
    probe = {"name": "swap", "perturbation": "swap_value"}
    probe |= {} if expect is None else {"expect": expect}
    content = {"name": "s", "title": "s", "probes": [probe]}
    return Suite.model_validate(content | {"statistics": {"draws": 1500} | statistics})


@pytest.fixture(scope="module")
def run(synthetic):
    """Model m loses some Dice, model blind none: every variant of it is its original."""
    made = synthetic({"inside": 120}, n_words=3, seed=2)
    counts = ["tp", "n_pred", "n_gt"]
    blind = made.scores.filter(pl.col("model_id") == "blind@1")
    own = made.plan.select("case_id", "original_case_id")
    originals = blind.select(*counts, original_case_id="case_id")
    deaf = blind.drop(counts, "tp_original", "n_pred_original").join(own, on="case_id")
    deaf = deaf.join(originals, on="original_case_id").with_columns(
        tp_original="n_pred", n_pred_original="n_pred"
    )
    listener = made.scores.filter(pl.col("model_id") == "m@1")
    return replace(made, scores=pl.concat([listener, deaf.select(listener.columns)]))


@pytest.fixture(scope="module")
def verdicts_of(run):
    """A function: verdicts under an expectation, by (model, probe, attribute)."""

    def decide(expect=None, *, arguments=None, **statistics):
        found = assess(**(arguments or run.arguments), suite=suite_of(expect, **statistics))
        return {(v.model, v.probe, v.attribute): v for v in found.verdicts}

    return decide


def swap(verdicts, model="m", attribute="size"):
    return verdicts[model, "swap", attribute]


def test_a_silent_suite_gets_a_verdict_on_every_probe(verdicts_of):
    found = verdicts_of()
    probes = {(p, a) for _, p, a in found}
    assert probes == {
        ("swap", "size"), ("swap", "color"), ("empty_prompt", None),
        ("random_word", "size"), ("random_word", "color"),
    }  # fmt: skip
    assert {v.kind for v in found.values()} == {"invariance"}
    assert {v.accepted_high for v in found.values()} == {2.0}
    assert not any(v.binding for v in found.values())


def test_a_listener_is_moved_and_a_control_is_not(verdicts_of):
    found = verdicts_of()
    moved, still = swap(found), swap(found, "blind")
    assert (moved.verdict, moved.test) == ("fails", "difference")
    assert (still.verdict, still.test) == ("holds", "equivalence")
    assert moved.reason == (
        f"Dice changes by {moved.estimate:.1f} % [{moved.low:.1f}, {moved.high:.1f}]: shown to go "
        "beyond 2 %."
    )
    assert still.reason == (
        "Dice changes by 0.0 % [0.0, 0.0]: shown to stay within 2 %, and even within 0.0 %; "
        "up to 6.0 % of clusters could lose their mask without appearing in this sample."
    )


def test_limits_are_those_of_the_summary(run):
    found = assess(**run.arguments, suite=suite_of())
    row = found.summary.filter(
        pl.col("model") == "m", pl.col("probe") == "swap", pl.col("attribute") == "size"
    ).row(0, named=True)
    verdict = next(v for v in found.verdicts if (v.model, v.attribute) == ("m", "size"))
    assert verdict.probe in ("random_word", "swap")
    verdict = next(
        v for v in found.verdicts if (v.model, v.probe, v.attribute) == ("m", "swap", "size")
    )
    assert verdict.low == pytest.approx(row["relative_change_low_percent"])
    assert verdict.high90 == pytest.approx(row["relative_change_high90_percent"])
    assert verdict.smallest_effect == pytest.approx(row["smallest_effect_percent"])
    assert (row["expectation"], row["verdict"]) == (
        "invariance of relative_change within 2 %",
        verdict.verdict,
    )


@pytest.mark.parametrize(
    ("expect", "model", "outcome", "end"),
    [
        ({"kind": "minimum", "of": "agreement", "at_least": 0.95}, "blind", "holds",
         "shown to be at least 0.95."),
        ({"kind": "minimum", "of": "agreement", "at_least": 0.95}, "m", "fails",
         "shown not to be at least 0.95."),
        ({"kind": "direction", "below": -1}, "m", "holds", "shown to be below -1 %."),
        ({"kind": "direction", "below": -1}, "blind", "fails", "shown not to be below -1 %."),
        ({"kind": "direction", "of": "points", "above": 1}, "m", "fails",
         "shown not to be above 1 points."),
        ({"kind": "minimum", "of": "dice", "at_least": 0.01}, "m", "holds",
         "shown to be at least 0.01."),
    ],
)  # fmt: skip
def test_direction_and_minimum_hold_or_fail_on_one_side(verdicts_of, expect, model, outcome, end):
    verdict = swap(verdicts_of([expect]), model)
    assert verdict.verdict == outcome
    assert verdict.binding
    assert verdict.reason.endswith(end)


def test_between_the_two_it_is_open_and_says_what_could_have_been_seen(verdicts_of):
    estimate = swap(verdicts_of()).estimate
    verdict = swap(verdicts_of([{"kind": "invariance", "margin": round(-estimate, 1)}]))
    assert verdict.verdict == "inconclusive"
    assert re.search(
        r"neither shown to stay within [\d.]+ % nor to go beyond it; a change of "
        rf"{verdict.smallest_effect:.1f} % would have been seen in 4 of 5 studies like this\.$",
        verdict.reason,
    )
    side = swap(verdicts_of([{"kind": "minimum", "at_least": round(estimate, 1)}]))
    assert side.verdict == "inconclusive"
    assert "not shown to be at least" in side.reason


@pytest.mark.parametrize("model", ["m", "blind"])
@pytest.mark.parametrize("margin", [1.0, 8.0, 12.0, 30.0])
def test_an_invariance_flips_where_it_says(verdicts_of, model, margin):
    def verdict_at(value):
        # A margin is the whole probe's; without correction its rows do not bear on each other.
        expect = [{"kind": "invariance", "margin": value}]
        return swap(verdicts_of(expect, correction="none"), model)

    def at(value):
        return verdict_at(value).verdict

    verdict = verdict_at(margin)
    edge = verdict.flips_at
    if verdict.verdict == "holds":
        assert edge <= margin
        assert edge < 1e-9 or (at(edge * 1.001), at(edge * 0.99)) == ("holds", "inconclusive")
    elif verdict.verdict == "fails":
        assert edge > margin
        assert (at(edge * 0.99), at(edge * 1.001)) == ("fails", "inconclusive")
    else:
        assert edge > margin
        assert (at(edge * 0.99), at(edge * 1.001)) == ("inconclusive", "holds")


@pytest.mark.parametrize("bound", [-30.0, -12.0, -8.0, -1.0])
def test_a_bound_flips_where_it_says(verdicts_of, bound):
    def verdict_at(value):
        return swap(verdicts_of([{"kind": "minimum", "at_least": value}], correction="none"))

    def at(value):
        return verdict_at(value).verdict

    verdict = verdict_at(bound)
    edge = verdict.flips_at
    inner, outer = at(edge - 0.02), at(edge + 0.02)
    expected = {
        "holds": ("holds", "inconclusive"),
        "fails": ("inconclusive", "fails"),
        "inconclusive": ("holds", "inconclusive"),
    }
    assert (inner, outer) == expected[verdict.verdict]


def test_families_are_corrected_within_model_dataset_and_kind(verdicts_of):
    found = verdicts_of()
    assert {v.n_family for v in found.values()} == {5}
    for v in found.values():
        assert v.p_adjusted >= v.p_value
    both = verdicts_of([{"kind": "invariance"}, {"kind": "minimum", "of": "dice", "at_least": 0.1}])
    assert swap(both).kind == "minimum"  # the later of two on one row
    assert swap(both).n_family == 2


def test_without_correction_the_p_values_stand_as_they_are(verdicts_of):
    for v in verdicts_of(correction="none").values():
        assert v.p_adjusted == v.p_value
    holm, fdr = verdicts_of(), verdicts_of(correction="benjamini_hochberg")
    assert all(fdr[k].p_adjusted <= holm[k].p_adjusted + 1e-12 for k in holm)


def test_few_clusters_allow_no_verdict(run, verdicts_of):
    found = verdicts_of(minimum_clusters=61)
    for v in found.values():
        assert (v.verdict, v.test, v.n_family) == ("inconclusive", "none", 0)
        assert v.reason == "No verdict: 60 clusters, and 61 are needed."
        assert math.isnan(v.p_value)
        assert math.isfinite(v.estimate)


def test_a_low_baseline_forbids_relative_figures_only(run, verdicts_of):
    tiny = replace(run, scores=run.scores.with_columns(tp=(pl.col("tp") * 0.1).cast(pl.Int64)))
    relative = swap(verdicts_of(arguments=tiny.arguments))
    assert (relative.verdict, relative.reason) == (
        "inconclusive",
        "No verdict: baseline too low: Dice under 0.1.",
    )
    points = swap(
        verdicts_of(
            [{"kind": "invariance", "of": "points", "margin": 20}], arguments=tiny.arguments
        )
    )
    assert points.verdict == "holds"


def test_empty_originals_allow_no_verdict(run, verdicts_of):
    originals = run.plan.filter(pl.col("probe") == "original")["case_id"][::3].to_list()
    silent = run.scores.with_columns(
        pl.when(pl.col("case_id").is_in(originals)).then(0).otherwise(c).alias(c)
        for c in ("tp", "n_pred", "tp_original", "n_pred_original")
    )
    verdict = swap(verdicts_of(arguments=replace(run, scores=silent).arguments))
    assert verdict.reason == (
        "No verdict: the mask is empty for 33 % of the original prompts, and at most 20 % are "
        "allowed."
    )


def test_few_words_are_named(verdicts_of):
    verdict = verdicts_of()["m", "random_word", "size"]
    assert verdict.for_these_words_only
    assert "] for these words only: " in verdict.reason


def test_named_gain_needs_named_targets(verdicts_of):
    verdict = swap(verdicts_of([{"kind": "direction", "of": "named_gain", "above": 0}]))
    assert verdict.reason == "No verdict: 0 clusters with a named target, and 20 are needed."


def test_the_expectations_of_a_suite_are_those_of_its_records(verdicts_of):
    stated = [Expectation(kind="direction", below=-3)]
    verdict = swap(verdicts_of([e.model_dump(exclude_none=True) for e in stated]))
    assert (verdict.accepted_low, verdict.accepted_high) == (-math.inf, -3)

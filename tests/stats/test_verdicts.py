"""Records of verdicts, and their sentences."""

import json
import math

import pytest

from harness.stats.verdicts import (
    ALPHA,
    Verdict,
    amount,
    blocked_because,
    bound_text,
    coverage_note,
    expectation_text,
    from_record,
    reason_of,
    short,
    simulated_coverage,
    with_limits,
)

KEYS = {
    "model_id": "small@1a2b", "model": "small", "dataset": "kvasir_polyp", "split": "test",
    "prompts": "released", "prompt_type": "p6", "probe": "synonym", "attribute": "size",
    "perturbation": "synonym", "meaning": "preserved",
}  # fmt: skip


def test_a_verdict_survives_its_file():
    """A worked example: a synonym costs 1 %, so invariance within 3 % holds."""
    verdict = Verdict(
        **KEYS,
        kind="invariance", of="relative_change", accepted_low=-3.0, accepted_high=3.0,
        binding=True, verdict="holds", test="equivalence",
        reason="Dice changes by -1.0 % [-1.9, 0.1], within 3 %: invariance holds.",
        p_value=0.001, p_adjusted=0.004, n_family=4, estimate=-1.0, low=-1.9, high=0.1,
        low90=-1.7, high90=-0.1, standard_error=0.5, flips_at=2.1, smallest_effect=1.4,
        n_samples=100, n_clusters=98,
    )  # fmt: skip
    assert from_record(json.loads(json.dumps(verdict.record()))) == verdict


def test_an_open_end_is_null_in_the_file_and_open_again_after_it():
    verdict = Verdict(
        **KEYS, kind="minimum", of="agreement", accepted_low=0.9, accepted_high=float("inf"),
        binding=True, verdict="inconclusive", reason="12 clusters, 20 are needed.",
    )  # fmt: skip
    record = json.loads(json.dumps(verdict.record(), allow_nan=False))
    assert (record["accepted_low"], record["accepted_high"]) == (0.9, None)
    assert from_record(record).accepted_high == float("inf")


SWAP = {
    "model_id": "m@1", "model": "m", "dataset": "d", "split": "test", "prompts": "released",
    "prompt_type": "p6", "probe": "swap", "attribute": "size", "perturbation": "swap_value",
    "meaning": "changed", "binding": True, "reason": "",
}  # fmt: skip


def verdict(outcome, **given):
    figures = {"estimate": -1.7, "low": -5.5, "high": 0.5, "p_value": 0.04, "p_adjusted": 0.04}
    figures |= {"kind": "invariance", "of": "relative_change", "accepted_low": -2.0}
    figures |= {"accepted_high": 2.0, "smallest_effect": 4.2, "n_family": 6}
    return Verdict(**SWAP, verdict=outcome, **figures | given)


@pytest.mark.parametrize(
    ("value", "of", "text"),
    [
        (-1.26, "relative_change", "-1.3 %"),
        (-0.04, "points", "0.0 points"),
        (0.9496, "agreement", "0.950"),
        (0.7, "named_gain", "+0.7 points"),
        (-0.7, "named_gain", "-0.7 points"),
        (0.04, "named_gain", "0.0 points"),
        (math.nan, "dice", "nan"),
    ],
)
def test_an_amount_has_its_unit(value, of, text):
    assert amount(value, of) == text


def test_limits_have_the_figures_digits_and_no_second_unit():
    assert with_limits(-1.7, -5.52, 0.5, "relative_change") == "-1.7 % [-5.5, 0.5]"
    assert with_limits(0.9, 0.85, 0.951, "agreement") == "0.900 [0.850, 0.951]"


def test_bounds_are_said_as_they_were_written():
    assert short(2.0, "relative_change") == "2 %"
    assert bound_text(verdict("holds")) == "within 2 %"
    below = verdict("holds", kind="direction", accepted_low=-math.inf, accepted_high=-10.0)
    above = verdict("holds", kind="direction", of="named_gain", accepted_low=0.0,
                    accepted_high=math.inf)  # fmt: skip
    least = verdict("holds", kind="minimum", of="agreement", accepted_low=0.95,
                    accepted_high=math.inf)  # fmt: skip
    assert [bound_text(v) for v in (below, above, least)] == [
        "below -10 %", "above 0 points", "at least 0.95",
    ]  # fmt: skip
    assert expectation_text(least) == "minimum of agreement at least 0.95"


def test_an_open_verdict_says_what_would_have_been_seen():
    assert reason_of(verdict("inconclusive"), alpha=ALPHA) == (
        "Dice changes by -1.7 % [-5.5, 0.5]: neither shown to stay within 2 % nor to go beyond "
        "it; a change of 4.2 % would have been seen in 4 of 5 studies like this."
    )


def test_where_only_the_number_of_tests_stands_in_the_way_it_is_said():
    held_back = verdict("inconclusive", p_adjusted=0.08)
    assert " beyond it after correction for 6 tests; " in reason_of(held_back, alpha=ALPHA)
    side = verdict("inconclusive", kind="minimum", accepted_low=-3.0, accepted_high=math.inf,
                   p_adjusted=0.08)  # fmt: skip
    assert reason_of(side, alpha=ALPHA).endswith(
        "not shown to be at least -3 %, nor the contrary after correction for 6 tests."
    )


def test_what_may_be_absent_is_named_where_it_could_matter():
    rare = verdict("holds", flips_at=0.4, unseen_share=0.0363)
    assert reason_of(rare, alpha=ALPHA).endswith(
        "shown to stay within 2 %, and even within 0.4 %; up to 3.6 % of clusters could lose "
        "their mask without appearing in this sample."
    )
    for share in (0.019, math.nan):
        known = verdict("holds", flips_at=0.4, unseen_share=share)
        assert reason_of(known, alpha=ALPHA).endswith("and even within 0.4 %.")


@pytest.mark.parametrize(
    ("of", "text"),
    [
        ("agreement", "Mask agreement 0.700 [0.300, 0.900]"),
        (
            "named_gain",
            "Dice on the new target minus Dice on the old one: +0.7 points [+0.3, +0.9]",
        ),
        ("dice", "Dice after the change is 0.700 [0.300, 0.900]"),
    ],
)
def test_each_figure_has_its_own_words(of, text):
    low = {"of": of, "kind": "minimum", "accepted_low": 0.1, "accepted_high": math.inf}
    found = verdict("holds", **low, estimate=0.7, low=0.3, high=0.9)
    assert reason_of(found, alpha=ALPHA).startswith(text)


def test_few_words_stand_beside_the_figure():
    few = verdict("fails", for_these_words_only=True)
    assert reason_of(few, alpha=ALPHA) == (
        "Dice changes by -1.7 % [-5.5, 0.5] for these words only: shown to go beyond 2 %."
    )


def test_what_allows_no_verdict_says_what_is_missing():
    assert blocked_because("baseline too low") == "No verdict: baseline too low."
    assert (
        blocked_because(n_clusters=12, needed=20) == "No verdict: 12 clusters, and 20 are needed."
    )
    assert blocked_because(n_clusters=12, needed=20, named=True) == (
        "No verdict: 12 clusters with a named target, and 20 are needed."
    )
    assert blocked_because(n_clusters=30, needed=20, empty_share=0.25) == (
        "No verdict: the mask is empty for 25 % of the original prompts, and at most 20 % are "
        "allowed."
    )
    assert blocked_because(n_clusters=30, needed=20, empty_share=0.2) == ""
    assert blocked_because(defined=False) == "No verdict: the figure has no standard error."


def test_few_clusters_are_told_with_the_coverage_of_so_few():
    """Of two simulated numbers of clusters the one that covers less counts."""
    assert simulated_coverage(20) == (83.6, 97.9)
    assert simulated_coverage(49) == (83.6, 95.8)
    assert simulated_coverage(50) == (95.7, 96.9)
    assert simulated_coverage(12) is None
    assert coverage_note(24) == (
        "24 clusters are few: in simulated studies 95 % intervals held the truth in 83.6 to 95.8 % "
        "(changes of Dice; refusal rates 94.5 to 97.1 %), least where whole clusters lose their "
        "mask (reports/statistics.md)."
    )
    assert "71.8 to 97.3 % (changes of Dice), least" in coverage_note(15)
    assert coverage_note(6).startswith("6 clusters are fewer than were simulated: ")
    assert coverage_note(51) == coverage_note(0) == ""

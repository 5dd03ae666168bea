"""The texts of a comparison: ties, what is not ranked, what is undefined."""

import json

import polars as pl

from harness.report.comparison import (
    comparison_html,
    comparison_json,
    comparison_markdown,
    coverage_lines,
    sections,
)
from harness.stats.comparison.common import Coverage
from harness.stats.comparison.compare import DIFFERENCE_SCHEMA, RANK_SCHEMA, Comparison
from harness.stats.comparison.ranking import DATASET_SCHEMA, OVERALL_SCHEMA

SET = {"dataset": "d", "split": "test", "prompts": "released", "prompt_type": "p6"}
COVERED = Coverage("a", "runs/a", "a@1", "0" * 64, 100, 100, 98)


def comparison(
    *, differences=(), ranks=(), coverage=(COVERED,), too_many=0, overall=(), datasets=()
):
    rows = [dict.fromkeys(DIFFERENCE_SCHEMA) | SET | row for row in differences]
    places = [dict.fromkeys(RANK_SCHEMA) | SET | row for row in ranks]
    return Comparison(
        pl.DataFrame(rows, schema=DIFFERENCE_SCHEMA, orient="row"),
        pl.DataFrame(places, schema=RANK_SCHEMA, orient="row"),
        tuple(coverage),
        "signature",
        too_many,
        pl.DataFrame(list(overall), schema=OVERALL_SCHEMA, orient="row"),
        pl.DataFrame(list(datasets), schema=DATASET_SCHEMA, orient="row"),
    )


CHANGE = {
    "figure": "relative_change", "first": "a", "second": "b", "probe": "antonym",
    "value_first": -20.04, "value_second": -0.01, "difference": -20.03, "low": -25.0,
    "high": -15.0, "p_adjusted": 0.0004, "differs": True, "n_samples": 90, "n_clusters": 30,
}  # fmt: skip


def test_a_difference_is_one_row_with_its_limits_and_p_value():
    (section,) = sections(comparison(differences=[CHANGE]))
    assert section.title == "a less b, d (test, p6)"
    assert section.lead == "90 samples, 30 clusters."
    assert section.rows == (
        (
            *("change %", "antonym", "whole prompt", "-20.0", "0.0"),
            *("-20.0 [-25.0, -15.0]", "<0.001", "-", "yes"),
        ),
    )


def test_dice_and_agreement_are_fractions_and_stored_in_points():
    row = CHANGE | {"figure": "original_dice", "probe": None, "value_first": 85.26}
    row |= {"value_second": 84.04, "difference": 1.22, "low": -0.3, "high": 2.74}
    found = comparison(differences=[row])
    (section,) = sections(found)
    assert section.rows[0][3:6] == ("0.853", "0.840", "0.012 [-0.003, 0.027]")
    assert json.loads(comparison_json(found))["differences"][0]["value_first"] == 85.26


def test_what_allows_no_test_says_why_and_what_is_undefined_is_a_dash():
    nothing = dict.fromkeys(
        ("value_second", "difference", "low", "high", "p_adjusted"), float("nan")
    )
    row = CHANGE | nothing | {"differs": None, "reason": "baseline too low"}
    row["note"] = "for these words only"
    found = comparison(differences=[row])
    (section,) = sections(found)
    assert section.rows[0][4:] == ("-", "-", "-", "-", "baseline too low (for these words only)")
    stored = json.loads(comparison_json(found))["differences"][0]
    assert stored["difference"] is None
    assert stored["value_first"] == -20.04


def test_ties_are_ranges_and_named():
    ranks = [
        {"figure": "original_dice", "model": m, "value": 0.8, "low": 0.7, "high": 0.9, "rank": 1,
         "last_rank": 2, "tied_with": [other], "n_samples": 90, "n_clusters": 30, "reason": None,
         "rank_1_share": 0.5}
        for m, other in (("a", "b"), ("b", "a"))
    ]  # fmt: skip
    none = {"rank": None, "last_rank": None, "tied_with": [], "model": "c", "rank_1_share": None}
    ranks.append(ranks[0] | none | {"reason": "mask empty for 60 % of originals"})
    (section,) = sections(comparison(ranks=ranks))
    assert section.rows[0] == ("1-2", "a", "b", "0.800 [0.700, 0.900]", "50.0")
    assert section.rows[2] == ("-", "c", "-", "0.800 [0.700, 0.900]", "-")
    assert section.lead.endswith("Not ranked: c: mask empty for 60 % of originals.")


def over_datasets(**given):
    row = {"figure": "original_dice", "dataset": "d", "first": ["a"], "first_without": ["a", "b"]}
    return row | {"first_of_all": ["a"], "tau_others": -1.0, "tau_whole": None} | given


def test_what_leaving_a_data_set_out_does_to_the_first_place_is_said():
    overall = [
        {"figure": "original_dice", "model": m, "value": v, "rank_1_share": s, "n_datasets": 2}
        for m, v, s in (("a", 0.8, 0.97), ("b", 0.7, 0.03))
    ]
    rows = [over_datasets(), over_datasets(dataset="e", first_without=["a"])]
    found = comparison(overall=overall, datasets=rows)
    whole, by_set = sections(found)
    assert whole.title == "Dice of the original prompts, mean of 2 data sets"
    assert whole.rows == (("a", "0.800", "97.0"), ("b", "0.700", "3.0"))
    assert by_set.lead == "First over all: a; another without d."
    assert by_set.rows[0] == ("d", "a", "a, b", "-1.00", "-")
    stays = comparison(overall=overall, datasets=rows[1:])
    assert list(sections(stays))[1].lead.endswith("the same whichever data set is left out.")
    stored = json.loads(comparison_json(found))
    assert [row["rank_1_share"] for row in stored["overall"]] == [0.97, 0.03]
    assert stored["datasets"][0]["tau_whole"] is None


def test_coverage_says_what_was_left_out():
    assert next(coverage_lines(comparison())) == f"One plan ({'0' * 12}): 100 cases of each model."
    other = COVERED._replace(label="b", plan_sha256="1" * 64, n_planned=130)
    lines = list(coverage_lines(comparison(coverage=[COVERED, other], too_many=900)))
    assert lines[0].startswith("The plans differ: only the cases that stand in every plan")
    assert lines[2].startswith(
        "b (runs/a): 98 of 130 cases are compared; 30 are not in every plan, 2"
    )
    assert lines[3].startswith("With so few draws none of 900 tests of one family can be")


def test_names_are_escaped():
    hostile = comparison(differences=[CHANGE | {"first": "<img src=x>|a"}])
    assert "<img" not in comparison_html(hostile)
    page = comparison_markdown(hostile)
    assert "<img" not in page
    assert "&lt;img src=x&gt;\\|a less b" in page

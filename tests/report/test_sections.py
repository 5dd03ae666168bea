"""What the tables say, before anyone lays them out."""

import math

import pytest

from harness.report.sheet import interval, number
from harness.report.table import sections


def test_a_dataset_has_a_table_of_its_probes(summary):
    first = next(sections(summary))

    assert first.title == "small on kvasir_polyp (test, p6)"
    assert first.lead == (
        "Dice of the original prompts: 0.812 [0.790, 0.835]; 100 samples, 98 clusters (image)."
    )
    assert first.rows == (
        (
            "empty_prompt",
            "whole prompt",
            "-12.3 [-18.9, -7.0]",
            "-9.9",
            "0.912",
            "-",
            "100 (98)",
            "0",
        ),
        ("random_word", "color", "0.0 [-2.0, 2.0]", "0.0", "0.912", "-", "100 (98)", "0"),
        ("random_word", "size", "1.5", "1.2", "0.912", "-", "100 (98)", "0"),
        ("antonym", "size", "baseline too low", "-1.0", "-", "-", "100 (98)", "40"),
        ("antonym", "shape", "not applicable", "-", "-", "-", "0 (0)", "40"),
    )
    assert {len(row) for row in first.rows} == {len(first.header)}


def test_prompts_that_are_not_the_released_ones_are_named(summary_of):
    one = summary_of({"probe": "original", "prompts": "corrected"})
    assert next(sections(one)).title.endswith("(test, p6, corrected prompts)")


def test_notes_name_the_rows_they_belong_to_once(summary):
    assert next(sections(summary)).notes == (
        "original prompts: 5.0 % of the masks are empty although there is a target.",
        "random_word (color, size): for these words only.",
        "random_word color: 3 cases failed.",
        "antonym size: baseline too low.",
        "antonym size: not applicable to 40: no opposite (33); attribute absent (7).",
        "antonym shape: applies to no sample: no opposite (33); attribute absent (7).",
    )


def test_a_fact_of_every_row_is_said_once(summary_of):
    few = {"notes": ["under 20 clusters: no verdict"]}
    one = summary_of({"probe": "original"} | few, {"probe": "empty_prompt"} | few)

    assert next(sections(one)).notes == ("all rows: under 20 clusters: no verdict.",)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("n_failed", "7 cases failed"),
        ("n_original_lost", "7 cases have no original to compare with"),
        ("n_missing", "7 cases are not scored yet"),
        ("n_undefined", "7 cases have no Dice, both masks being empty"),
        ("n_both_empty", "7 cases with an empty mask before and after"),
        (
            "n_truncated",
            "7 cases whose prompt, or whose original, the model's token limit cuts",
        ),
        ("n_cut_away", "7 edits left out: the model's token limit cuts them away"),
        ("n_same_tokens", "7 edits leave the tokens as they were: the model cannot see them"),
    ],
)
def test_everything_left_out_is_said(summary_of, column, text):
    section = next(sections(summary_of({"probe": "original"}, {"probe": "swap", column: 7})))

    assert section.notes == (f"swap: {text}.",)


def test_named_targets_are_said(summary_of):
    named = {"n_samples_named": 12, "dice_named": 0.5}
    section = next(sections(summary_of({"probe": "swap"} | named)))

    assert section.notes == ("swap: Dice with the named target's mask 0.500 (12 samples).",)


def test_what_is_not_there_has_a_table_of_its_own(summary_of):
    rates = {"refusal_rate": 0.25, "refusal_rate_low": 0.1, "refusal_rate_high": 0.4}
    false = {"n_samples_refusal": 30, "n_clusters_refusal": 20, "false_positive_area": 0.01234}
    false |= {"mcc": 0.5, "mcc_low": 0.4, "mcc_high": 0.6, "dice_mcc": 0.4, "miss_rate": 0.0}
    near = {"probe": "absent_near", "absent_kind": "near", "aligned_share": 0.9}
    plain, section = list(
        sections(summary_of({"probe": "swap"}, near | rates | false, {"probe": "original"}))
    )[:2]

    assert section.title.endswith(": what is not there")
    assert section.rows == (
        ("absent_near", "near", "0.250 [0.100, 0.400]", "1.23", "0.900", "0.500 [0.400, 0.600]",
         "0.400", "0.000", "30 (20)"),
    )  # fmt: skip
    assert len(plain.rows) == 2


def test_the_other_datasets_have_a_table_beside_the_control(summary):
    away = list(sections(summary))[-1]

    assert away.title == "small away from its training data"
    assert away.lead == "Against the mean of kvasir_polyp/test p6: Dice 0.812 [0.790, 0.830]."
    assert away.rows == (
        ("clinicdb_polyp", "-26.1 [-31.0, -20.0]", "-25.0", "-1.1 [-4.0, 2.0]", "0.600", "61 (29)"),
    )
    assert away.notes == (
        "clinicdb_polyp: 2 images left out that training sets also hold.",
        "The control is blind, on the same sets.",
    )


def test_a_model_of_unknown_training_has_the_reason_and_no_table(summary_of):
    reason = "not applicable: the model's card does not say what it was trained on"
    away = summary_of({"probe": "out_of_distribution", "reason": reason, "n_cases": None})

    (section,) = sections(away)

    assert (section.lead, section.rows) == ("", ())
    assert section.notes == (f"kvasir_polyp: {reason}.",)


def test_sets_away_are_named_as_far_as_needed(summary_of):
    away = {"probe": "out_of_distribution", "in_distribution": "a/test p6"}
    same = summary_of(away, away | {"prompt_type": "p1"})

    (section,) = sections(same)

    assert [r[0] for r in section.rows] == ["kvasir_polyp test p6", "kvasir_polyp test p1"]


def test_two_models_of_one_name_are_told_apart_by_their_ids(summary_of):
    two = summary_of(
        {"probe": "original", "model_id": "m@1", "model": "m"},
        {"probe": "original", "model_id": "m@2", "model": "m"},
    )

    titles = [s.title for s in sections(two)]

    assert titles == ["m@1 on kvasir_polyp (test, p6)", "m@2 on kvasir_polyp (test, p6)"]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (-0.04, 1, "0.0"), (-0.06, 1, "-0.1"), (0.0, 3, "0.000"), (math.nan, 1, "-"),
        (None, 1, "-"), (-100.0, 1, "-100.0"), (math.inf, 1, "-"),
    ],
)  # fmt: skip
def test_numbers(value, digits, text):
    assert number(value, digits) == text


def test_an_interval_of_one_cluster_is_its_estimate():
    row = {"dice": 0.5, "dice_low": math.nan, "dice_high": math.nan}

    assert interval(row, "dice", "", 2) == "0.50"

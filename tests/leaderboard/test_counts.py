"""Counts that no model could give: one test for each kind of tampering, each with its reason."""

import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.leaderboard.counts import (
    case_reasons,
    control_reasons,
    count_reasons,
    join_counts,
    rules,
    text_reasons,
)

VARIANT = pl.col("case_id") != pl.col("original_case_id")


@pytest.fixture
def rows(reference, tables):
    return join_counts(reference.plan.cases, tables["scores.parquet"], reference.truth)


@pytest.fixture
def victim(rows):
    """A variant that names another sample, where the model follows."""
    return rows.filter(VARIANT, pl.col("tp_named") > 3)["case_id"][0]


@pytest.fixture
def spoiled(reference, tables, victim):
    """The reasons after one column of one case was changed."""

    def told(column, value, case=None):
        chosen = pl.col("case_id") == (victim if case is None else case)
        expression = value if isinstance(value, pl.Expr) else pl.lit(value)
        changed = pl.when(chosen).then(expression).otherwise(column)
        scores = tables["scores.parquet"].with_columns(changed.alias(column))
        scores = scores.cast(tables["scores.parquet"].schema)
        return list(count_reasons(join_counts(reference.plan.cases, scores, reference.truth)))

    return told


def test_the_counts_of_a_real_run_stand(rows, reference, tables):
    assert list(count_reasons(rows)) == []
    assert list(case_reasons(reference.plan.cases, tables["scores.parquet"])) == []
    assert list(text_reasons(reference.plan.cases, tables["texts.parquet"], rows)) == []


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("tp", None, "tp is missing (1 case of this kind). A submission holds complete runs"),
        ("n_pred", -1, "n_pred is -1 in a picture of 9216 (1 case of this kind). Counts lie"),
        ("tp_original", 1 << 62, "tp_original is 4611686018427387904 in a picture of 9216"),
        ("n_gt", pl.col("n_gt") + 1, "where the truth has"),
        ("height", 95, "height is 95 where the truth has 96"),
        ("width", 97, "width is 97 where the truth has 96"),
        ("n_named", pl.col("n_named") - 1, "where the truth of the named sample has"),
        ("n_named", None, "n_named is None"),
        ("tp", pl.col("n_gt") + 1, "tp <= min(n_pred, n_gt): an overlap is no larger than either"),
        ("tp_named", pl.col("n_named") + 1, "tp_named <= min(n_pred, n_named)"),
        ("tp_original", pl.col("n_pred") + 1, "tp_original <= min(n_pred, n_pred_original)"),
        ("n_pred", 9216, "Two masks together are no larger than their picture"),
        ("n_pred_original", 5, "where the case of the original prompt has n_pred"),
    ],
)  # fmt: skip
def test_a_tampered_count_is_told(spoiled, victim, column, value, text):
    found = spoiled(column, value)
    assert any(text in reason for reason in found), found
    assert all(reason.startswith("scores.parquet: case ") for reason in found)
    assert any(reason.startswith(f"scores.parquet: case {victim}: ") for reason in found)
    assert all(
        reason.endswith("Run the track again and submit the counts as they were written.")
        for reason in found
    )


def test_three_masks_that_cannot_overlap_so_are_told(spoiled, rows):
    """The mask stayed where it was, but is said to have lost the target."""
    stayed = (pl.col("tp_original") == pl.col("n_pred")) & (pl.col("o_tp") > 50)
    case = rows.filter(VARIANT, stayed, pl.col("n_pred") == pl.col("n_pred_original"))["case_id"][0]
    found = spoiled("tp", 0, case=case)
    assert any(
        re.search(
            r"tp of the original \d+, tp_original \d+ and n_pred_original \d+ with tp 0 \(1 case "
            r"of this kind\)\. What both masks have in common with the target overlaps: no three",
            reason,
        )
        for reason in found
    ), found


def test_a_named_target_where_none_is_named_is_told(spoiled, rows):
    plain = rows.filter(VARIANT, pl.col("named_sample_id").is_null())["case_id"][0]
    assert (
        f"scores.parquet: case {plain}: tp_named is 3 (1 case of this kind). It is given for the "
        "cases whose prompt names another sample, and for no other. Run the track again and "
        "submit the counts as they were written."
    ) in spoiled("tp_named", 3, case=plain)


def test_an_original_that_differs_from_itself_is_told(spoiled, rows):
    original = rows.filter(~VARIANT, pl.col("n_pred") > 3)["case_id"][0]
    found = spoiled("tp_original", pl.col("n_pred") - 1, case=original)
    assert any("A mask overlaps itself in all its pixels" in reason for reason in found)


def test_two_masks_for_one_picture_and_prompt_are_told(spoiled, rows):
    """Two samples of one crowd are asked about with the same empty prompt."""
    several = rows.with_columns(n=pl.len().over("image", "prompt"))
    shared = several.filter(VARIANT, pl.col("n") > 1, pl.col("n_pred") > 50)
    found = spoiled("n_pred", pl.col("n_pred") + 1, case=shared["case_id"][-1])
    assert any("One picture and one prompt give one mask" in reason for reason in found)


def test_a_lost_case_is_told(reference, tables):
    scores = tables["scores.parquet"]
    gone = scores["case_id"][7]
    assert list(case_reasons(reference.plan.cases, scores.filter(pl.col("case_id") != gone))) == [
        f"scores.parquet: case_id: 1 cases of the plan are missing, the first is {gone}. Each of "
        "the track's 11672 cases stands there once. Run the track again and submit the counts as "
        "they were written."
    ]


def test_a_doubled_case_is_told(reference, tables):
    scores = tables["scores.parquet"]
    doubled = pl.concat([scores, scores[3:4]])
    (found,) = case_reasons(reference.plan.cases, doubled)
    assert f"1 cases stand twice or more, the first is {scores['case_id'][3]}" in found


def test_a_case_of_another_plan_is_told(reference, tables):
    scores = tables["scores.parquet"]
    foreign = scores[:1].with_columns(case_id=pl.lit(5, pl.UInt64))
    (found,) = case_reasons(reference.plan.cases, pl.concat([scores, foreign]))
    assert "1 rows are of no case of the plan, the first is 5" in found


def test_a_control_whose_mask_moves_is_told(rows):
    (found,) = control_reasons(rows)
    assert re.search(
        r"submission\.yaml: control: the model is said to read no prompt, and its mask moves in "
        r"\d+ cases, the first is \d+\. A control gives one mask a picture\. Set control: false\.",
        found,
    )


def told_of_texts(reference, tables, rows, **columns):
    texts = tables["texts.parquet"].with_columns(**columns)
    return list(text_reasons(reference.plan.cases, texts, rows))


def test_edits_cut_away_from_short_texts_are_told(reference, tables, rows):
    """Who calls bad cases cut away would have them left out of every figure."""
    found = told_of_texts(reference, tables, rows, edit_survives=pl.lit(False))
    assert "are said to be cut away from texts that are not truncated" in found[0]
    assert "Only a token limit cuts an edit away" in found[0]


def test_unseen_edits_that_move_the_mask_are_told(reference, tables, rows):
    found = told_of_texts(
        reference, tables, rows, edit_survives=pl.lit(False), truncated=pl.lit(True)
    )
    assert len(found) == 1
    assert "are said not to reach the model, and its mask moves, first in case" in found[0]
    found = told_of_texts(reference, tables, rows, same_tokens=pl.lit(True))
    assert "The same input gives the same mask" in found[0]


def test_a_table_of_texts_of_another_length_is_told(reference, tables, rows):
    texts = tables["texts.parquet"][:-1]
    (found,) = text_reasons(reference.plan.cases, texts, rows)
    assert found.startswith("texts.parquet: 8170 rows. The track has 8171 pairs of a text and its")


masks = hnp.arrays(bool, (4, 3, 5))


@given(masks, st.booleans())
def test_counts_of_real_masks_break_no_rule(four, same):
    """Whatever the masks are: predicted, for the original prompt, true, named."""
    predicted, original, true, named = four
    predicted = original if same else predicted
    row = counted(predicted, original, true, named)
    frame = pl.DataFrame([row, counted(original, original, true, None) | {"case_id": 1}])
    assert list(count_reasons(frame)) == []


def counted(predicted, original, true, named):
    """A row of `join_counts`, counted one pixel at a time."""

    def common(a, b):
        return sum(bool(x and y) for x, y in zip(a.flat, b.flat, strict=True))

    has_name = named is not None
    return {
        "case_id": 2, "original_case_id": 1, "image": "a", "mask": "b",
        "prompt": "p" if predicted is not original else "o",
        "named_sample_id": "n" if has_name else None,
        "tp": common(predicted, true), "n_pred": int(predicted.sum()), "n_gt": int(true.sum()),
        "tp_original": common(predicted, original), "n_pred_original": int(original.sum()),
        "tp_named": common(predicted, named) if has_name else None,
        "n_named": int(named.sum()) if has_name else None,
        "height": 3, "width": 5, "true_height": 3, "true_width": 5, "pixels": 15,
        "true_n_gt": int(true.sum()), "true_n_named": int(named.sum()) if has_name else None,
        "o_tp": common(original, true), "o_n_pred": int(original.sum()),
    }  # fmt: skip


def test_every_rule_says_what_would_be_right():
    assert all(rule.right and rule.found for rule in rules())
    assert len({rule.found for rule in rules()}) == len(rules())

"""What the counts of a submission must fulfil, whatever the model.

Counts of three masks, predicted P, predicted for the original prompt O and true G, are not free: an
overlap fits into both masks, a union into the picture, and as ``|P∩G| + |P∩O| - |P|`` pixels at
least are in all three, they are in ``O∩G``. One pair of picture and text has one mask. Counts are
pixels at the mask's own size. Every rule is looked at; examples are the first of the plan.
"""

from collections.abc import Iterator
from typing import NamedTuple

import polars as pl

from harness.leaderboard.reasons import reason
from harness.leaderboard.submission import COUNTS, TEXTS, distinct_pairs
from harness.leaderboard.tracks import SAMPLE

AGAIN = "Run the track again and submit the counts as they were written"
SAME_MASK = 0.99
"""Least agreement of two masks for one input: batches differ, and single pixels with them."""


class Rule(NamedTuple):
    """What must not be true of a row (null: does not apply), and how it is said.

    ``{}`` in `found` takes the columns of `shown`; `right` is what would be right.
    """

    broken: pl.Expr
    found: str
    shown: tuple[str, ...]
    right: str


def case_reasons(cases: pl.DataFrame, scores: pl.DataFrame) -> Iterator[str]:
    """Whether every case of the plan is scored exactly once, and nothing else."""
    planned, given = cases["case_id"], scores["case_id"]
    doubled = given.filter(given.is_duplicated()).unique()
    for what, ids in (
        ("{} cases stand twice or more", doubled),
        ("{} cases of the plan are missing", planned.filter(~planned.is_in(given.implode()))),
        ("{} rows are of no case of the plan", given.filter(~given.is_in(planned.implode()))),
    ):
        if len(ids):
            found = f"{what.format(len(ids))}, the first is {ids.sort()[0]}"
            right = f"Each of the track's {cases.height} cases stands there once"
            yield reason("scores.parquet: case_id", found, right, AGAIN)


def join_counts(cases: pl.DataFrame, scores: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    """Every case with its counts, its original's (``o_``), its truth (``true_``) and its target's.

    One row for each case that has scores, in the plan's order.
    """
    key = list(SAMPLE)
    original = scores.select(original_case_id="case_id", o_tp="tp", o_n_pred="n_pred")
    own = truth.select(*key, *(pl.col(c).alias(f"true_{c}") for c in ("n_gt", "height", "width")))
    named = truth.select(*key[:2], named_sample_id="sample_id", true_n_named="n_gt")
    return (
        cases.join(scores, on="case_id", how="inner", maintain_order="left")
        .join(original, on="original_case_id", how="left", maintain_order="left")
        .join(own, on=key, how="left", maintain_order="left")
        .join(named, on=[*key[:2], "named_sample_id"], how="left", maintain_order="left")
        .with_columns(pixels=pl.col("true_height").cast(pl.Int64) * pl.col("true_width"))
    )


def rules() -> list[Rule]:
    """Every rule on the counts of one case."""
    return [*_column_rules(), *_truth_rules(), *_mask_rules(), *_original_rules(), *_input_rules()]


_c = pl.col


def _column_rules() -> Iterator[Rule]:
    """What each column holds by itself."""
    for name in ("tp", "n_pred", "n_gt", "tp_original", "n_pred_original", "height", "width"):
        right = "A submission holds complete runs alone, in which no case failed"
        yield Rule(_c(name).is_null(), f"{name} is missing", (), right)
    for name in ("tp_named", "n_named"):
        wrong = _c(name).is_null() != _c("named_sample_id").is_null()
        right = "It is given for the cases whose prompt names another sample, and for no other"
        yield Rule(wrong, f"{name} is {{}}", (name,), right)
    for name in COUNTS:
        wrong = (_c(name) < 0) | (_c(name) > _c("pixels"))
        right = "Counts lie between 0 and the pixels of the picture"
        yield Rule(wrong, f"{name} is {{}} in a picture of {{}}", (name, "pixels"), right)


def _truth_rules() -> Iterator[Rule]:
    right = "The track's published truth says so for this sample, at native resolution"
    target = "The track's published truth says so for the sample that the prompt names"
    for name, whose, why in (
        *((name, "the truth", right) for name in ("n_gt", "height", "width")),
        ("n_named", "the truth of the named sample", target),
    ):
        shown = (name, f"true_{name}")
        yield Rule(_c(name) != _c(shown[1]), f"{name} is {{}} where {whose} has {{}}", shown, why)


def _mask_rules() -> Iterator[Rule]:
    """What two masks in one picture allow."""
    for part, other in (
        ("tp", "n_gt"),
        ("tp_original", "n_pred_original"),
        ("tp_named", "n_named"),
    ):
        yield Rule(
            _c(part) > pl.min_horizontal("n_pred", other),
            f"{part} is {{}} with n_pred {{}} and {other} {{}}",
            (part, "n_pred", other),
            f"{part} <= min(n_pred, {other}): an overlap is no larger than either mask",
        )
        yield Rule(
            _c("n_pred") + _c(other) - _c(part) > _c("pixels"),
            f"n_pred {{}}, {other} {{}} and {part} {{}} in a picture of {{}}",
            ("n_pred", other, part, "pixels"),
            "Two masks together are no larger than their picture",
        )


def _original_rules() -> Iterator[Rule]:
    """What the case of the original prompt and its variants must share."""
    yield Rule(
        _c("n_pred_original") != _c("o_n_pred"),
        "n_pred_original is {} where the case of the original prompt has n_pred {}",
        ("n_pred_original", "o_n_pred"),
        "Both count the pixels of one mask",
    )
    yield Rule(
        (_c("case_id") == _c("original_case_id")) & (_c("tp_original") != _c("n_pred")),
        "tp_original is {} of an original whose n_pred is {}",
        ("tp_original", "n_pred"),
        "A mask overlaps itself in all its pixels",
    )
    for left, right, mask, text in (
        ("tp", "o_tp", "n_pred", "tp {}, tp_original {} and n_pred {} with tp of the original {}"),
        (
            *("o_tp", "tp", "n_pred_original"),
            "tp of the original {}, tp_original {} and n_pred_original {} with tp {}",
        ),
    ):
        yield Rule(
            _c(left) + _c("tp_original") - _c(mask) > _c(right),
            text,
            (left, "tp_original", mask, right),
            "What both masks have in common with the target overlaps: no three masks have "
            "such counts",
        )


def _input_rules() -> Iterator[Rule]:
    """One picture and one prompt give one mask, whichever sample or probe asks."""
    for name, over in (("n_pred", ("image", "prompt")), ("tp", ("image", "prompt", "mask"))):
        yield Rule(
            _c(name) != _c(name).first().over(over),
            f"{name} is {{}}, and another case of the same picture and prompt has another one",
            (name,),
            "One picture and one prompt give one mask",
        )


def count_reasons(rows: pl.DataFrame) -> Iterator[str]:
    """What is wrong with the rows of `join_counts`, a sentence for each rule that is broken."""
    every = rules()
    broken = rows.select(r.broken.fill_null(False).alias(str(k)) for k, r in enumerate(every))
    for rule, is_broken in zip(every, broken.iter_columns(), strict=True):
        wrong = rows.filter(is_broken)
        if wrong.height:
            first = wrong.row(0, named=True)
            values = [first[name] for name in rule.shown]
            where = f"scores.parquet: case {first['case_id']}"
            cases = "case" if wrong.height == 1 else "cases"
            found = f"{rule.found.format(*values)} ({wrong.height} {cases} of this kind)"
            yield reason(where, found, rule.right, AGAIN)


def control_reasons(rows: pl.DataFrame) -> Iterator[str]:
    """Whether a model that says it reads no prompt keeps every mask of `join_counts`."""
    moved = rows.filter(
        (_c("tp_original") != _c("n_pred")) | (_c("tp_original") != _c("n_pred_original"))
    )
    if moved.height:
        yield reason(
            "submission.yaml: control",
            f"the model is said to read no prompt, and its mask moves in {moved.height} cases, the "
            f"first is {moved['case_id'][0]}",
            "A control gives one mask a picture",
            "Set control: false",
        )


def text_reasons(cases: pl.DataFrame, texts: pl.DataFrame, rows: pl.DataFrame) -> Iterator[str]:
    """What is wrong with the table of texts, which decides what is left out of the figures.

    `texts` stand in the order of `distinct_pairs`; `rows` are of `join_counts`.
    """
    pairs = distinct_pairs(cases)
    if texts.height != pairs.height:
        right = f"The track has {pairs.height} pairs of a text and its original"
        yield reason("texts.parquet", f"{texts.height} rows", right, AGAIN)
        return
    table = pl.concat([pairs, texts.select(TEXTS.names())], how="horizontal")
    is_cut = ~_c("edit_survives").fill_null(True)
    long = table.filter("truncated")["text"].implode()
    short = table.filter(is_cut, ~_c("text").is_in(long), ~_c("original_text").is_in(long))
    if short.height:
        yield reason(
            "texts.parquet: edit_survives",
            f"{short.height} edits are said to be cut away from texts that are not truncated",
            "Only a token limit cuts an edit away",
            AGAIN,
        )
    unseen = table.filter(is_cut | _c("same_tokens").fill_null(False)).select(
        prompt="text", original_prompt="original_text"
    )
    moved = rows.join(
        unseen, on=["prompt", "original_prompt"], how="semi", maintain_order="left"
    ).filter(2 * _c("tp_original") < SAME_MASK * (_c("n_pred") + _c("n_pred_original")))
    if moved.height:
        yield reason(
            "texts.parquet",
            f"{moved.height} edits are said not to reach the model, and its mask moves, first in "
            f"case {moved['case_id'][0]}",
            "The same input gives the same mask",
            AGAIN,
        )

"""What the counts of a submission must fulfil, whatever the model.

Counts of three masks, predicted P, predicted for the original prompt O and true G, are not free:
an overlap fits into both masks, a union into the picture, and as ``|P∩G| + |P∩O| - |P|`` pixels
at least are in all three, they are in ``O∩G``. One pair of picture and text has one mask,
whichever sample or probe asks for it.

Conventions: counts are pixels at the mask's own size. A rule says what breaks it; every rule is
looked at, so that a message names all that is wrong. Examples are the first in the plan's order.
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
    """What must not be true of a row, and how it is said.

    Attributes:
        broken: True where the rule is broken; null where it does not apply.
        found: The row's offending values; ``{}`` takes the columns of `shown`.
        shown: Those columns.
        right: What would be right.
    """

    broken: pl.Expr
    found: str
    shown: tuple[str, ...]
    right: str


def case_reasons(cases: pl.DataFrame, scores: pl.DataFrame) -> Iterator[str]:
    """Whether every case of the plan is scored exactly once, and nothing else.

    Args:
        cases: Of the plan.
        scores: With ``case_id``.
    """
    planned, given = cases["case_id"], scores["case_id"]
    doubled = given.filter(given.is_duplicated()).unique()
    n_planned = cases.height
    for what, ids in (
        ("{} cases stand twice or more", doubled),
        ("{} cases of the plan are missing", planned.filter(~planned.is_in(given.implode()))),
        ("{} rows are of no case of the plan", given.filter(~given.is_in(planned.implode()))),
    ):
        if len(ids):
            found = f"{what.format(len(ids))}, the first is {ids.sort()[0]}"
            right = f"Each of the track's {n_planned} cases stands there once"
            yield reason("scores.parquet: case_id", found, right, AGAIN)


def joined(cases: pl.DataFrame, scores: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    """Every case with its counts, its original's (``o_``), its truth (``true_``) and its target's.

    Args:
        cases: Of the plan.
        scores: One row a case.
        truth: Of the track.
    """
    key = list(SAMPLE)
    original = scores.select(
        pl.col("case_id").alias("original_case_id"),
        pl.col("tp").alias("o_tp"),
        pl.col("n_pred").alias("o_n_pred"),
    )
    own = truth.select(*key, *(pl.col(c).alias(f"true_{c}") for c in ("n_gt", "height", "width")))
    named = truth.select(
        *key[:2], pl.col("sample_id").alias("named_sample_id"), pl.col("n_gt").alias("true_n_named")
    )
    return (
        cases.with_row_index("place")
        .join(scores, on="case_id", how="inner")
        .join(original, on="original_case_id", how="left")
        .join(own, on=key, how="left")
        .join(named, on=[*key[:2], "named_sample_id"], how="left")
        .sort("place")
        .with_columns(pixels=pl.col("true_height").cast(pl.Int64) * pl.col("true_width"))
    )


def _c(name: str) -> pl.Expr:
    return pl.col(name)


def _missing() -> Iterator[Rule]:
    for name in ("tp", "n_pred", "n_gt", "tp_original", "n_pred_original", "height", "width"):
        right = "A submission holds complete runs alone, in which no case failed"
        yield Rule(_c(name).is_null(), f"{name} is missing", (), right)
    for name in ("tp_named", "n_named"):
        wrong = _c(name).is_null() != _c("named_sample_id").is_null()
        right = "It is given for the cases whose prompt names another sample, and for no other"
        yield Rule(wrong, f"{name} is {{}}", (name,), right)


def _ranges() -> Iterator[Rule]:
    for name in COUNTS:
        wrong = (_c(name) < 0) | (_c(name) > _c("pixels"))
        found, right = f"{name} is {{}}", "Counts lie between 0 and the pixels of the picture"
        yield Rule(wrong, f"{found} in a picture of {{}}", (name, "pixels"), right)


def _truths() -> Iterator[Rule]:
    for name in ("n_gt", "height", "width"):
        right = "The track's published truth says so for this sample, at native resolution"
        yield Rule(
            _c(name) != _c(f"true_{name}"),
            f"{name} is {{}} where the truth has {{}}",
            (name, f"true_{name}"),
            right,
        )
    yield Rule(
        _c("n_named") != _c("true_n_named"),
        "n_named is {} where the truth of the named sample has {}",
        ("n_named", "true_n_named"),
        "The track's published truth says so for the sample that the prompt names",
    )


def _bounds() -> Iterator[Rule]:
    for part, first, second in (
        ("tp", "n_pred", "n_gt"),
        ("tp_original", "n_pred", "n_pred_original"),
        ("tp_named", "n_pred", "n_named"),
    ):
        shown = (part, first, second)
        yield Rule(
            _c(part) > pl.min_horizontal(first, second),
            f"{part} is {{}} with {first} {{}} and {second} {{}}",
            shown,
            f"{part} <= min({first}, {second}): an overlap is no larger than either mask",
        )
        yield Rule(
            _c(first) + _c(second) - _c(part) > _c("pixels"),
            f"{first} {{}}, {second} {{}} and {part} {{}} in a picture of {{}}",
            (first, second, part, "pixels"),
            "Two masks together are no larger than their picture",
        )


def _originals() -> Iterator[Rule]:
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
    for right_tp, left_tp, mask in (("o_tp", "tp", "n_pred"), ("tp", "o_tp", "n_pred_original")):
        names = {"o_tp": "tp of the original"}
        yield Rule(
            _c(left_tp) + _c("tp_original") - _c(mask) > _c(right_tp),
            f"{names.get(left_tp, left_tp)} {{}}, tp_original {{}} and {mask} {{}} with "
            f"{names.get(right_tp, right_tp)} {{}}",
            (left_tp, "tp_original", mask, right_tp),
            "What both masks have in common with the target overlaps: no three masks have "
            "such counts",
        )


def _shared() -> Iterator[Rule]:
    for name, over in (("n_pred", ("image", "prompt")), ("tp", ("image", "prompt", "mask"))):
        first = _c(name).first().over(over)
        yield Rule(
            _c(name) != first,
            f"{name} is {{}}, and another case of the same picture and prompt has another one",
            (name,),
            "One picture and one prompt give one mask",
        )


def rules() -> list[Rule]:
    """Every rule on the counts of one case."""
    parts = (_missing(), _ranges(), _truths(), _bounds(), _originals(), _shared())
    return [rule for part in parts for rule in part]


def count_reasons(rows: pl.DataFrame) -> Iterator[str]:
    """What is wrong with the counts, a sentence for each rule that is broken.

    Args:
        rows: Of `joined`.
    """
    broken = rows.select(
        rule.broken.fill_null(False).alias(str(place)) for place, rule in enumerate(rules())
    )
    for place, rule in enumerate(rules()):
        wrong = rows.filter(broken[str(place)])
        if wrong.height:
            first = wrong.row(0, named=True)
            values = [first[name] for name in rule.shown]
            where = f"scores.parquet: case {first['case_id']}"
            cases = "case" if wrong.height == 1 else "cases"
            found = f"{rule.found.format(*values)} ({wrong.height} {cases} of this kind)"
            yield reason(where, found, rule.right, AGAIN)


def control_reasons(rows: pl.DataFrame) -> Iterator[str]:
    """Whether a model that says it reads no prompt keeps every mask.

    Args:
        rows: Of `joined`.
    """
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

    Args:
        cases: Of the plan.
        texts: Of the submission, in the order of `distinct_pairs`.
        rows: Of `joined`.
    """
    pairs = distinct_pairs(cases)
    if texts.height != pairs.height:
        found = f"{texts.height} rows"
        right = f"The track has {pairs.height} pairs of a text and its original"
        yield reason("texts.parquet", found, right, AGAIN)
        return
    table = pl.concat([pairs, texts.select(TEXTS.names())], how="horizontal")
    cut = table.filter(~pl.col("edit_survives").fill_null(True))
    long = table.filter("truncated")
    is_long = pl.col("text").is_in(long["text"].implode())
    was_long = pl.col("original_text").is_in(long["text"].implode())
    short = cut.filter(~is_long & ~was_long)
    if short.height:
        yield reason(
            "texts.parquet: edit_survives",
            f"{short.height} edits are said to be cut away from texts that are not truncated",
            "Only a token limit cuts an edit away",
            AGAIN,
        )
    unseen = table.filter(
        ~pl.col("edit_survives").fill_null(True) | pl.col("same_tokens").fill_null(False)
    ).select("text", "original_text")
    moved = rows.join(
        unseen,
        left_on=["prompt", "original_prompt"],
        right_on=["text", "original_text"],
        how="semi",
    ).filter(2 * _c("tp_original") < SAME_MASK * (_c("n_pred") + _c("n_pred_original")))
    if moved.height:
        yield reason(
            "texts.parquet",
            f"{moved.height} edits are said not to reach the model, and its mask moves, first in "
            f"case {moved['case_id'][0]}",
            "The same input gives the same mask",
            AGAIN,
        )

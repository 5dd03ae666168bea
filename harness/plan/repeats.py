"""A plan whose cases are answered more than once: by a stochastic model, or by several people.

Conventions: answer 0 of a case is the case itself, with its id. Further answers are rows of their
own whose ``repeat`` lies above every repeat of the plan, by the same step for all: originals, whose
``repeat`` is 0 otherwise, show that there are several, and how many. An answer is paired with the
answer of the same number to its original prompt.
"""

from dataclasses import replace

import polars as pl

from harness.errors import RunError
from harness.files.writing import parquet_bytes
from harness.plan.build import Plan
from harness.plan.rows import PLAN_SCHEMA, case_id_of

_MOST_REPEATS = 32_767  # of the column's 16 bits


def with_answers(plan: Plan, n: int) -> Plan:
    """The plan with `n` answers a case.

    Raises:
        RunError: There are too many to be numbered.
    """
    if n == 1:
        return plan
    planned = plan.cases
    step = 1 + max(planned["repeat"].to_list(), default=0)
    if n * step > _MOST_REPEATS:
        raise RunError(
            f"plan: {n} answers of {step} repeats each. At most {_MOST_REPEATS} are numbered. Give "
            "fewer answers a case."
        )
    order = planned.select(pl.col("image").unique(maintain_order=True)).with_row_index("place")
    parts = [planned, *(_answered(planned, k * step) for k in range(1, n))]
    cases = (
        pl.concat(parts)
        .join(order, on="image", maintain_order="left")
        .sort("place", maintain_order=True)
        .select(PLAN_SCHEMA.names())
    )
    return replace(plan, parquet=parquet_bytes(cases), sources={**plan.sources, "answers": n})


def _answered(cases: pl.DataFrame, added: int) -> pl.DataFrame:
    """The cases once more, with ids of their own."""
    moved = cases.with_columns((pl.col("repeat") + added).cast(pl.Int16))
    ids = [case_id_of(row) for row in moved.iter_rows(named=True)]
    known = dict(zip(cases["case_id"], ids, strict=True))
    originals = [known[case] for case in cases["original_case_id"]]
    return moved.with_columns(
        pl.Series("case_id", ids, dtype=pl.UInt64),
        pl.Series("original_case_id", originals, dtype=pl.UInt64),
    )


def answer_step(cases: pl.DataFrame | pl.LazyFrame) -> int | None:
    """By how much ``repeat`` differs between two answers to a case; None where each has one."""
    further = cases.lazy().filter(pl.col("probe") == "original", pl.col("repeat") > 0)
    step = further.select(pl.col("repeat").min()).collect().item()
    return None if step is None else int(step)


def answered_keys(cases: pl.DataFrame) -> dict[int, tuple[int, int]]:
    """Case of a plan of `with_answers` -> the case that was asked, and the number of its answer."""
    step = answer_step(cases)
    if step is None:
        return {case: (case, 0) for case in cases["case_id"]}
    same = [c for c in PLAN_SCHEMA if c not in {"case_id", "original_case_id", "repeat"}]
    numbered = cases.with_columns(number=pl.col("repeat") // step, repeat=pl.col("repeat") % step)
    first = numbered.filter(number=0).select(*same, "repeat", asked="case_id")
    joined = numbered.join(first, on=[*same, "repeat"], nulls_equal=True)
    rows = joined.select("case_id", "asked", "number").iter_rows()
    return {case: (own, number) for case, own, number in rows}

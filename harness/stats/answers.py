"""What several answers to every case differ by, and how that widens intervals.

A case's answers are averaged before samples are, so that noise within cases is part of what
clusters differ by. What all answers of one number share (an annotator's habit, a seed) is not:
no cluster shows it. So every figure is computed for each number of answers alone; their standard
deviation is the *spread*, and the standard error grows by that of its mean.

Conventions: with R answers the added standard error is ``spread / sqrt(R)``, times the ratio of
Student's and the normal quantile at 97.5 % with R - 1 degrees of freedom, since R is small.
Figures are in the unit of `harness.stats.intervals`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.plan.repeats import answer_step
from harness.stats.inference import Inference, Intervals

Frame = pl.DataFrame | pl.LazyFrame
Solved = Mapping[str, Inference]


def widen_by_answers(
    plan: Frame, solved: Solved, solve: Callable[[Frame], Solved]
) -> tuple[Solved, pl.DataFrame | None]:
    """Let the spread between answers enter every interval.

    `solve` gives the intervals of a part of the plan, for the same cells. Beside the intervals
    stands ``cell, n_answers, spread_dice, spread_relative``; None where each case has one answer.
    """
    step = answer_step(plan)
    if step is None:
        return solved, None
    number = pl.col("repeat") // step
    n = 1 + plan.lazy().select(number.max()).collect().item()
    parts = [solve(plan.lazy().filter(number == k)) for k in range(n)]
    spreads = {
        name: np.std([part[name].intervals.estimate for part in parts], axis=0, ddof=1)
        for name in solved
    }
    factor = _student(n) / np.sqrt(n)
    wide = {name: widened(one, factor * spreads[name]) for name, one in solved.items()}
    cells = len(spreads["dice"])
    table = pl.DataFrame(
        {
            "cell": np.arange(cells),
            "n_answers": np.full(cells, n),
            "spread_dice": spreads["dice"],
            "spread_relative": spreads["relative"],
        }
    )
    return wide, table


def _student(n: int) -> float:
    from scipy.stats import norm, t

    return float(t.ppf(0.975, n - 1) / norm.ppf(0.975))


def widened(found: Inference, added: NDArray[np.float64]) -> Inference:
    """Intervals whose standard error has grown by an independent part.

    Limits move away from the estimate as the standard error grows; where it was 0 they become
    those of a normal distribution.
    """
    own = found.intervals
    added = np.nan_to_num(added)
    error = np.sqrt(own.standard_error**2 + added**2)
    flat = (own.standard_error == 0) & (added > 0)
    growth = np.where(flat, 1.0, error / np.where(own.standard_error > 0, own.standard_error, 1.0))
    growth = np.where((own.standard_error == 0) & ~flat, 1.0, growth)
    normal = {"low": -1.96, "high": 1.96, "low90": -1.645, "high90": 1.645}
    fields: dict[str, Any] = {"estimate": own.estimate, "standard_error": error}
    for name in Intervals._fields[2:]:
        side = normal.get(name, -1.96 if name.endswith("low") else 1.96)
        moved = own.estimate + growth * (getattr(own, name) - own.estimate)
        fields[name] = np.where(flat, own.estimate + side * added, moved)
    return found._replace(intervals=Intervals(**fields))


def answer_note(spread: pl.DataFrame) -> pl.DataFrame:
    """``cell`` and a sentence on its answers, for the notes of the summary."""
    sentences = [
        f"{row['n_answers']} answers a case: mean Dice differs by {row['spread_dice']:.3g} between "
        "them"
        + _change(row["spread_relative"])
        + " (standard deviation; it is part of the intervals)"
        for row in spread.iter_rows(named=True)
    ]
    return spread.select("cell").with_columns(pl.Series("answer_note", sentences))


def _change(spread: float | None) -> str:
    is_known = spread is not None and np.isfinite(spread)
    return f", the change by {100 * spread:.2g} %" if is_known and spread is not None else ""

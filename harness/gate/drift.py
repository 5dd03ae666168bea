"""Whether two plans ask the same, and how their runs may be compared.

Conventions: *cases* means that the plans are one and the same; *draw* that they are of one
design and differ by their seed; *drift* that prompts changed for another reason, so that a
difference of the models could be one of the questions.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import polars as pl

from harness.errors import UsageError
from harness.gate.audited import Identity
from harness.stats.relative import SUM_KEYS

Kind = Literal["cases", "draw", "drift"]
_SHOWN = 5


class Drift(NamedTuple):
    """How the plans of two runs differ, and why."""

    kind: Kind
    reasons: tuple[str, ...]


def drift_between(
    new: Identity, old: Identity, *, new_cells: pl.DataFrame, old_cells: pl.DataFrame
) -> Drift:
    """Compare two plans by their hashes, from the whole down to the rows of the summary.

    Args:
        new: Of the run.
        old: Of the baseline.
        new_cells: `SUM_KEYS` and ``cases`` of the run.
        old_cells: The same of the baseline.
    """
    if new.plan_sha256 == old.plan_sha256:
        return Drift("cases", ())
    reasons = [*_of_design(new, old), *_of_cells(new, old, new_cells, old_cells)]
    if not reasons and new.seed == old.seed:
        reasons = ["what does not apply is another"]
    return Drift("drift", tuple(reasons)) if reasons else Drift("draw", ())


def _of_design(new: Identity, old: Identity) -> Iterator[str]:
    for key in sorted({*new.design, *old.design}):
        before, now = old.design.get(key, "nothing"), new.design.get(key, "nothing")
        if before != now:
            yield f"{key} was {before!r}, is {now!r}"


def _of_cells(
    new: Identity, old: Identity, new_cells: pl.DataFrame, old_cells: pl.DataFrame
) -> Iterator[str]:
    """Rows that one of the two lacks; rows whose prompts changed though no seed did."""
    before, now = (
        {row[:-1]: row[-1] for row in cells.select(*SUM_KEYS, "cases").iter_rows()}
        for cells in (old_cells, new_cells)
    )
    for key in sorted({*before, *now}, key=lambda k: tuple(part or "" for part in k)):
        place = " ".join(part for part in key if part)
        if key not in now:
            yield f"{place} is not in this run"
        elif key not in before:
            yield f"{place} is not in the baseline"
        elif before[key] != now[key] and (new.seed == old.seed or key[4] == "original"):
            yield f"the cases of {place} are others"


def refuse_other_signatures(new: Identity, old: Identity, *, where: str) -> None:
    """Numbers of different signatures are never compared.

    Raises:
        UsageError: The two differ in the signature of Dice or of verdicts.
    """
    for kind, before, now in (
        ("metric", old.metric, new.metric),
        ("verdict", old.verdict, new.verdict),
    ):
        if before != now:
            raise UsageError(
                f"{where}: the {kind} signature of the baseline is {before!r}, this run's is "
                f"{now!r}. Numbers of different signatures are never compared. Run both with "
                "one metric, threshold and statistics, or write the baseline anew from this run."
            )


def refuse_drift(found: Drift, *, where: str, example: str = "") -> None:
    """Prompt drift is an error of its own.

    Args:
        found: Of `drift_between`.
        where: The baseline.
        example: A prompt that changed, where it is known.

    Raises:
        UsageError: The plans differ by more than their seed.
    """
    if found.kind != "drift":
        return
    listed = "; ".join(found.reasons[:_SHOWN])
    more = len(found.reasons) - _SHOWN
    listed += f"; and {more} more" if more > 0 else ""
    listed = "".join(char if char.isprintable() else "?" for char in listed)
    raise UsageError(
        f"{where}: prompt drift: the plan of this run asks something else than the baseline's did "
        f"({listed}).{example} Only a plan of the same design, whatever its seed, shows that it is "
        "the model that changed. Write the baseline anew with the model it stands for, or compare "
        "what is common to both by cluster: --allow-drift."
    )

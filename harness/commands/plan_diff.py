"""What changed between two plans: ``plan --diff OLD``.

Conventions: a variant is found again by what it is for (dataset, split, prompts, prompt
type, sample, prompt index, probe, attribute, repeat). It is *the same* when its whole row
is, which its case id stands for; *changed* when anything in the row is not.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.output import table, terminal

if TYPE_CHECKING:
    import polars as pl

GROUP = ("dataset", "split", "prompts", "prompt_type", "probe", "attribute")
KEY = (*GROUP, "sample_id", "prompt_index", "repeat")
KINDS = ("same", "added", "removed", "changed")


def read_plan(path: Path) -> "pl.DataFrame":
    """The cases of a plan: a Parquet file, or a folder that holds ``plan.parquet``.

    Raises:
        UsageError: There is no plan, or it is not one of this version.
    """
    import polars as pl

    from harness.errors import UsageError
    from harness.plan.build import PLAN_SCHEMA

    file = path / "plan.parquet" if path.is_dir() else path
    if not file.is_file():
        raise UsageError(
            f"{file}: no such plan. A plan.parquet, or the folder of a plan or run, is needed. "
            "Write one with `vlsm-harness plan SUITE -o FILE`."
        )
    try:
        found = pl.read_parquet(file)
        return found.select(PLAN_SCHEMA.names()).cast(PLAN_SCHEMA)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as problem:
        raise UsageError(
            f"{file}: no plan of this version ({type(problem).__name__}: {problem}). A file as "
            "`vlsm-harness plan` writes it is needed. Write it again."
        ) from None


def difference(old: "pl.DataFrame", new: "pl.DataFrame") -> "pl.DataFrame":
    """Each variant of either plan, with what became of it.

    Returns:
        `KEY`, ``kind`` (one of `KINDS`), ``old`` and ``new`` (the prompts, null where there is
        none) and ``columns`` (those whose content differs, where it is changed).
    """
    import polars as pl

    columns = [c for c in new.columns if c not in {*KEY, "case_id", "original_case_id"}]
    both = old.join(new, on=KEY, how="full", suffix="_new", coalesce=True, nulls_equal=True)
    was, is_there = pl.col("case_id").is_not_null(), pl.col("case_id_new").is_not_null()
    unlike = [pl.when(pl.col(c).ne_missing(pl.col(f"{c}_new"))).then(pl.lit(c)) for c in columns]
    kind = (
        pl.when(~was)
        .then(pl.lit("added"))
        .when(~is_there)
        .then(pl.lit("removed"))
        .when(pl.col("case_id") == pl.col("case_id_new"))
        .then(pl.lit("same"))
        .otherwise(pl.lit("changed"))
    )
    return both.select(
        *KEY,
        kind=kind,
        old=pl.col("prompt"),
        new=pl.col("prompt_new"),
        columns=pl.when(was & is_there).then(pl.concat_list(unlike).list.drop_nulls()),
    ).sort(KEY, nulls_last=False)


def counts(found: "pl.DataFrame") -> "pl.DataFrame":
    """How many variants of each probe and attribute became what; one column a kind."""
    import polars as pl

    return (
        found.group_by(GROUP)
        .agg((pl.col("kind") == kind).sum().alias(kind) for kind in KINDS)
        .sort(GROUP, nulls_last=False)
    )


def content(found: "pl.DataFrame") -> dict[str, Any]:
    """The whole difference for programs; what stayed the same is only counted."""
    import polars as pl

    return {
        "counts": counts(found).to_dicts(),
        "variants": found.filter(pl.col("kind") != "same").to_dicts(),
    }


def show(found: "pl.DataFrame", *, examples: int = 3) -> None:
    """Print the counts and, of each kind and probe, the first examples as word diffs."""
    import polars as pl
    from rich.text import Text

    from harness.report.escape import plain

    console = terminal(110)
    totals = dict(found.group_by("kind").len().rows())
    title = ", ".join(f"{totals.get(kind, 0)} {kind}" for kind in KINDS)
    unlike = found.filter(pl.col("kind") != "same")
    if unlike.is_empty():
        console.print(Text(f"the plans are the same: {totals.get('same', 0)} cases"))
        return
    shown = counts(found).drop("split", "prompts", "prompt_type")
    touched = pl.any_horizontal(pl.col(kind) > 0 for kind in KINDS[1:])
    console.print(table(shown.filter(touched), title=f"variants: {title}"))
    for (kind, probe), rows in unlike.group_by(["kind", "probe"], maintain_order=True):
        console.print(Text(f"{kind}: {plain(str(probe))}", style="bold"))
        for row in rows.head(examples).iter_rows(named=True):
            console.print(_line(row), soft_wrap=True)


def _line(row: dict[str, Any]) -> Any:
    from rich.text import Text

    from harness.commands.peek import sides
    from harness.report.escape import plain

    where = plain(f"  {row['dataset']}/{row['sample_id']} {row['attribute'] or ''}").rstrip()
    line = Text(f"{where}: ")
    if row["old"] is None or row["new"] is None:
        return line.append(plain(row["new"] if row["old"] is None else row["old"]))
    if row["old"] == row["new"]:
        return line.append(f"{plain(row['new'])} ({', '.join(row['columns']) or 'its original'})")
    before, after = sides({"original_prompt": row["old"], "prompt": row["new"]})
    return line.append_text(before).append(" -> ").append_text(after)

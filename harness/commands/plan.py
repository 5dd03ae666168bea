"""``plan``: freeze a suite on some datasets, without a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.commands.options import (
    AsJson,
    DataRoot,
    Datasets,
    Limit,
    PromptRung,
    PromptSource,
    Quiet,
    Seed,
    Split,
    SuiteName,
)
from harness.commands.output import say, say_json, table, terminal

if TYPE_CHECKING:
    import polars as pl

    from harness.plan.build import Plan, PlannedSet
    from harness.suite.schema import Suite


def plan(
    suite: SuiteName,
    data_root: DataRoot = None,
    datasets: Datasets = None,
    split: Split = None,
    prompt_type: PromptRung = None,
    prompts: PromptSource = None,
    limit: Limit = None,
    seed: Seed = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the plan: a .parquet file, or a folder for it."),
    ] = None,
    diff: Annotated[
        Path | None,
        typer.Option("--diff", help="Show what changed against this plan (file, folder or run)."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            help="Write pictures and cases.csv into this folder, for a program in any language.",
        ),
    ] = None,
    seal: Annotated[
        Path | None,
        typer.Option(
            "--register",
            help="Seal suite, plan and margins in this file, before anything is run "
            "(run --registration).",
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Count what a suite would evaluate, and what does not apply and why."""
    from harness.auditing.choices import select_suite
    from harness.auditing.samples import choose_root, read_sets, sets_of
    from harness.commands import plan_diff
    from harness.commands.progress import Terminal
    from harness.plan.build import build_plan

    _refuse_unwritable(out, seal, export)
    chosen = select_suite(
        suite, datasets=datasets, split=split, prompt_type=prompt_type, prompts=prompts, seed=seed
    )
    root = choose_root(data_root, sets_of(chosen), listener=Terminal())
    sets = read_sets(chosen, root, limit=limit, listener=Terminal(quiet=quiet))
    made = build_plan(chosen, sets)
    # Read before anything is written: both may be the same file.
    changes = None if diff is None else plan_diff.difference(plan_diff.read_plan(diff), made.cases)
    if out is not None:
        _write(out, made, chosen, data_root=root, limit=limit)
    if seal is not None:
        _register(seal, made, chosen, sets, limit=limit)
    if export is not None:
        _export(export, made, chosen, data_root=root, limit=limit, quiet=quiet or as_json)
    counts = _counts(made)
    if as_json:
        content = {
            "plan_sha256": made.sha256,
            "cases": counts.to_dicts(),
            "not_applicable": made.not_applicable.to_dicts(),
            "sources": dict(made.sources),
        }
        if changes is not None:
            content["diff"] = plan_diff.content(changes)
        say_json(content)
    elif not quiet:
        if changes is not None:
            plan_diff.show(changes)
        else:
            _print(made, counts)
        say(f"plan {made.sha256}")


def _refuse_unwritable(out: Path | None, seal: Path | None, export: Path | None) -> None:
    from harness.files.writing import refuse_unwritable

    refuse_unwritable(out, is_folder=out is not None and out.suffix != ".parquet")
    refuse_unwritable(seal)
    refuse_unwritable(export, is_folder=True)


def _counts(made: "Plan") -> "pl.DataFrame":
    import polars as pl

    keys = ("dataset", "split", "probe", "attribute")
    n_texts, n_samples = (pl.col(name).n_unique() for name in ("prompt", "sample_id"))
    counted = (
        made.scan()
        # Numbers in place of texts: half of the memory, where a plan is long.
        .with_columns(pl.col(*keys, "prompt", "sample_id").cast(pl.Categorical))
        .group_by(keys, maintain_order=True)
        .agg(cases=pl.len(), texts=n_texts, samples=n_samples)
    )
    return counted.collect(engine="streaming").with_columns(pl.col(keys).cast(pl.String))


def _write(out: Path, made: "Plan", suite: "Suite", *, data_root: Path, limit: int | None) -> None:
    """The cases as one file, or as a folder together with what does not apply."""
    from harness.files.writing import write_parquet
    from harness.plan.files import write_plan

    is_file = out.suffix == ".parquet"
    file = out if is_file else out / "plan.parquet"
    write_plan(file, made, suite, data_root=data_root, limit=limit)
    if not is_file:
        write_parquet(out / "not_applicable.parquet", made.not_applicable)


def _register(
    path: Path, made: "Plan", suite: "Suite", sets: "list[PlannedSet]", *, limit: int | None
) -> None:
    from harness.plan.registration import register
    from harness.suite.schema import with_tolerances

    resolved = with_tolerances(suite, [planned.card for planned in sets])
    held = register(path, made, resolved, limit=limit)
    say(f"{path}: registered on {held.registered}, seal {held.seal}", err=True)


def _export(
    folder: Path, made: "Plan", suite: "Suite", *, data_root: Path, limit: int | None, quiet: bool
) -> None:
    """Pictures and a table for other programs, and the plan that scores their answers."""
    from harness.auditing.exporting import export_plan
    from harness.commands.progress import Terminal

    n_cases = export_plan(
        folder, made, suite, root=data_root, limit=limit, listener=Terminal(quiet=quiet)
    )
    if not quiet:
        say(
            f"{folder / 'cases.csv'}: {n_cases} rows. For each write a mask of the picture's size "
            f"to {folder / 'answers'}, under the name in the column 'answer'. Then: vlsm-harness "
            f"score {folder / 'plan.parquet'} --predictions {folder / 'answers'} --model-name NAME"
        )


def _print(made: "Plan", counts: "pl.DataFrame") -> None:
    import polars as pl

    console = terminal()
    n_texts = made.scan().select(pl.col("prompt").cast(pl.Categorical).n_unique()).collect().item()
    console.print(table(counts, title=f"{made.n_cases} cases, {n_texts} distinct texts"))
    if made.not_applicable.height:
        shown = made.not_applicable.select("dataset", "probe", "attribute", "n_samples", "reason")
        console.print(table(shown, title="does not apply"))
    for source in made.sources.get("tables", ()):
        if source["unmatched"]:
            say(
                f"{source['file']}: {source['unmatched']} of {source['rows']} rows name no image "
                f"of {source['dataset']}/{source['split']}."
            )

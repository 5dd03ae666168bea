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

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table


def plan(
    suite: SuiteName,
    data_root: DataRoot = Path("data"),
    datasets: Datasets = None,
    split: Split = None,
    prompt_type: PromptRung = None,
    prompts: PromptSource = None,
    limit: Limit = None,
    seed: Seed = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write plan.parquet to this folder.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Count what a suite would evaluate, and what does not apply and why."""
    import json

    import polars as pl

    from harness.commands.options import read_sets, select_suite
    from harness.plan import build_plan
    from harness.store import write_parquet

    chosen = select_suite(
        suite, datasets=datasets, split=split, prompt_type=prompt_type, prompts=prompts, seed=seed
    )
    made = build_plan(chosen, read_sets(chosen, data_root, limit=limit, quiet=quiet))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_parquet(out / "plan.parquet", made.cases)
        write_parquet(out / "not_applicable.parquet", made.not_applicable)
    counts = made.cases.group_by("dataset", "split", "probe", "attribute", maintain_order=True).agg(
        cases=pl.len(), texts=pl.col("prompt").n_unique(), samples=pl.col("sample_id").n_unique()
    )
    if as_json:
        content = {
            "plan_sha256": made.sha256,
            "cases": counts.to_dicts(),
            "not_applicable": made.not_applicable.to_dicts(),
            "sources": dict(made.sources),
        }
        typer.echo(json.dumps(content, indent=1, ensure_ascii=False))
    elif not quiet:
        _print(made.cases.height, made.cases["prompt"].n_unique(), counts, made.not_applicable)
        typer.echo(f"plan {made.sha256}")


def _print(n_cases: int, n_texts: int, counts: "pl.DataFrame", skipped: "pl.DataFrame") -> None:
    from rich.console import Console

    console = Console()
    console.print(_table(counts, title=f"{n_cases} cases, {n_texts} distinct texts"))
    if skipped.height:
        shown = skipped.select("dataset", "probe", "attribute", "n_samples", "reason")
        console.print(_table(shown, title="does not apply"))


def _table(frame: "pl.DataFrame", *, title: str) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for name, kind in frame.schema.items():
        table.add_column(name, justify="right" if kind.is_numeric() else "left")
    for row in frame.iter_rows():
        table.add_row(*(Text("" if value is None else str(value)) for value in row))
    return table

"""``score``: recompute the summary of a run from its stored counts, without a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.commands.options import AsJson, Quiet

if TYPE_CHECKING:
    import polars as pl

    from harness.store import RunStore


def score(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    empty: Annotated[
        str | None, typer.Option("--empty", help="Dice of two empty masks: one, zero or nan.")
    ] = None,
    draws: Annotated[int | None, typer.Option("--draws", help="Bootstrap draws.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Recompute a run's statistics from its counts; no model is loaded."""
    from harness.errors import UsageError
    from harness.store import RunStore

    store = RunStore(run)
    if not store.manifest:
        raise UsageError(
            f"{run}: no run.json here. A run directory is needed. Give the folder that "
            "`vlsm-harness run` printed."
        )
    with store.locked():
        finish(store, empty=empty, draws=draws, as_json=as_json, quiet=quiet)


def finish(
    store: "RunStore",
    *,
    empty: str | None = None,
    draws: int | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> float:
    """Summarise a run, write and print the result; returns the share of failed cases."""
    from harness.report.files import write_summary
    from harness.stats.summary import summarise
    from harness.suites import Suite

    content = store.suite().model_dump()
    if empty is not None:
        content["metric"]["empty"] = empty
    if draws is not None:
        content["statistics"]["draws"] = draws
    suite = Suite.model_validate(content)
    plan, scores, manifest = store.plan_cases(), store.scores(), store.manifest
    summary = summarise(
        plan,
        scores,
        models=_facts(manifest),
        not_applicable=store.not_applicable(),
        suite=suite,
        cluster_kinds=manifest.get("cluster_kinds", {}),
        texts=store.texts(),
    )
    write_summary(summary, store.folder, title=suite.title)
    failed = _count(store, plan, scores)
    if as_json:
        typer.echo((store.folder / "summary.json").read_text(encoding="utf-8"))
    elif not quiet:
        _print(summary, store)
    return failed


def _facts(manifest: dict[str, Any]) -> list[Any]:
    from harness.stats.facts import ModelFacts

    return [
        ModelFacts(
            model_id=entry["model_id"],
            name=entry["name"],
            trained_on=tuple(entry["trained_on"]),
            control=entry["control"],
            threshold=entry["threshold"],
        )
        for entry in manifest.get("models", [])
    ]


def _count(store: "RunStore", plan: "pl.DataFrame", scores: "pl.DataFrame") -> float:
    """Write the counts of a run to its manifest; the share of cases without a score."""
    import polars as pl

    from harness.store import DONE

    skipped = store.not_applicable()
    done = scores.filter(pl.col("status") == DONE).height
    planned = plan.height * len(store.manifest.get("models", []))
    store.update(
        status="complete" if done == planned else "incomplete",
        counts={
            "planned": planned,
            "done": done,
            "failed": scores.height - done,
            "missing": planned - scores.height,
            "not_applicable": skipped.to_dicts(),
        },
    )
    return 0.0 if planned == 0 else 1 - done / planned


def _print(summary: "pl.DataFrame", store: "RunStore") -> None:
    from rich.console import Console

    from harness.report.table import tables

    console = Console(width=None if Console().is_terminal else 110)
    for table in tables(summary):
        console.print(table)
    counts = store.manifest["counts"]
    console.print(
        f"{counts['done']} of {counts['planned']} cases done, {counts['failed']} failed, "
        f"{counts['missing']} missing."
    )
    for name in ("summary.md", "summary.json", "summary.parquet", "run.json"):
        console.print(f"  {store.folder / name}", soft_wrap=True)

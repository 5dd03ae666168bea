"""``score``: recompute the summary of a run from its stored counts, without a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.commands.options import AsJson, Quiet
from harness.commands.output import say_json, terminal

if TYPE_CHECKING:
    from harness.runs.store import RunStore
    from harness.stats.assessment import Assessment
    from harness.suite.schema import Suite


def score(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    empty: Annotated[
        str | None, typer.Option("--empty", help="Dice of two empty masks: one, zero or nan.")
    ] = None,
    floor: Annotated[
        float | None,
        typer.Option("--floor", help="Least Dice of originals whose relative change is given."),
    ] = None,
    correction: Annotated[
        str | None,
        typer.Option("--correction", help="holm, benjamini_hochberg or none."),
    ] = None,
    draws: Annotated[int | None, typer.Option("--draws", help="Bootstrap draws.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the result. [default: the run's own]")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Recompute a run's statistics from its counts, without a model; incomplete: exit 3."""
    from harness.auditing.choices import with_rules
    from harness.errors import UsageError
    from harness.runs.store import RunStore

    store = RunStore(run)
    if not store.manifest:
        raise UsageError(
            f"{run}: no run.json here. A run directory is needed. Give the folder that "
            "`vlsm-harness run` printed."
        )
    rules = {"statistics": {"dice_floor": floor, "correction": correction, "draws": draws}}
    suite = with_rules(store.suite(), rules | {"metric": {"empty": empty}})
    with store.locked():
        is_whole = finish(store, suite=suite, out=out, as_json=as_json, quiet=quiet)
    if not is_whole:
        raise typer.Exit(3)


def finish(
    store: "RunStore",
    *,
    suite: "Suite | None" = None,
    out: Path | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> bool:
    """Summarise a run and print the result; returns whether the run is whole."""
    from harness.auditing.summarising import summarise

    found = summarise(store, suite=suite, out=out)
    if as_json:
        say_json(((out or store.folder) / "summary.json").read_text(encoding="utf-8"))
    elif not quiet:
        _print(found.assessment, store, found.paths)
    return found.is_whole


def _print(found: "Assessment", store: "RunStore", paths: Sequence[Path]) -> None:
    from rich.text import Text

    from harness.report.escape import plain
    from harness.report.table import tables

    console = terminal(110)
    for table in tables(found.summary):
        console.print(table)
    for verdict in found.language:
        if verdict.is_asked:
            console.print(Text(plain(verdict.reason)), soft_wrap=True)
    counts = store.manifest["counts"]
    console.print(
        f"{counts['done']} of {counts['planned']} cases done, {counts['failed']} failed, "
        f"{counts['missing']} missing."
    )
    for path in (*paths, store.folder / "run.json"):
        console.print(f"  {path}", soft_wrap=True)

"""``export``: a run in the forms of other places."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.commands.options import Quiet
from harness.commands.output import say

if TYPE_CHECKING:
    from harness.report.loaded import LoadedRun

FORMS = {"csv": "cases.csv", "hub": "hub", "croissant": "croissant"}
"""Forms, and what is written below the run where no place is given."""


def export(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="csv: every case. hub: a model card with a model index. croissant: its data sets.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="File or folder. [default: RUN/cases.csv, RUN/hub, ...]"),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="hub: of this model only.")] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            "--benchmark", help="hub: id of the data set whose leaderboard takes .eval_results."
        ),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            "--data-root", envvar="VLSM_DATA_ROOT", help="croissant: the data. [default: the run's]"
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write a run's cases, or what a hub takes of it, or its data sets' description."""
    from harness.errors import UsageError, choose
    from harness.report.loaded import load_run
    from harness.trackers.exports import export_cards, export_cases

    choose(to, FORMS, kind="form", where="--to", error=UsageError)
    loaded, place = load_run(run), out or run / FORMS[to]
    if to == "csv":
        written = export_cases(loaded, place)
    elif to == "hub":
        written = export_cards(loaded, place, model=model, benchmark=benchmark)
    else:
        written = _croissant(loaded, place, data_root)
    if not quiet:
        for path in written:
            say(str(path))


def _croissant(run: "LoadedRun", folder: Path, data_root: Path | None) -> list[Path]:
    from harness.auditing.samples import read_sets
    from harness.trackers.exports import export_croissant

    root = data_root or Path(run.manifest["data_root"])
    sets = read_sets(run.suite, root, limit=run.manifest["limit"], pictures=None)
    written, remarks = export_croissant(run, sets, folder)
    for remark in remarks:
        say(remark, err=True)
    return written

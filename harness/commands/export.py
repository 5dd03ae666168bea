"""``export``: a run in the forms of other places."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.commands.options import Quiet
from harness.commands.output import say

if TYPE_CHECKING:
    from harness.report.loaded import LoadedRun

FORMS = {
    "csv": "cases.csv",
    "hub": "hub",
    "every-eval-ever": "every-eval-ever",
    "croissant": "croissant",
}
"""Forms, and what is written below the run where no place is given."""
_TAKERS = {
    "--model": ("hub", "every-eval-ever"),
    "--benchmark": ("hub",),
    "--organization": ("every-eval-ever",),
    "--relationship": ("every-eval-ever",),
    "--developer": ("every-eval-ever",),
}


def export(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="csv: every case. hub: a model card with a model index. every-eval-ever: a record "
            "a model. croissant: its data sets.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="File or folder. [default: RUN/cases.csv, RUN/hub, ...]"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="hub, every-eval-ever: of this model only."),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            "--benchmark", help="hub: id of the data set whose leaderboard takes .eval_results."
        ),
    ] = None,
    organization: Annotated[
        str | None,
        typer.Option(
            "--organization", help="every-eval-ever: who evaluated. [default: not-stated]"
        ),
    ] = None,
    relationship: Annotated[
        str | None,
        typer.Option(
            "--relationship",
            help="every-eval-ever: of the evaluator to the models' makers: first_party, "
            "third_party, collaborative or other.",
        ),
    ] = None,
    developer: Annotated[
        str | None,
        typer.Option(
            "--developer",
            help="every-eval-ever: who made the models, the first part of their ids. "
            "[default: not-stated; of weights that ship, vlsm-harness]",
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
    from harness.files.writing import refuse_unwritable
    from harness.report.loaded import load_run
    from harness.report.markdown import limit_note
    from harness.trackers import every_eval_ever as eee
    from harness.trackers.exports import export_cards, export_cases

    choose(to, FORMS, kind="form", where="--to", error=UsageError)
    given = (model, benchmark, organization, relationship, developer)
    for option, value in zip(_TAKERS, given, strict=True):
        if value is not None and to not in _TAKERS[option]:
            forms = " and ".join(_TAKERS[option])
            raise UsageError(
                f"{option}: --to {to} has no use for it. It is an option of {forms}. Leave it out."
            )
    loaded, place = load_run(run), out or run / FORMS[to]
    refuse_unwritable(place, is_folder=to != "csv")
    remarks: list[str] = []
    if to == "csv":
        written = export_cases(loaded, place)
    elif to == "hub":
        written = export_cards(loaded, place, model=model, benchmark=benchmark)
    elif to == "every-eval-ever":
        stated = eee.Provenance(developer, organization, relationship)
        written, remarks = eee.export_records(loaded, place, model=model, provenance=stated)
    else:
        written, remarks = _croissant(loaded, place, data_root)
    for remark in (limit_note(loaded.manifest), *remarks):
        if remark is not None:
            say(f"note: {remark}", err=True)
    if not quiet:
        for path in written:
            say(str(path))


def _croissant(
    run: "LoadedRun", folder: Path, data_root: Path | None
) -> tuple[list[Path], list[str]]:
    from harness.auditing.samples import read_sets
    from harness.trackers.exports import export_croissant

    root = data_root or Path(run.manifest["data_root"])
    sets = read_sets(run.suite, root, limit=run.manifest["limit"], pictures=None)
    return export_croissant(run, sets, folder)

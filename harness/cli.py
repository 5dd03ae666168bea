"""The command ``vlsm-harness``: one verb a file, errors turned into exit codes.

Conventions: exit 0 good, 1 the gate failed, 2 the user can repair it, 3 incomplete
or too many errors, 5 nothing selected, 130 interrupted and can be continued.
"""

import sys
from typing import Annotated

import typer

from harness import __version__
from harness.commands import (
    bench,
    check,
    compare,
    demo,
    finetune,
    gate,
    generate,
    hunt,
    leaderboard,
    listing,
    peek,
    plan,
    power,
    replay,
    report,
    run,
    score,
    submit,
    verify,
)
from harness.errors import HarnessError, NothingSelectedError

app = typer.Typer(
    name="vlsm-harness",
    help="Does a vision-language segmentation model use its prompt, and what breaks it?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("check")(check.check)
app.command("plan")(plan.plan)
app.command("peek")(peek.peek)
app.command("score")(score.score)
app.command("report")(report.report)
app.command("gate")(gate.gate)
app.command("compare")(compare.compare)
app.command("power")(power.power)
app.command("hunt")(hunt.hunt)
app.command("replay")(replay.replay)
app.command("finetune")(finetune.finetune)
app.command("bench")(bench.bench)
app.command("generate")(generate.generate)
app.command("phantom", hidden=True)(generate.generate)  # what it was called
app.command("submit")(submit.submit)
app.command("verify")(verify.verify)
app.add_typer(leaderboard.app, name="leaderboard")
app.command("ls")(listing.ls)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Global options stand here; each verb has its own."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        app()
    except NothingSelectedError as problem:
        _leave(problem, 5)
    except HarnessError as problem:
        _leave(problem, 2)


def _leave(problem: HarnessError, code: int) -> None:
    typer.echo(f"error: {problem}", err=True)
    sys.exit(code)

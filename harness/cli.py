"""The command ``vlsm-harness``: one verb a file, errors turned into exit codes.

Conventions: exit 0 good, 1 the gate failed (a break no longer holds, a submission is refused)
and nothing else, 2 the user can repair it, 3 incomplete or too many errors, 4 a fault of the
harness itself, 5 nothing selected, 130 interrupted and can be continued, 141 nobody reads the
output any more.
"""

import errno
import os
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer
import typer.core

from harness._version import __version__
from harness.commands import (
    bench,
    check,
    compare,
    data,
    demo,
    doctor,
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
from harness.commands.output import say
from harness.errors import HarnessError, NothingSelectedError


class Verbs(typer.core.TyperGroup):
    """The verbs; where a reader of the output has left, Typer would exit with 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Python would complain at the end that what is left cannot be written either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None


app = typer.Typer(
    cls=Verbs,
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
app.add_typer(data.app, name="data")
app.command("finetune")(finetune.finetune)
app.command("bench")(bench.bench)
app.command("generate")(generate.generate)
app.command("phantom", hidden=True)(generate.generate)  # what it was called
app.command("submit")(submit.submit)
app.command("verify")(verify.verify)
app.add_typer(leaderboard.app, name="leaderboard")
app.command("ls")(listing.ls)
app.command("doctor")(doctor.doctor)


_TRUST = "--trust-adapter"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
    trust_adapter: Annotated[
        bool,
        typer.Option(
            _TRUST,
            help="Run the adapter, a program, beside a card from elsewhere; remembered by its "
            "hash. May stand behind the verb.",
        ),
    ] = False,
) -> None:
    """Global options stand here; each verb has its own."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    _ask_for_trust()
    try:
        app()
    except NothingSelectedError as problem:
        _leave(str(problem), 5)
    except HarnessError as problem:
        _leave(str(problem), 2)
    except OSError as problem:
        if problem.errno in _BAD_NAMES:
            _leave(
                f"{problem.filename}: no disk can hold this name ({problem.strerror}). A path of "
                "folders that are there is needed. Correct the name.",
                2,
            )
        place = problem.filename or "standard output"
        _leave(
            f"{place}: {problem.strerror or problem}. The command needs this place. Make it "
            "readable or writable, free space, or choose another.",
            2,
        )
    except Exception:  # noqa: BLE001 - Python's own exit code would say that the gate failed
        traceback.print_exc()
        _leave(
            "harness: the traceback above is a fault of the harness or of a model's adapter. No "
            "input should end in one. Report it with the command.",
            4,
        )


# Whether a file is there is asked in many places; of some names the question itself fails.
_BAD_NAMES = (errno.ENAMETOOLONG, errno.ELOOP)


def _ask_for_trust() -> None:
    """Commands run a stranger's adapter only when told to; so do the processes they start."""
    os.environ.setdefault("VLSM_TRUST_ADAPTERS", "ask")
    if _TRUST in sys.argv:
        sys.argv = [argument for argument in sys.argv if argument != _TRUST]
        os.environ["VLSM_TRUST_ADAPTERS"] = "remember"


def _leave(problem: str, code: int) -> NoReturn:
    say(f"error: {problem}", err=True)
    sys.exit(code)

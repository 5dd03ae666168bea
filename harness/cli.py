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
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
import typer.core
import typer.main

from harness._version import __version__
from harness.commands.output import say
from harness.errors import HarnessError, NothingSelectedError, nearest

# The module of a verb has its name and is imported when the verb is called.
VERBS: Mapping[str, str] = {
    "demo": "Audit the small models that ship, in about two minutes",
    "run": "Run a suite with one or more models, or continue it",
    "check": "Check suites, cards, data, models and perturbations",
    "plan": "Count what a suite would evaluate, and freeze it",
    "peek": "Show what a suite does to a few prompts",
    "score": "Recompute a run's statistics from its counts",
    "report": "Write a run's page, figures and tables",
    "export": "Write a run for a spreadsheet, a hub or other places",
    "gate": "Decide whether a run is good enough",
    "compare": "Compare models on the same cases",
    "power": "How small a change a run could show",
    "hunt": "Search for the smallest edit that breaks a model",
    "replay": "Ask a model again about breaks",
    "data": "Make a data set of your own files",
    "finetune": "Finetune a model",
    "bench": "Measure the engine against the plain loop",
    "generate": "Write the generated data sets",
    "submit": "Make a submission to the leaderboard",
    "verify": "Verify a submission",
    "leaderboard": "Build the leaderboard's site, or pin a track",
    "ls": "List what ships with the harness",
    "doctor": "Tell what is installed and what is missing",
}
# What was or may be said instead, and is not shown.
_OTHER_NAMES = {"list": "ls", "phantom": "generate"}
_OTHER_OPTIONS = {"bench": {"--dataset": "--datasets"}, "finetune": {"--data": "--datasets"}}


class Verbs(typer.core.TyperGroup):
    """The verbs; where a reader of the output has left, Typer would exit with 1."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a verb's module: an `app` of its own, or a function with the verb's name."""
        verb = _OTHER_NAMES.get(cmd_name, cmd_name)
        if verb not in VERBS:
            return None
        module = import_module(f"harness.commands.{verb}")
        if not hasattr(module, "app"):
            only = typer.Typer(add_completion=False, rich_markup_mode=None)
            only.command(verb)(getattr(module, verb))
            return typer.main.get_command(only)
        return typer.main.get_command(module.app)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Without an import of any verb."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb; options in other spellings become those it has."""
        if args[0] not in {*VERBS, *_OTHER_NAMES} and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}.{nearest(args[0], VERBS)}")
        verb, command, rest = super().resolve_command(ctx, args)
        others = _OTHER_OPTIONS.get(str(verb), {})
        named = (argument.partition("=") for argument in rest)
        return verb, command, [others.get(n, n) + mark + value for n, mark, value in named]

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
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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

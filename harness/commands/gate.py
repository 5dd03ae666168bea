"""``gate``: pass or fail for CI, from a run and a baseline, without a model.

Conventions: files are written before the exit code is decided by anything else than the checks, so
that a red job has its report. ``--baseline`` takes a run directory or a file of ``--update``.
"""

import json
import os
from io import StringIO
from pathlib import Path
from typing import Annotated

import typer

from harness.commands.options import AsJson, Quiet
from harness.commands.output import say, terminal
from harness.errors import HarnessError
from harness.files.writing import append_text, refuse_unwritable, write_text
from harness.gate.audited import Audited, read_run
from harness.gate.baseline import text_of
from harness.gate.checks import Severity
from harness.gate.gating import Gated, as_baseline, baseline_at, check_run
from harness.report.escape import visible, visible_json
from harness.report.gate import (
    annotations,
    command,
    gate_lines,
    junit_error,
    junit_xml,
    step_summary,
    stopped,
)


def gate(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", help="What may not get worse: a run, or a file of --update."),
    ] = None,
    update: Annotated[
        Path | None, typer.Option("--update", help="Write this run as a baseline's file.")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", help="JUnit XML. [default: RUN/junit.xml]")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Which model of a run of several.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="A rule that is left open fails.")
    ] = False,
    lenient: Annotated[
        bool,
        typer.Option("--lenient", help="Not shown to be as good as the baseline: a warning."),
    ] = False,
    allow_drift: Annotated[
        bool,
        typer.Option("--allow-drift", help="Compare with a baseline that had other prompts."),
    ] = False,
    github: Annotated[
        bool,
        typer.Option(
            "--github", envvar="GITHUB_ACTIONS", help="Annotations and step summary of Actions."
        ),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Decide whether a run is good enough: exit 0 good, 1 failed, 3 incomplete."""
    report = junit or run / "junit.xml"
    try:
        for file in (junit, update):
            refuse_unwritable(file)
        found = read_run(run, model=model)
        old = None if baseline is None else baseline_at(baseline, run=found)
        severity = Severity(strict, lenient, known_fails=found.suite.gate.known == "fail")
        verdict = check_run(
            found, old, severity=severity, allow_drift=allow_drift, where=str(baseline)
        )
    except HarnessError as problem:
        # A folder that is no run is left alone.
        is_run = junit is not None or (run / "run.json").is_file()
        _report_error(problem, report if is_run else None, github=github, as_json=as_json)
        raise
    _report(verdict, report, github=github, as_json=as_json, quiet=quiet)
    if update is not None:
        _update(found, update)
    if verdict.code:
        raise typer.Exit(verdict.code)


def _report(found: Gated, junit: Path, *, github: bool, as_json: bool, quiet: bool) -> None:
    """Write and print everything that is said of a gate, passed or not."""
    write_text(junit, junit_xml(found))
    if as_json:
        record = json.dumps(found.record(), indent=1, ensure_ascii=False, allow_nan=False)
        text = visible_json(record)
    else:
        text = "" if quiet else _table(found) + visible(f"  {junit}")
    if text:
        typer.echo(stopped(text) if github and not as_json else text)
    if not github:
        return
    for line in annotations(found):
        # Programs read what --json prints; Actions read both streams.
        typer.echo(line, err=as_json)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        append_text(Path(summary), step_summary(found))


def _report_error(problem: Exception, junit: Path | None, *, github: bool, as_json: bool) -> None:
    """No report of an earlier gate may stand for one that could not be decided."""
    if junit is not None:
        write_text(junit, junit_error(str(problem)))
    if github:
        typer.echo(command("error", "vlsm-harness gate", str(problem)), err=as_json)


def _table(found: Gated) -> str:
    real = terminal()
    console = terminal(
        120,
        file=StringIO(),
        force_terminal=real.is_terminal,
        color_system="auto" if real.is_terminal else None,
    )
    with console.capture() as captured:
        for part in gate_lines(found):
            console.print(part)
    return captured.get()


def _update(found: Audited, path: Path) -> None:
    """Write a run as a baseline; one that is not whole stands for nothing."""
    if found.limit is not None or found.n_done < found.n_planned:
        say(
            f"error: {path}: not written, the run is not whole: {found.n_done} of "
            f"{found.n_planned} cases"
            f"{'' if found.limit is None else f', cut with --limit {found.limit}'}. A baseline "
            "holds every case of the suite. Finish the run without --limit.",
            err=True,
        )
        raise typer.Exit(3)
    write_text(path, text_of(as_baseline(found)))
    say(f"baseline written: {path}", err=True)

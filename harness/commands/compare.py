"""``compare``: models against each other, case by case, from stored runs."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from rich.text import Text

from harness.auditing.choices import split_names
from harness.auditing.subjects import subjects_of
from harness.commands.options import AsJson, Quiet
from harness.commands.output import say_json, terminal
from harness.errors import UsageError
from harness.files.writing import refuse_unwritable
from harness.report.comparison import (
    comparison_json,
    coverage_lines,
    coverage_sentences,
    sections,
    write_comparison,
)
from harness.report.escape import plain
from harness.report.sheet import renderable
from harness.report.tuning import tuning_content, tuning_sheets, write_tuning
from harness.stats.comparison.common import Subject
from harness.stats.comparison.compare import Comparison
from harness.stats.comparison.compare import compare as compared
from harness.stats.comparison.tuning import Tuning, compare_language

# Above this many rows a terminal shows ranks and what is shown to differ, and counts the rest.
MOST_ROWS = 60


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="RUN or RUN#MODEL: run directories, all models of each or one."),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Only these models, by name or id: a,b or repeated."),
    ] = None,
    language: Annotated[
        bool,
        typer.Option(
            "--language", help="Two models, base and tuned: what finetuning did to the language."
        ),
    ] = False,
    empty: Annotated[
        str | None, typer.Option("--empty", help="Dice of two empty masks: one, zero or nan.")
    ] = None,
    correction: Annotated[
        str | None, typer.Option("--correction", help="holm, benjamini_hochberg or none.")
    ] = None,
    draws: Annotated[int | None, typer.Option("--draws", help="Bootstrap draws.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for comparison.md, .html, .json and two Parquet tables; with --language "
            "for language.html and .json.",
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare models on the same cases: differences with intervals, and ranks with ties."""
    rules: dict[str, dict[str, Any]] = {
        "statistics": {"correction": correction, "draws": draws},
        "metric": {"empty": empty},
    }
    refuse_unwritable(out, is_folder=True)
    subjects = subjects_of(runs, split_names(model), rules=rules)
    if language:
        _compare_language(subjects, out, as_json=as_json, quiet=quiet)
        return
    found = compared(subjects)
    paths = write_comparison(found, out) if out else []
    if as_json:
        say_json(comparison_json(found))
    elif not quiet:
        _print(found, paths)


def _compare_language(
    subjects: Sequence[Subject], out: Path | None, *, as_json: bool, quiet: bool
) -> None:
    if len(subjects) != 2:
        names = ", ".join(subject.label for subject in subjects)
        raise UsageError(
            f"compare --language: found {len(subjects)} models ({names}). Two are needed, the "
            "base first and then the one that was tuned from it. Name them as RUN#MODEL."
        )
    found = compare_language(*subjects)
    paths = write_tuning(found, subjects, out) if out else []
    if as_json:
        say_json(json.dumps(tuning_content(found), indent=1, ensure_ascii=False))
    elif not quiet:
        _print_tuning(found, paths)


def _print_tuning(found: Tuning, paths: Sequence[Path]) -> None:
    console = terminal(130)
    for line in (*coverage_sentences(found.coverage), "", found.sentence, ""):
        console.print(Text(plain(line)), soft_wrap=True)
    for sheet in tuning_sheets(found):
        console.print(renderable(sheet))
    for line in (*found.diagnosis, *(f"  {path}" for path in paths)):
        console.print(Text(plain(line)), soft_wrap=True)


def _print(found: Comparison, paths: Sequence[Path]) -> None:
    console = terminal(130)
    for line in coverage_lines(found):
        console.print(Text(plain(line)), soft_wrap=True)
    console.print()
    n_rows = found.differences.height
    if n_rows > MOST_ROWS:
        found = replace(found, differences=found.differences.filter(pl.col("differs")))
    for section in sections(found):
        console.print(renderable(section))
    if n_rows > MOST_ROWS:
        left = n_rows - found.differences.height
        console.print(f"{left} of {n_rows} differences are not shown to be any: see --out.")
    for path in paths:
        console.print(f"  {path}", soft_wrap=True)

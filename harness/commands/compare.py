"""``compare``: models against each other, case by case, from stored runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from rich.text import Text

from harness.auditing.choices import split_names, with_rules
from harness.commands.options import AsJson, Quiet
from harness.commands.output import say_json, terminal
from harness.errors import UsageError, nearest
from harness.report.comparison import comparison_json, coverage_lines, sections, write_comparison
from harness.report.escape import plain
from harness.report.sheet import renderable
from harness.runs.store import RunStore
from harness.stats.common import Subject
from harness.stats.compare import Comparison
from harness.stats.compare import compare as compared
from harness.stats.pairs import models_of

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
    empty: Annotated[
        str | None, typer.Option("--empty", help="Dice of two empty masks: one, zero or nan.")
    ] = None,
    correction: Annotated[
        str | None, typer.Option("--correction", help="holm, benjamini_hochberg or none.")
    ] = None,
    draws: Annotated[int | None, typer.Option("--draws", help="Bootstrap draws.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for comparison.md, .json and two Parquet tables."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare models on the same cases: differences with intervals, and ranks with ties."""
    rules: dict[str, dict[str, Any]] = {
        "statistics": {"correction": correction, "draws": draws},
        "metric": {"empty": empty},
    }
    found = compared(subjects_of(runs, split_names(model), rules=rules))
    paths = write_comparison(found, out) if out else []
    if as_json:
        say_json(comparison_json(found))
    elif not quiet:
        _print(found, paths)


def subjects_of(
    runs: Sequence[str], models: Sequence[str], *, rules: Mapping[str, Mapping[str, Any]]
) -> list[Subject]:
    """The models that are compared, at least two, in the order of the command line."""
    found = []
    for argument in runs:
        store, name = _opened(argument)
        wanted = [name] if name else list(models)
        suite = with_rules(store.suite(), rules)
        facts = [f for f in models_of(store.manifest) if _is_wanted(f, wanted)]
        if name and not facts:
            known = ", ".join(repr(f.name) for f in models_of(store.manifest))
            raise UsageError(
                f"{argument}: no model {name!r} in this run. It holds {known}. Give one of them, "
                "by name or id."
            )
        found += [Subject(f.name, str(store.folder), store, suite, f) for f in facts]
    _refuse_strangers(models, found)
    if len(found) < 2:
        raise UsageError(
            f"compare: found {len(found)} models in {', '.join(runs)}. At least two are needed. "
            "Name another run, or fewer models in --model."
        )
    return _labelled(found)


def _is_wanted(facts: Any, wanted: Sequence[str]) -> bool:
    return not wanted or facts.name in wanted or facts.model_id in wanted


def _refuse_strangers(models: Sequence[str], found: Sequence[Subject]) -> None:
    known = {name for s in found for name in (s.facts.name, s.facts.model_id)}
    for name in models:
        if name not in known:
            raise UsageError(
                f"--model: no run holds a model {name!r}.{nearest(name, known)} Give names or ids "
                "that stand in a run.json."
            )


def _opened(argument: str) -> tuple[RunStore, str]:
    """A run and the model asked for, if any."""
    folder, name = argument, ""
    if not Path(argument).exists() and "#" in argument:
        folder, _, name = argument.rpartition("#")
    store = RunStore(Path(folder))
    if not store.manifest:
        raise UsageError(
            f"{folder}: no run.json here. A run directory, or RUN#MODEL, is needed. Give the "
            "folder that `vlsm-harness run` printed."
        )
    return store, name


def _labelled(subjects: list[Subject]) -> list[Subject]:
    """Each with the shortest kind of name that tells all apart."""
    kinds: list[Callable[[Subject], str]] = [
        lambda s: s.facts.name,
        lambda s: f"{s.facts.name} ({Path(s.run).name})",
        lambda s: s.facts.model_id,
        lambda s: f"{s.facts.model_id} ({s.run})",
    ]
    for kind in kinds:
        labels = [kind(s) for s in subjects]
        if len(set(labels)) == len(labels):
            break
    else:
        labels = [f"{s.facts.name} ({place})" for place, s in enumerate(subjects, 1)]
    return [replace(s, label=label) for s, label in zip(subjects, labels, strict=True)]


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

"""``compare``: models against each other, case by case, from stored runs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.auditing.choices import split_names
from harness.commands.options import AsJson, Quiet
from harness.commands.output import say_json, terminal

if TYPE_CHECKING:
    from harness.runs.store import RunStore
    from harness.stats.common import Subject
    from harness.stats.compare import Comparison

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
        typer.Option("--out", help="Folder for comparison.md, .json and two Parquet tables."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare models on the same cases: differences with intervals, and ranks with ties."""
    from harness.report.comparison import comparison_json, write_comparison
    from harness.stats.compare import compare as compared

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
) -> "list[Subject]":
    """The models that are compared, in the order of the command line.

    Raises:
        UsageError: A folder is no run, a name is unknown, or fewer than two models are left.
    """
    from harness.auditing.choices import with_rules
    from harness.errors import UsageError
    from harness.stats.common import Subject
    from harness.stats.pairs import models_of

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
    return not wanted or not set(facts.known_as).isdisjoint(wanted)


def _refuse_strangers(models: Sequence[str], found: "Sequence[Subject]") -> None:
    from harness.errors import UsageError, nearest

    known = {name for s in found for name in s.facts.known_as}
    for name in models:
        if name not in known:
            raise UsageError(
                f"--model: no run holds a model {name!r}.{nearest(name, known)} Give names or ids "
                "that stand in a run.json."
            )


def _opened(argument: str) -> "tuple[RunStore, str]":
    """A run and the model asked for, if any."""
    from harness.errors import UsageError
    from harness.runs.store import RunStore

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


def _labelled(subjects: "list[Subject]") -> "list[Subject]":
    """Each with the shortest kind of name that tells all apart."""
    from dataclasses import replace

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


def _print(found: "Comparison", paths: Sequence[Path]) -> None:
    import polars as pl
    from rich.text import Text

    from harness.report.comparison import coverage_lines, sections
    from harness.report.escape import plain
    from harness.report.sheet import renderable

    console = terminal(130)
    for line in coverage_lines(found):
        console.print(Text(plain(line)), soft_wrap=True)
    console.print()
    n_rows = found.differences.height
    if n_rows > MOST_ROWS:
        from dataclasses import replace

        found = replace(found, differences=found.differences.filter(pl.col("differs")))
    for section in sections(found):
        console.print(renderable(section))
    if n_rows > MOST_ROWS:
        left = n_rows - found.differences.height
        console.print(f"{left} of {n_rows} differences are not shown to be any: see --out.")
    for path in paths:
        console.print(f"  {path}", soft_wrap=True)

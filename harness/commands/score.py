"""``score``: recompute the summary of a run from its stored counts, without a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.commands.options import AsJson, Quiet
from harness.commands.output import say_json, terminal

if TYPE_CHECKING:
    import polars as pl

    from harness.runs.store import RunStore
    from harness.stats.assessment import Assessment
    from harness.suite.schema import Suite


# Above this share of failed cases a run counts as incomplete.
TOLERATED_FAILURES = 0.01


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


def with_rules(suite: "Suite", rules: Mapping[str, Mapping[str, Any]]) -> "Suite":
    """The suite with other settings in place of its own; None leaves one as it is."""
    from pydantic import ValidationError

    from harness.errors import UsageError
    from harness.suite.schema import Suite

    content = suite.model_dump()
    for part, values in rules.items():
        content[part] |= {key: value for key, value in values.items() if value is not None}
    try:
        return Suite.model_validate(content)
    except ValidationError as problems:
        first = problems.errors(include_url=False)[0]
        option = {"dice_floor": "floor"}.get(str(first["loc"][-1]), str(first["loc"][-1]))
        raise UsageError(
            f"--{option}: found {first['input']!r}. {first['msg']}. Correct the option."
        ) from None


def finish(
    store: "RunStore",
    *,
    suite: "Suite | None" = None,
    out: Path | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> bool:
    """Summarise a run, write and print the result; returns whether the run is whole.

    Whole is a run in which no case is missing and at most `TOLERATED_FAILURES` failed.
    """
    from harness.data.readings import mask_lines
    from harness.report.files import write_assessment
    from harness.stats.assessment import assess

    suite, folder, manifest = suite or store.suite(), out or store.folder, store.manifest
    scores = store.scores_scan()
    found = assess(
        store.plan_scan(),
        scores,
        models=model_facts(manifest),
        not_applicable=store.not_applicable(),
        suite=suite,
        cluster_kinds=manifest.get("cluster_kinds", {}),
        texts=store.texts(),
    )
    masks = mask_lines(manifest.get("masks", []))
    paths = write_assessment(found, folder, title=suite.title, masks=masks)
    is_whole = _count(store, scores)
    if as_json:
        say_json((folder / "summary.json").read_text(encoding="utf-8"))
    elif not quiet:
        _print(found, store, paths)
    return is_whole


def model_facts(manifest: Mapping[str, Any]) -> list[Any]:
    """What the statistics must know of each model of a run."""
    from harness.data.readings import rules_of
    from harness.stats.pairs import ModelFacts

    return [
        ModelFacts(
            model_id=entry["model_id"],
            name=entry["name"],
            trained_on=tuple(entry["trained_on"]),
            control=entry["control"],
            threshold=entry["threshold"],
            foreground=rules_of(manifest),
        )
        for entry in manifest.get("models", [])
    ]


def _count(store: "RunStore", scores: "pl.LazyFrame") -> bool:
    """Write the counts of a run to its manifest; whether it is whole."""
    import polars as pl

    from harness.runs.store import DONE

    skipped = store.not_applicable()
    is_done = pl.col("status") == DONE
    n_scores, done = scores.select(pl.len(), is_done.sum().alias("done")).collect().row(0)
    n_cases = store.plan_scan().select(pl.len()).collect().item()
    planned = n_cases * len(store.manifest.get("models", []))
    store.update(
        status="complete" if done == planned else "incomplete",
        counts={
            "planned": planned,
            "done": done,
            "failed": n_scores - done,
            "missing": planned - n_scores,
            "not_applicable": skipped.to_dicts(),
        },
    )
    return bool(n_scores == planned and n_scores - done <= TOLERATED_FAILURES * planned)


def _print(found: "Assessment", store: "RunStore", paths: Sequence[Path]) -> None:
    from rich.text import Text

    from harness.report.escape import plain
    from harness.report.table import tables

    console = terminal(110)
    for table in tables(found.summary):
        console.print(table)
    for verdict in found.language:
        if verdict.evidence:
            console.print(Text(plain(verdict.reason)), soft_wrap=True)
    counts = store.manifest["counts"]
    console.print(
        f"{counts['done']} of {counts['planned']} cases done, {counts['failed']} failed, "
        f"{counts['missing']} missing."
    )
    for path in (*paths, store.folder / "run.json"):
        console.print(f"  {path}", soft_wrap=True)

"""``score``: the summary of a run from its stored counts, or of masks made elsewhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.commands.options import AsJson, Quiet
from harness.commands.output import say_json, terminal

if TYPE_CHECKING:
    from harness.auditing.importing import Predictions
    from harness.records import Reading
    from harness.runs.store import RunStore
    from harness.stats.assessment import Assessment
    from harness.suite.schema import Suite


def score(
    run: Annotated[Path, typer.Argument(help="A run; with --predictions a plan's file or a run.")],
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            help="Folder of masks made elsewhere: CASE_ID.png, *.jsonl (COCO RLE), *.npz.",
        ),
    ] = None,
    model_name: Annotated[
        str | None, typer.Option("--model-name", help="Of whatever made the predictions.")
    ] = None,
    mask_rule: Annotated[
        str | None,
        typer.Option(
            "--mask-rule",
            help="What of a predicted mask is foreground, as a data set's card says it: "
            "'{above: 127}'. [default: what each file holds]",
        ),
    ] = None,
    trained_on: Annotated[
        list[str] | None,
        typer.Option("--trained-on", help="Data set the predictions' model saw; repeat."),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            "--data-root",
            envvar="VLSM_DATA_ROOT",
            help="Folder above the datasets' own. [default: the plan's]",
        ),
    ] = None,
    masks: Annotated[
        int, typer.Option("--masks", min=0, help="Predicted masks kept per probe, as by run.")
    ] = 2,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="With --predictions: move an existing run aside.")
    ] = False,
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
        Path | None,
        typer.Option(
            "--out",
            help="Folder of the result. [default: the run's own] With --predictions the run "
            "directory. [default: runs/SUITE-PLANHASH]",
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Statistics of a run without a model, or of masks made elsewhere; incomplete: exit 3."""
    from harness.auditing.choices import with_rules
    from harness.files.writing import refuse_unwritable

    rules = {"statistics": {"dice_floor": floor, "correction": correction, "draws": draws}}
    rules |= {"metric": {"empty": empty}}
    if predictions is not None or model_name is not None:
        made = _predictions(predictions, model_name, mask_rule, trained_on)
        _refuse_rules(rules)
        store = _imported(run, made, root=data_root, out=out, masks=masks, fresh=fresh, quiet=quiet)
        out = None
    else:
        store = _opened(run)
    suite = with_rules(store.suite(), rules)
    refuse_unwritable(out, is_folder=True)
    with store.locked():
        is_whole = finish(store, suite=suite, out=out, as_json=as_json, quiet=quiet)
    if not is_whole:
        raise typer.Exit(3)


def _opened(run: Path) -> "RunStore":
    from harness.errors import UsageError
    from harness.runs.store import RunStore

    store = RunStore(run)
    if not store.manifest:
        raise UsageError(
            f"{run}: no run.json here. A run directory is needed. Give the folder that "
            "`vlsm-harness run` printed; for masks made elsewhere give a plan with --predictions."
        )
    return store


def _refuse_rules(rules: Mapping[str, Mapping[str, object]]) -> None:
    """A run keeps the rules it was made with: others are a second look at its counts."""
    from harness.errors import UsageError

    if given := [
        key for part in rules.values() for key, value in part.items() if value is not None
    ]:
        raise UsageError(
            f"--predictions: found the setting {given[0]!r} beside it. Predictions are scored by "
            "the suite's rules. Score them first, then `vlsm-harness score RUN` with other rules."
        )


def _predictions(
    folder: Path | None, name: str | None, rule: str | None, trained_on: "Sequence[str] | None"
) -> "Predictions":
    from harness.auditing.importing import Predictions
    from harness.cards import plain_name
    from harness.errors import UsageError

    if folder is None or name is None:
        lacks = "--model-name" if folder else "--predictions"
        raise UsageError(
            f"{lacks}: not given. Masks made elsewhere need their folder and the name of whatever "
            "made them. Give --predictions FOLDER --model-name NAME."
        )
    try:
        plain_name(name)
    except ValueError as problem:
        raise UsageError(f"--model-name: found {name!r}: {problem}. Correct the option.") from None
    return Predictions(folder, name, _reading(rule), tuple(trained_on or ()))


def _reading(rule: str | None) -> "Reading":
    """The rule for masks, in the words of a data set's card."""
    from harness.cards import read_mask_rule
    from harness.records import BY_CONTENT

    return BY_CONTENT if rule is None else read_mask_rule(rule, where="--mask-rule")


def _imported(
    plan: Path,
    predictions: "Predictions",
    *,
    root: Path | None,
    out: Path | None,
    masks: int,
    fresh: bool,
    quiet: bool,
) -> "RunStore":
    from harness.auditing.importing import import_predictions
    from harness.commands.progress import Terminal, interruptible

    with interruptible():
        return import_predictions(
            plan,
            predictions,
            root=root,
            out=out,
            kept_masks=masks,
            fresh=fresh,
            listener=Terminal(quiet=quiet),
        )


def finish(
    store: "RunStore",
    *,
    suite: "Suite | None" = None,
    out: Path | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> bool:
    """Summarise a run and print the result; returns whether the run is whole."""
    from harness.auditing.summarising import summarise

    found = summarise(store, suite=suite, out=out)
    if as_json:
        say_json(((out or store.folder) / "summary.json").read_text(encoding="utf-8"))
    elif not quiet:
        _print(found.assessment, store, found.paths)
    return found.is_whole


def _print(found: "Assessment", store: "RunStore", paths: Sequence[Path]) -> None:
    from rich.text import Text

    from harness.report.escape import plain
    from harness.report.table import tables
    from harness.stats.verdicts import coverage_note

    console = terminal(130)
    for table in tables(found.summary):
        console.print(table)
    for verdict in found.language:
        if verdict.is_asked:
            console.print(Text(plain(verdict.reason)), soft_wrap=True)
    if few := coverage_note(min(filter(None, (v.n_clusters for v in found.language)), default=0)):
        console.print(Text(few), soft_wrap=True)
    counts = store.manifest["counts"]
    console.print(
        f"{counts['done']} of {counts['planned']} cases done, {counts['failed']} failed, "
        f"{counts['missing']} missing."
    )
    for path in (*paths, store.folder / "run.json"):
        console.print(f"  {path}", soft_wrap=True)

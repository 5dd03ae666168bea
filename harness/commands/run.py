"""``run``: a suite, some models, a run directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.commands.options import (
    DataRoot,
    Datasets,
    DataType,
    Device,
    Limit,
    Models,
    PromptRung,
    PromptSource,
    Quiet,
    Seed,
    Split,
    SuiteName,
)
from harness.commands.output import say
from harness.engine.cluster import ClusterOptions, parse_cluster_options

if TYPE_CHECKING:
    import polars as pl

    from harness.engine.executors import Executor
    from harness.model.loading import LoadedModel
    from harness.plan.build import Plan, PlannedSet
    from harness.records import Sample
    from harness.runs.store import RunStore
    from harness.suite.schema import Suite


def run(
    suite: SuiteName,
    model: Annotated[
        list[str],
        typer.Option("--model", help="CARD or CARD=CHECKPOINT; repeat for several models."),
    ],
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Finetuned weights, with one --model.")
    ] = None,
    data_root: DataRoot = Path("data"),
    datasets: Datasets = None,
    split: Split = None,
    prompt_type: PromptRung = None,
    prompts: PromptSource = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run directory. [default: runs/SUITE-PLANHASH]")
    ] = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = "auto",
    dtype: DataType = "auto",
    batch_size: Annotated[str, typer.Option("--batch-size", help="auto or a number.")] = "auto",
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Untrained models, to try the machinery.")
    ] = False,
    masks: Annotated[
        int,
        typer.Option(
            "--masks", min=0, help="Cases per probe whose masks are kept for the report; 0: none."
        ),
    ] = 2,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Move an existing run aside and start again.")
    ] = False,
    executor: Annotated[
        str, typer.Option("--executor", help="local, or ray: many devices or machines.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option("--address", help="Ray's head node. [default: a cluster on this machine]"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Ray workers. [default: all there is]")
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option("--gpus-per-worker", min=0.0, help="0.5: two share one GPU.")
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option("--log", help="mlflow, tensorboard or wandb: log the result; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Run a suite with one or more models; the same command again continues it."""
    from harness.commands.options import model_arguments, select_suite, split_names
    from harness.commands.score import finish
    from harness.trackers import check_trackers, log_run

    trackers = check_trackers(split_names(log))
    with interruptible():
        store = audit(
            select_suite(
                suite,
                datasets=datasets,
                split=split,
                prompt_type=prompt_type,
                prompts=prompts,
                seed=seed,
            ),
            model_arguments(model, checkpoint),
            root=data_root,
            out=out,
            limit=limit,
            fresh=fresh,
            conditions=Conditions(
                device,
                dtype,
                _batch_size(batch_size),
                random_weights,
                masks,
                parse_cluster_options(executor, address, workers, gpus_per_worker),
            ),
            quiet=quiet,
        )
        with store.locked():
            is_whole = finish(store, quiet=quiet, as_json=as_json)
            for name, place in log_run(store, trackers).items():
                say(f"logged to {name}: {place}", err=True)
    if not is_whole:
        raise typer.Exit(3)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C at any moment leaves a run that can be continued, and says so."""
    try:
        yield
    except KeyboardInterrupt:
        say("Interrupted. The same command again continues from here.", err=True)
        raise typer.Exit(130) from None


@dataclass(frozen=True)
class Conditions:
    """How models are loaded and run.

    A batch size of None is the model's usual one; without a cluster this process runs them.
    `loaded` is the next model to be evaluated, where it was loaded before.
    """

    device: str = "auto"
    dtype: str = "auto"
    batch_size: int | None = None
    random_weights: bool = False
    kept_masks: int = 2
    cluster: ClusterOptions | None = None
    loaded: "LoadedModel | None" = None


def audit(
    suite: "Suite",
    models: Models,
    *,
    root: Path,
    out: Path | None,
    limit: int | None = None,
    fresh: bool = False,
    conditions: Conditions = Conditions(),
    quiet: bool = False,
    runs: Path = Path("runs"),
) -> "RunStore":
    """Plan a suite and evaluate every case that has no score yet, with progress bars.

    Args:
        suite: What to run.
        models: Cards with their checkpoints.
        root: Folder above the datasets' own.
        out: Run directory; one in `runs` that the plan names, where it is None.
        limit: At most so many images per dataset.
        fresh: Whether to move an existing run aside.
        conditions: How models are loaded and run.
        quiet: Without progress bars.
        runs: Folder of runs that have no `out`.

    Returns:
        The run; it is not summarised yet. Its manifest's ``evaluated`` names these models.
    """
    from harness.commands.options import read_sets
    from harness.plan.build import build_plan
    from harness.runs.store import RunStore
    from harness.suite.schema import with_tolerances

    # Before the data: reading and planning may take minutes, and a misfit file is known at once.
    first = _look_at(models, conditions)
    sets = read_sets(suite, root, limit=limit, quiet=quiet)
    suite = with_tolerances(suite, [planned.card for planned in sets])
    plan = build_plan(suite, sets)
    store = RunStore(out or runs / f"{suite.name}-{plan.sha256[:8]}")
    if fresh and (aside := store.set_aside()):
        say(f"the earlier run was moved to {aside}", err=True)
    with _nothing_left(store), store.locked():
        _open(store, plan, suite, sets, root=root, limit=limit, quiet=quiet)
        _warn_of_rungs(models, suite, sets)
        try:
            done = []
            for model in models:
                how, first = replace(conditions, loaded=first), None
                done.append(_evaluate(store, model, plan, suite, root=root, how=how, quiet=quiet))
            store.update(evaluated=done)
        except KeyboardInterrupt:
            store.update(status="interrupted")
            raise
    return store


def _look_at(models: Models, conditions: Conditions) -> "LoadedModel | None":
    """Load every model once, to see that it can be; the first stays for its evaluation.

    For a cluster, whose devices this process may lack, files are looked for and no more.
    """
    from harness.cards import load_model_card
    from harness.engine.executors import ModelSource
    from harness.model.adapters import find_files

    loaded = None
    for name, file in reversed(models):
        loaded = None  # one at a time fits in memory
        if conditions.cluster is None:
            how = conditions.device, conditions.dtype, conditions.random_weights
            loaded = ModelSource(name, file, *how).load()
        else:
            find_files(load_model_card(name), file, random_weights=conditions.random_weights)
    return loaded


@contextmanager
def _nothing_left(store: "RunStore") -> Iterator[None]:
    """Remove the folder again if an error ends the run before anything was evaluated."""
    import shutil

    from harness.errors import HarnessError

    was_there = store.folder.exists()
    try:
        yield
    except HarnessError:
        if not was_there and not any(store.folder.glob("scores/*.parquet")):
            shutil.rmtree(store.folder, ignore_errors=True)
        raise


def _batch_size(text: str) -> int | None:
    from harness.errors import UsageError

    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(
            f"--batch-size: found {text!r}. 'auto' or a positive whole number is needed. "
            "Correct the option."
        )
    return int(text)


def _open(
    store: "RunStore",
    plan: "Plan",
    suite: "Suite",
    sets: "list[PlannedSet]",
    *,
    root: Path,
    limit: int | None,
    quiet: bool,
) -> None:
    from harness.commands.provenance import environment
    from harness.data import cluster_kind
    from harness.data.layout import content_hashes, digest_of
    from harness.data.readings import kept_readings, mask_counts, mask_lines

    masks = [
        {"dataset": planned.card.name, "split": planned.entry.split} | mask_counts(planned.samples)
        for planned in sets
    ]
    for line in () if quiet else mask_lines(masks):
        say(line, err=True)

    shown = content_hashes(s for planned in sets for s in planned.samples)
    store.open(
        plan,
        suite,
        data=_data_table(shown),
        say=lambda note: say(f"note: {note}", err=True),
        status="running",
        data_root=str(root),
        data_sha256=digest_of(shown),
        limit=limit,
        readings=kept_readings({planned.card.name: planned.card.reading for planned in sets}),
        masks=masks,
        cluster_kinds={planned.card.name: cluster_kind(planned.card) for planned in sets},
        modalities={planned.card.name: planned.card.modality for planned in sets},
        private_sets=sorted({planned.card.name for planned in sets if planned.card.private}),
        environment=environment(),
    )


def _data_table(shown: "list[tuple[Sample, bytes]]") -> "pl.DataFrame":
    """What each sample shows, by which a continued run knows its data."""
    import hashlib

    import polars as pl

    rows = [
        (s.dataset, s.split, s.sample_id, hashlib.sha256(content).hexdigest())
        for s, content in shown
    ]
    names = ("dataset", "split", "sample_id", "sha256")
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def _warn_of_rungs(models: Models, suite: "Suite", sets: "list[PlannedSet]") -> None:
    from harness.cards import load_model_card

    for name, _ in models:
        trained = load_model_card(name).card.prompt_type
        asked = sorted({planned.prompt_type for planned in sets})
        if trained and asked != [trained]:
            say(
                f"warning: {name} was trained with {trained} prompts, the suite "
                f"{suite.name!r} uses {', '.join(asked)}.",
                err=True,
            )


def _evaluate(
    store: "RunStore",
    name_and_file: tuple[str, Path | None],
    plan: "Plan",
    suite: "Suite",
    *,
    root: Path,
    how: Conditions,
    quiet: bool,
) -> str:
    """Run one model; returns its id."""
    from harness.commands.progress import progress
    from harness.commands.provenance import model_entry, write_texts

    with _executor(name_and_file, plan, suite, root=root, conditions=how) as executor:
        entry = executor.ask(model_entry)
        model_id = entry["model_id"]
        for note in entry["notes"]:
            say(f"note: {model_id}: {note}", err=True)
        entry["batch_size"], halved = _chosen_size(store, executor, model_id, how.batch_size)
        store.add_model(entry)
        write_texts(store, executor, model_id, plan.cases, quiet=quiet)
        done, total = sum(store.settled_shards(model_id).values()), plan.cases.height
        if done and not quiet:
            say(f"{model_id}: continues, {done} of {total} cases are there.", err=True)
        with progress(model_id, total, unit="cases", done=done, quiet=quiet) as go:
            executor.execute(
                store,
                batch_size=halved,
                advance=go,
                halved=lambda n: _say_halved(store, model_id, n),
            )
        entry["hardware"]["workers"] = executor.machines()
        store.add_model(entry)
    return str(model_id)


def _chosen_size(
    store: "RunStore", executor: "Executor", model_id: str, asked: int | None
) -> tuple[int, int]:
    """The batch size of a model in this run, and what out of memory has left of it."""
    from harness.engine.batches import usual_batch_size

    known: dict[str, Any] = next(
        (m for m in store.manifest.get("models", []) if m["model_id"] == model_id), {}
    )
    size = asked or known.get("batch_size") or executor.ask(usual_batch_size)
    return size, min(size, known.get("halved_to", size))


@contextmanager
def _executor(
    name_and_file: tuple[str, Path | None],
    plan: "Plan",
    suite: "Suite",
    *,
    root: Path,
    conditions: Conditions,
) -> "Iterator[Executor]":
    from harness.engine.executors import Local, ModelSource

    source = ModelSource(
        *name_and_file, conditions.device, conditions.dtype, conditions.random_weights
    )
    if conditions.cluster is None:
        yield Local(conditions.loaded or source.load(), root, suite.metric, conditions.kept_masks)
        return
    from harness.engine.ray_executor import connect
    from harness.engine.shards import distinct_texts

    with connect(
        conditions.cluster,
        source.anywhere(),
        root=root,
        metric=suite.metric,
        texts=distinct_texts(plan.cases),
        kept_masks=conditions.kept_masks,
    ) as executor:
        yield executor


def _say_halved(store: "RunStore", model_id: str, size: int) -> None:
    entries = store.manifest["models"]
    for entry in entries:
        if entry["model_id"] == model_id:
            entry["halved_to"] = size
    store.update(models=entries)
    say(f"out of memory: going on with batches of {size}.", err=True)

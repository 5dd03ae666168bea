"""``run``: a suite, some models, a run directory."""

from pathlib import Path
from typing import Annotated

import typer

from harness.auditing.choices import recipe_arguments, select_suite, split_names
from harness.auditing.evaluating import Conditions
from harness.auditing.running import run_models
from harness.commands.options import (
    AsJson,
    Backend,
    Checkpoint,
    DataRoot,
    Datasets,
    Device,
    Limit,
    PromptRung,
    PromptSource,
    Quiet,
    RandomWeights,
    Seed,
    Split,
    SuiteName,
)
from harness.commands.output import say
from harness.commands.progress import Terminal, interruptible
from harness.commands.score import finish
from harness.engine.cluster import parse_cluster_options
from harness.errors import UsageError
from harness.trackers import check_trackers, log_run


def run(
    suite: SuiteName,
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            help="CARD or CARD=CHECKPOINT; repeat for several models. CARD=A,B,C: training seeds.",
        ),
    ],
    checkpoint: Checkpoint = None,
    data_root: DataRoot = None,
    datasets: Datasets = None,
    split: Split = None,
    prompt_type: PromptRung = None,
    prompts: PromptSource = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Run directory. [default: runs/SUITE-PLANHASH]"),
    ] = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype",
            help="auto (float32 on a CPU, mixed on CUDA), float32, mixed, bfloat16, float16, or "
            "two-speed: mixed, and float32 where Dice could move.",
        ),
    ] = "auto",
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance", help="Of two-speed: how far a case's Dice may move. [default: 0.005]"
        ),
    ] = None,
    backend: Backend = "torch",
    batch_size: Annotated[str, typer.Option("--batch-size", help="auto or a number.")] = "auto",
    random_weights: RandomWeights = False,
    masks: Annotated[
        int,
        typer.Option(
            "--masks", min=0, help="Cases per probe whose masks are kept for the report; 0: none."
        ),
    ] = 2,
    thresholds: Annotated[
        bool,
        typer.Option("--thresholds", help="Count every case at 19 thresholds, for the curve."),
    ] = False,
    registration: Annotated[
        Path | None,
        typer.Option("--registration", help="Hold the run against this file of plan --register."),
    ] = None,
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
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Processes that evaluate. [default: a small model's cores; of Ray all there is]",
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option("--gpus-per-worker", min=0.0, help="0.5: two share one GPU.")
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option("--log", help="mlflow, tensorboard or wandb: log the result; repeatable."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a suite with one or more models; the same command again continues it."""
    trackers = check_trackers(split_names(log))
    chosen = recipe_arguments(model, checkpoint)
    with interruptible():
        store = run_models(
            select_suite(
                suite,
                datasets=datasets,
                split=split,
                prompt_type=prompt_type,
                prompts=prompts,
                seed=seed,
            ),
            chosen.models,
            root=data_root,
            out=out,
            limit=limit,
            conditions=Conditions(
                device=device,
                dtype=_with_tolerance(dtype, tolerance),
                backend=backend,
                batch_size=_batch_size(batch_size),
                random_weights=random_weights,
                kept_masks=masks,
                thresholds=thresholds,
                fresh=fresh,
                cluster=parse_cluster_options(executor, address, workers, gpus_per_worker),
                workers=workers,
                recipes=chosen.recipes,
                registration=registration,
            ),
            listener=Terminal(quiet=quiet),
        )
        with store.locked():
            is_whole = finish(store, quiet=quiet, as_json=as_json)
            for name, place in log_run(store, trackers).items():
                say(f"logged to {name}: {place}", err=True)
    if not is_whole:
        raise typer.Exit(3)


def _with_tolerance(dtype: str, tolerance: float | None) -> str:
    if tolerance is None:
        return dtype
    if dtype != "two-speed":
        raise UsageError(
            f"--tolerance {tolerance:g}: found --dtype {dtype}. Only two speeds have a tolerance. "
            "Give --dtype two-speed, or leave --tolerance out."
        )
    return f"{dtype}:{tolerance!r}"


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(
            f"--batch-size: found {text!r}. 'auto' or a positive whole number is needed. "
            "Correct the option."
        )
    return int(text)

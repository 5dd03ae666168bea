"""Writes the differences between precisions: ``python reports/precision.py [--device cuda]``.

Runs the calibration suite with every small model that ships, once in float32 and once in each
mixed precision, on one device, and compares the scores case by case. Conventions:
differences are of Dice, mixed minus float32; a change is that of mean Dice in percent
of a probe, as in every report.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from harness import __version__
from harness.auditing.choices import select_suite
from harness.auditing.evaluating import Conditions
from harness.auditing.running import run_models
from harness.commands.demo import shipped_models
from harness.metrics import EMPTY_SCORES, dice
from harness.runs.store import DONE, RunStore

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"
MIXED = ("bfloat16", "float16")
PROBE = ("dataset", "split", "probe", "attribute")
# What is stated, and kept by a test: of Dice per case on average, of a probe's mean Dice.
TOLERANCE = {"bfloat16": 0.005, "float16": 0.001}
TOLERANCE_OF_MEANS = {"bfloat16": 0.01, "float16": 0.002}
# Below it a change in percent is that of a number near zero.
LOWEST_DICE = 0.1


def main() -> None:
    """Run, then write ``precision.md`` beside this file."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--limit", type=int, default=40, help="Scenes per data set.")
    given = arguments.parse_args()
    store = measure(given.device, given.limit)
    (HERE / "precision.md").write_text(page(store), encoding="utf-8")


def measure(
    device: str,
    limit: int | None,
    *,
    suite: str = "calibration",
    datasets: Sequence[str] | None = None,
    root: Path = BUILD,
) -> RunStore:
    """One run that holds every small model that ships, in every precision."""
    models = [(name, None) for name in shipped_models()]
    for precision in ("float32", *MIXED):
        store = run_models(
            select_suite(suite, datasets=datasets),
            models,
            root=root / "phantom",
            out=root / f"precision-{device}",
            limit=limit,
            conditions=Conditions(device=device, dtype=precision),
        )
    return store


def scored(store: RunStore) -> pl.DataFrame:
    """Dice of every case: ``name``, ``precision``, what the plan says, ``dice``."""
    keys = ("model_id", "name", "precision")
    models = pl.DataFrame([{k: entry[k] for k in keys} for entry in store.manifest["models"]])
    done = store.scores().filter(pl.col("status") == DONE)
    counts = (done[name].to_numpy() for name in ("tp", "n_pred", "n_gt"))
    empty = EMPTY_SCORES[store.suite().metric.empty]
    return (
        done.with_columns(dice=pl.Series(dice(*counts, empty=empty)))
        .join(models, on="model_id")
        .join(store.plan_cases(), on="case_id")
        .select("name", "precision", "case_id", "original_case_id", *PROBE, "dice")
    )


def differences(scores: pl.DataFrame) -> pl.DataFrame:
    """Per model and mixed precision: how far Dice and changes are from float32.

    Returns:
        ``name``, ``precision``, ``n_cases``, ``mean_abs``, ``p99_abs``, ``max_abs``
        (of Dice per case), ``max_mean`` (of mean Dice of a probe) and ``max_change``
        (of a probe's change, in percentage points).
    """
    exact = scores.filter(pl.col("precision") == "float32").drop("precision")
    mixed = scores.filter(pl.col("precision") != "float32")
    pairs = mixed.join(exact, on=["name", "case_id"], suffix="_exact")
    size = (pl.col("dice") - pl.col("dice_exact")).abs()
    cases = pairs.group_by("name", "precision").agg(
        n_cases=pl.len(),
        mean_abs=size.mean(),
        p99_abs=size.quantile(0.99, "higher"),
        max_abs=size.max(),
    )
    probes = changes(scores)
    both = probes.filter(pl.col("precision") != "float32").join(
        probes.filter(pl.col("precision") == "float32").drop("precision"),
        on=["name", *PROBE],
        suffix="_exact",
        nulls_equal=True,
    )
    limits = both.group_by("name", "precision").agg(
        max_mean=(pl.col("dice") - pl.col("dice_exact")).abs().max(),
        max_change=(pl.col("change") - pl.col("change_exact")).abs().max(),
    )
    return cases.join(limits, on=["name", "precision"]).sort("name", "precision")


def changes(scores: pl.DataFrame) -> pl.DataFrame:
    """Mean Dice and its change in percent, per model, precision and probe."""
    original = scores.select("name", "precision", original_case_id="case_id", original_dice="dice")
    paired = scores.join(original, on=["name", "precision", "original_case_id"])
    means = paired.group_by("name", "precision", *PROBE).agg(
        pl.col("dice").mean(), pl.col("original_dice").mean()
    )
    percent = 100 * (pl.col("dice") - pl.col("original_dice")) / pl.col("original_dice")
    usable = pl.col("original_dice") >= LOWEST_DICE
    return means.with_columns(change=pl.when(usable).then(percent))


def page(store: RunStore) -> str:
    """The table as Markdown."""
    found = differences(scored(store))
    entry = store.manifest["models"][0]
    where = f"{entry['device']} ({entry['hardware']['device_name']})"
    scenes = f"{store.manifest['limit'] or 'all'} scenes per data set"
    lines = [
        "# Mixed precision against float32",
        "",
        f"Written by `python reports/precision.py`: every small model that ships, {scenes},",
        f"on {where}. Differences are of Dice, mixed minus float32, without their sign: of",
        "single cases (mean, 99th percentile, largest), and of what a report shows, the largest",
        "of any probe: of its mean Dice, and of its change in percentage points.",
        "",
        "| model | precision | cases | mean | 99 % | largest | mean Dice | change |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
        *(_row(row) for row in found.iter_rows(named=True)),
        "",
        *(_stated(precision, found) for precision in MIXED),
        "",
        "The tolerances are what a test keeps on a few scenes, and what `--dtype` promises for",
        "models like these; for a model of your own run the suite in both precisions.",
        "",
        f"vlsm-harness {__version__}, plan `{str(store.manifest['plan_sha256'])[:16]}`, "
        f"torch {store.manifest['environment']['libraries']['torch']}.",
    ]
    return "\n".join(lines) + "\n"


def _stated(precision: str, found: pl.DataFrame) -> str:
    worst = found.filter(pl.col("precision") == precision)
    return (
        f"- {precision}: {worst['mean_abs'].max():.5f} on average (tolerance "
        f"{TOLERANCE[precision]}), {worst['max_mean'].max():.4f} for a probe's mean (tolerance "
        f"{TOLERANCE_OF_MEANS[precision]})."
    )


def _row(row: dict[str, object]) -> str:
    numbers = [
        f"{row['n_cases']:,}",
        f"{row['mean_abs']:.5f}",
        f"{row['p99_abs']:.4f}",
        f"{row['max_abs']:.3f}",
        f"{row['max_mean']:.4f}",
        "-" if row["max_change"] is None else f"{row['max_change']:.2f}",
    ]
    return f"| {row['name']} | {row['precision']} | {' | '.join(numbers)} |"


if __name__ == "__main__":
    sys.exit(main())

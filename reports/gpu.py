"""Writes whether a GPU gives the processor's answers, and how fast: ``python reports/gpu.py``.

First the answers: logits of the full-size models with untrained weights (*GPU* against the
processor, *stages* against the plain forward, both as the largest difference, *mixed* as the
standard deviation of the difference, all in units of the logits' standard deviation), and the
counts of every small model that ships, whose weights are trained, case by case. Then the times.

Conventions: times are of untrained weights, since they do not depend on the numbers; images and
texts per second are those of the encoders alone at their best batch size, cases per
second those of the whole engine, reading, counting and writing included;
memory is the most that the engine held on the device, in MiB.
"""

import argparse
import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
import torch

from harness import __version__
from harness.auditing.choices import select_suite
from harness.auditing.evaluating import Conditions
from harness.auditing.running import run_models
from harness.commands.demo import shipped_models
from harness.engine.bench import Bench, bench, plain_forward
from harness.engine.bench_plan import invent
from harness.metrics import EMPTY_SCORES, dice
from harness.model.features import select
from harness.model.loading import LoadedModel, load_model
from harness.runs.store import DONE, RunStore

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"
FULL_SIZE = ("clipseg", "cris", "biomedclipseg", "biomedclipseg-d")
TEXTS = ("one small pink round polyp, located in top left of the image", "", "polyp")


class Agreement(NamedTuple):
    """Differences of one full-size model's logits, in units of their standard deviation."""

    name: str
    noise_floor: float
    gpu: float
    stages: float
    mixed: float


def main() -> None:
    """Compare, measure, then write ``gpu.md`` beside this file."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--models", nargs="*", default=FULL_SIZE)
    arguments.add_argument("--images", type=int, default=64)
    arguments.add_argument("--prompts", type=int, default=41)
    arguments.add_argument("--batch-size", type=int, default=64)
    arguments.add_argument("--limit", type=int, default=4, help="Scenes whose counts are compared.")
    given = arguments.parse_args()
    logits = [agreement(name, device="cuda") for name in given.models]
    counts = compare_counts("cuda", given.limit)
    how = {"n_images": given.images, "n_prompts": given.prompts, "batch_size": given.batch_size}
    found: list[Bench] = []
    # Compiling takes minutes: what is known before is written before.
    for backend in ("torch", "inductor"):
        found += measure(given.models, device="cuda", backend=backend, **how)
        (HERE / "gpu.md").write_text(page(found, logits, counts), encoding="utf-8")


def agreement(name: str | Path, *, device: str) -> Agreement:
    """How far a device, the stages and mixed precision move a model's logits."""
    exact, other, mixed = (
        load_model(name, random_weights=True, device=where, dtype=dtype)
        for where, dtype in (("cpu", "float32"), (device, "float32"), (device, "mixed"))
    )
    size = exact.adapter.input_size
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    _, truth = _all_pairs(exact, pixels)
    staged, plain = _all_pairs(other, pixels)
    short, _ = _all_pairs(mixed, pixels)
    scale = float(truth.std())
    found = Agreement(
        exact.card.name,
        exact.card.noise_floor,
        float((plain - truth).abs().max()) / scale,
        float((staged - plain).abs().max()) / scale,
        float((short - truth).std()) / scale,
    )
    sys.stderr.write(f"{_logits_row(found)}\n")
    return found


def _all_pairs(model: LoadedModel, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of every image with every text, by the stages and by the plain forward."""
    rows = torch.tensor(list(itertools.product(range(len(pixels)), range(len(TEXTS)))))
    rows, pixels = rows.to(model.device), pixels.to(model.device)
    adapter = model.adapter
    with torch.inference_mode(), model.autocast():
        images = select(adapter.encode_images(pixels), rows[:, 0])
        texts = select(adapter.encode_texts(list(TEXTS)), rows[:, 1])
        staged = adapter.decode(images, texts)
    plain = plain_forward(model, pixels[rows[:, 0]], [TEXTS[t] for t in rows[:, 1].tolist()])
    return staged.float().cpu(), plain.float().cpu()


def compare_counts(
    device: str, limit: int, *, models: Sequence[str] | None = None, root: Path = BUILD
) -> pl.DataFrame:
    """Every small model that ships, or some, on the processor and on a device, in float32.

    Returns:
        ``name``, ``n_cases``, ``n_other`` (cases with any other count of pixels) and ``max_dice``
        (the largest difference of Dice).
    """
    names = models or shipped_models()
    exact, other = (_counts(names, where, limit, root) for where in ("cpu", device))
    both = exact.join(other, on=["name", "case_id"], suffix="_other")
    moved = pl.any_horizontal(pl.col(n) != pl.col(f"{n}_other") for n in ("tp", "n_pred"))
    return (
        both.group_by("name")
        .agg(
            n_cases=pl.len(),
            n_other=moved.sum(),
            max_dice=(pl.col("dice") - pl.col("dice_other")).abs().max(),
        )
        .sort("name")
    )


def _counts(names: Sequence[str], device: str, limit: int, root: Path) -> pl.DataFrame:
    store = run_models(
        select_suite("antonym_swap", datasets=["phantom_crowd"]),
        [(name, None) for name in names],
        root=root / "phantom",
        out=root / f"gpu-{device}",
        limit=limit,
        conditions=Conditions(device=device, dtype="float32"),
    )
    return _with_dice(store)


def _with_dice(store: RunStore) -> pl.DataFrame:
    names = pl.DataFrame(
        [{k: m[k] for k in ("model_id", "name")} for m in store.manifest["models"]]
    )
    done = store.scores().filter(pl.col("status") == DONE).join(names, on="model_id")
    counts = (done[name].to_numpy() for name in ("tp", "n_pred", "n_gt"))
    empty = EMPTY_SCORES[store.suite().metric.empty]
    return done.with_columns(dice=pl.Series(dice(*counts, empty=empty)))


def measure(
    names: Sequence[str | Path],
    *,
    device: str,
    n_images: int,
    n_prompts: int,
    batch_size: int,
    blocks: int = 3,
    backend: str = "torch",
) -> list[Bench]:
    """Each model in float32 and in the device's mixed precision, or compiled in that alone."""
    found = []
    for name in names:
        for dtype in ("float32", "mixed") if backend == "torch" else ("mixed",):
            how = {"device": device, "dtype": dtype, "backend": backend}
            model = load_model(name, random_weights=True, **how)
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder)
                pictures = invent(root, n_images, model.adapter.input_size)
                found.append(
                    bench(
                        model,
                        pictures,
                        root=root,
                        n_prompts=n_prompts,
                        batch_size=batch_size,
                        blocks=blocks,
                    )
                )
            sys.stderr.write(f"{_row(found[-1])}\n")
    return found


def page(found: Sequence[Bench], logits: Sequence[Agreement], counts: pl.DataFrame) -> str:
    """The tables as Markdown."""
    first = found[0]
    lines = [
        "# The models on a GPU",
        "",
        f"Written by `python reports/gpu.py` on {first.device_name}, torch {torch.__version__}.",
        "",
        "## The same answers",
        "",
        "Full-size models, untrained weights, float32: the largest difference of a logit, GPU",
        "against processor and stages against the plain forward; mixed precision against float32",
        "as the standard deviation of the difference. All in units of the logits' own spread.",
        "",
        "| model | noise floor | GPU | stages | mixed |",
        "|---|--:|--:|--:|--:|",
        *map(_logits_row, logits),
        "",
        "Small models with trained weights, float32: cases whose counts of pixels differ between",
        "GPU and processor, and the largest difference of Dice.",
        "",
        "| model | cases | other counts | Dice |",
        "|---|--:|--:|--:|",
        *(
            f"| {row['name']} | {row['n_cases']:,} | {row['n_other']:,} | {row['max_dice']:.5f} |"
            for row in counts.iter_rows(named=True)
        ),
        "",
        "## Speed",
        "",
        "Untrained weights,",
        f"{first.n_images} images, {first.n_texts} texts, {first.n_cases:,} cases, batches of "
        f"{first.batch_size}. Images and texts per second are",
        "those of the encoders alone, cases per second those of the whole engine; *plain* is how",
        "many times longer the unmodified forward per case takes.",
        "",
        "| model | precision | backend | images/s | texts/s | cases/s | memory (MiB) | plain |",
        "|---|---|---|--:|--:|--:|--:|--:|",
        *(_row(row) for row in found),
        "",
        f"vlsm-harness {__version__}.",
    ]
    return "\n".join(lines) + "\n"


def _logits_row(row: Agreement) -> str:
    return (
        f"| {row.name} | {row.noise_floor:g} | {row.gpu:.1e} | {row.stages:.1e} | {row.mixed:.1e} |"
    )


def _row(row: Bench) -> str:
    numbers = [
        f"{row.images_per_s:,.0f}",
        f"{row.texts_per_s:,.0f}",
        f"{row.cases_per_s:,.0f}",
        f"{row.peak_memory_mib:,.0f}",
        f"{row.plain_over_engine:.1f}",
    ]
    how = f"{row.precision} | {row.backend}"
    return f"| {row.model_id.partition('@')[0]} | {how} | {' | '.join(numbers)} |"


if __name__ == "__main__":
    sys.exit(main())

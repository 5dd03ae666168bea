"""Writes how fast the full-size models are on a GPU: ``python reports/gpu.py``.

Conventions: untrained weights, since times do not depend on the numbers; images and
texts per second are those of the encoders alone at their best batch size, cases per
second those of the whole engine, reading, counting and writing included;
memory is the most that the engine held on the device, in MiB.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness import __version__
from harness.engine.bench import Bench, bench
from harness.engine.bench_plan import invent
from harness.model.loading import load_model

HERE = Path(__file__).resolve().parent
FULL_SIZE = ("clipseg", "cris", "biomedclipseg", "biomedclipseg-d")


def main() -> None:
    """Measure, then write ``gpu.md`` beside this file."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--models", nargs="*", default=FULL_SIZE)
    arguments.add_argument("--images", type=int, default=64)
    arguments.add_argument("--prompts", type=int, default=41)
    arguments.add_argument("--batch-size", type=int, default=64)
    given = arguments.parse_args()
    found = measure(
        given.models,
        device="cuda",
        n_images=given.images,
        n_prompts=given.prompts,
        batch_size=given.batch_size,
    )
    (HERE / "gpu.md").write_text(page(found), encoding="utf-8")


def measure(
    names: Sequence[str | Path],
    *,
    device: str,
    n_images: int,
    n_prompts: int,
    batch_size: int,
    blocks: int = 3,
) -> list[Bench]:
    """Each model in float32 and in the device's mixed precision."""
    found = []
    for name in names:
        for dtype in ("float32", "mixed"):
            model = load_model(name, device=device, dtype=dtype, random_weights=True)
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


def page(found: Sequence[Bench]) -> str:
    """The table as Markdown."""
    first = found[0]
    lines = [
        "# The full-size models on a GPU",
        "",
        f"Written by `python reports/gpu.py` on {first.device_name}: untrained weights,",
        f"{first.n_images} images, {first.n_texts} texts, {first.n_cases:,} cases, batches of "
        f"{first.batch_size}. Images and texts per second are",
        "those of the encoders alone, cases per second those of the whole engine; *plain* is how",
        "many times longer the unmodified forward per case takes.",
        "",
        "| model | precision | images/s | texts/s | cases/s | memory (MiB) | plain |",
        "|---|---|--:|--:|--:|--:|--:|",
        *(_row(row) for row in found),
        "",
        f"vlsm-harness {__version__}.",
    ]
    return "\n".join(lines) + "\n"


def _row(row: Bench) -> str:
    numbers = [
        f"{row.images_per_s:,.0f}",
        f"{row.texts_per_s:,.0f}",
        f"{row.cases_per_s:,.0f}",
        f"{row.peak_memory_mib:,.0f}",
        f"{row.plain_over_engine:.1f}",
    ]
    return f"| {row.model_id.partition('@')[0]} | {row.precision} | {' | '.join(numbers)} |"


if __name__ == "__main__":
    sys.exit(main())

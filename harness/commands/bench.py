"""``bench``: the engine's speed against the plain loop and the arithmetic."""

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.options import AsJson, DataType, Device


def bench(
    model: Annotated[str, typer.Argument(help="A model's name or the path of its card.")],
    checkpoint: Annotated[Path | None, typer.Option("--checkpoint")] = None,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Untrained: times are the same."),
    ] = False,
    images: Annotated[int, typer.Option("--images", min=1)] = 24,
    prompts: Annotated[int, typer.Option("--prompts", min=1)] = 41,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 32,
    blocks: Annotated[int, typer.Option("--blocks", min=1)] = 3,
    device: Device = "auto",
    dtype: DataType = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure encode, decode, engine, plain loop and memory in one process, interleaved."""
    import json

    from harness.commands.progress import progress
    from harness.engine.bench import bench as measure
    from harness.models import load_model

    loaded = load_model(
        model, checkpoint=checkpoint, device=device, dtype=dtype, random_weights=random_weights
    )
    with progress("bench", 3 * blocks, unit="blocks", quiet=as_json) as advance:
        found = measure(
            loaded,
            bench_prompts(prompts),
            n_images=images,
            batch_size=batch_size,
            blocks=blocks,
            tick=lambda: advance(1),
        )
    content = found.as_dict()
    if as_json:
        typer.echo(json.dumps(content, indent=1))
        return
    for key, value in content.items():
        typer.echo(f"{key:<18} {value:.4g}" if isinstance(value, float) else f"{key:<18} {value}")


def bench_prompts(n: int) -> list[str]:
    """Distinct prompts of the length of a P6 prompt, one random word each."""
    from harness.prompts.words import draw_words

    original = "one small pink round polyp, located in top left of the image"
    words = draw_words(n - 1, 0) if n > 1 else ()
    return [original, *(original.replace("small", word) for word in words)]

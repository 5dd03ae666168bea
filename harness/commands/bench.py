"""``bench``: the engine's speed against the plain loop and the arithmetic."""

from pathlib import Path
from typing import Annotated

import typer

from harness.auditing.samples import choose_root
from harness.cards import load_dataset_card
from harness.commands.options import (
    AsJson,
    Backend,
    Checkpoint,
    DataRoot,
    DataType,
    Device,
    RandomWeights,
)
from harness.commands.output import say, say_json
from harness.commands.progress import Terminal
from harness.data import load_samples
from harness.engine.bench_plan import Picture, invent
from harness.errors import UsageError
from harness.files.writing import temporary_folder

_MEANING = {
    "load_s": "s per image: read, decode and resize the picture, read the mask",
    "image_s": "s per image encoded",
    "text_s": "s per text encoded",
    "decode_s": "s per case decoded",
    "pair_s": "s of that for the text under its picture (0: texts are encoded once)",
    "count_s": "s per case counted",
    "plain_case_s": "s per case of the plain loop",
    "engine_s": "s of the engine for the whole plan",
    "ideal_s": "s of the arithmetic for the whole plan",
    "bfloat16_gain": "times float32's speed in bfloat16 here (below 1: of matrix products)",
    "plain_s": "s of the plain loop for the whole plan, from a sample",
}


def bench(
    model: Annotated[str, typer.Argument(help="A model's name or the path of its card.")],
    checkpoint: Checkpoint = None,
    random_weights: RandomWeights = False,
    dataset: Annotated[
        str | None, typer.Option("--datasets", help="One NAME/SPLIT. [default: invented pictures]")
    ] = None,
    data_root: DataRoot = None,
    images: Annotated[int, typer.Option("--images", min=1)] = 24,
    prompts: Annotated[int, typer.Option("--prompts", min=1)] = 41,
    distinct: Annotated[
        float,
        typer.Option("--distinct", min=0.0, max=1.0, help="Share of the texts that are distinct."),
    ] = 0.5,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="[default: the model's usual one]")
    ] = None,
    blocks: Annotated[int, typer.Option("--blocks", min=1)] = 3,
    device: Device = "auto",
    dtype: DataType = "auto",
    backend: Backend = "torch",
    as_json: AsJson = False,
) -> None:
    """Measure encode, decode, engine, plain loop and memory in one process, interleaved."""
    from harness.engine.batches import usual_batch_size
    from harness.engine.bench import bench as measure
    from harness.model.loading import load_model

    loaded = load_model(
        model,
        checkpoint=checkpoint,
        device=device,
        dtype=dtype,
        backend=backend,
        random_weights=random_weights,
    )
    blocks = min(blocks, images)
    with (
        temporary_folder() as folder,
        Terminal(quiet=as_json).progress("bench", blocks, unit="blocks") as advance,
    ):
        if dataset is None:
            root, size = folder, loaded.adapter.input_size
            pictures = invent(root, images, size)
        else:
            root = choose_root(data_root, [dataset.partition("/")[0]], listener=Terminal())
            pictures = _pictures(dataset, root, images)
        found = measure(
            loaded,
            pictures,
            root=root,
            n_prompts=prompts,
            distinct=distinct,
            batch_size=batch_size or usual_batch_size(loaded),
            blocks=blocks,
            tick=lambda: advance(1),
        )
    content = found.as_dict()
    if as_json:
        say_json(content)
        return
    processor = content.pop("processor_s")
    content |= {f"processor_s.{kind}": value for kind, value in processor.items()}
    for key, value in content.items():
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        say(f"{key:<22} {text:<24} {_MEANING.get(key, '')}".rstrip())


def _pictures(dataset: str, root: Path, n: int) -> list[Picture]:
    """The first pictures of a real annotation file, with the prompts of its usual type."""
    name, _, split = dataset.partition("/")
    card = load_dataset_card(name)
    samples = load_samples(card, root, split or "test")
    first = list({s.image: s for s in samples if s.prompts.get(card.prompt_type)}.values())[:n]
    if len(first) < n:
        raise UsageError(
            f"--images: {dataset} has {len(first)} pictures with a {card.prompt_type} prompt, "
            f"{n} were asked for. Ask for fewer, or take another --datasets."
        )
    return [
        Picture(
            s.image.relative_to(root).as_posix(),
            s.mask.relative_to(root).as_posix(),
            s.prompts[card.prompt_type][0].text,
            card.reading,
        )
        for s in first
    ]

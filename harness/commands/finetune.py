"""``finetune``: train a wrapped model on a dataset with the reference's recipe."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.auditing.choices import split_names
from harness.auditing.samples import choose_root
from harness.cards import load_model_card
from harness.commands.options import AsJson, DataRoot, Device
from harness.commands.output import say, say_json
from harness.commands.progress import Terminal

if TYPE_CHECKING:
    from harness.training.finetune import Finetuned


def finetune(
    model: Annotated[str, typer.Option("--model", help="Name or path of the card to start from.")],
    data: Annotated[
        list[str],
        typer.Option("--datasets", help="Names or card files: a,b or repeated, pooled."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the new card and its weights.")
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", help="The new model's. [default: as before, else the folder's]"),
    ] = None,
    data_root: DataRoot = None,
    prompt_type: Annotated[
        str | None,
        typer.Option(
            "--prompt-type",
            help="p0 ... p9, several (p0,p3 or p0..p9), or random. [default: the card's]",
        ),
    ] = None,
    negatives: Annotated[
        float,
        typer.Option(
            "--negatives", help="Share of examples that ask for what is absent, masks empty."
        ),
    ] = 0.0,
    negative_kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--negative-kinds",
            help="near, far, modality, target, nonsense: a,b or repeated. [default: all]",
        ),
    ] = None,
    prompt_dropout: Annotated[
        float, typer.Option("--prompt-dropout", help="Share of prompts that are left empty.")
    ] = 0.0,
    freeze: Annotated[
        str,
        typer.Option(
            "--freeze", help="Stages that stay as they are: text, image, or both with a comma."
        ),
    ] = "",
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=0)] = 2e-3,
    text_learning_rate: Annotated[
        float | None,
        typer.Option(
            "--text-learning-rate", min=0, help="Of the text tower. [default: --learning-rate]"
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 32,
    max_epochs: Annotated[int, typer.Option("--max-epochs", min=1)] = 200,
    max_minutes: Annotated[
        float | None,
        typer.Option("--max-minutes", min=0, help="Stop after so long, inside an epoch as well."),
    ] = None,
    cross_entropy: Annotated[
        float, typer.Option("--cross-entropy", min=0, help="Weight of a real cross-entropy term.")
    ] = 0.0,
    photometric: Annotated[
        bool, typer.Option("--photometric", help="Vary brightness and contrast.")
    ] = False,
    flip: Annotated[
        bool, typer.Option("--flip", help="Mirror images: contradicts prompts that name a side.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 42,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Finetune a model; the same command again continues after a stop."""
    from harness.training.finetune import finetune as train
    from harness.training.recipe import Recipe

    base = load_model_card(model).card
    if base.weights is None and base.checkpoint is None:
        say(
            f"finetune: {model}: the card names no weights (a card that extends another inherits "
            "none): training starts from random numbers.",
            err=True,
        )
    done = train(
        model,
        split_names(data),
        out=out,
        data_root=choose_root(data_root, split_names(data), listener=Terminal()),
        prompt_type=prompt_type,
        recipe=Recipe(
            learning_rate=learning_rate,
            text_learning_rate=text_learning_rate,
            batch_size=batch_size,
            max_epochs=max_epochs,
            max_minutes=max_minutes,
            model_name=name,
            cross_entropy=cross_entropy,
            photometric=photometric,
            flip=flip,
            seed=seed,
            negatives=negatives,
            negative_kinds=tuple(split_names(negative_kinds)),
            prompt_dropout=prompt_dropout,
            freeze=freeze,
        ),
        device=device,
        report=None if sys.stderr.isatty() else _line,
    )
    for note in done.notes:
        say(note, err=True)
    if as_json:
        say_json(dict(done.figures))
    else:
        _say_figures(done)


def _say_figures(done: "Finetuned") -> None:
    if (epochs := done.figures.get("stopped_after_epochs")) is not None:
        say(
            f"--max-minutes: stopped after {epochs:g} epochs. The best that there was is kept. The "
            "same command with more minutes goes on from the last whole epoch.",
            err=True,
        )
    say(f"model card: {done.card}")
    for key, value in done.figures.items():
        if isinstance(value, int | float | str):
            say(f"  {key}: {value}")


def _line(figures: Mapping[str, float]) -> None:
    """One plain line an epoch, where there is no terminal for a bar."""
    shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
    say(shown, err=True)

"""``data``: makes a data set of a folder of pictures, masks and sentences."""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.commands.options import AsJson, Quiet
from harness.commands.output import say, say_json
from harness.commands.progress import Terminal
from harness.data.formats import CARD, Choices, Made, initialise
from harness.errors import UsageError
from harness.files.writing import refuse_unwritable

app = typer.Typer(
    help="Make a data set of your own files.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _group() -> None:
    """Make a data set of your own files."""


@app.command("init")
def init(
    folder: Annotated[
        Path, typer.Argument(help="Pictures, masks and a table or JSON; or the table's file.")
    ],
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Take the default of every question.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the data set. [default: the folder's]")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="released, coco, hugging-face, table, nifti or folders. [default: recognised]",
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column", help="ROLE=NAME: image, mask, prompt, split, cluster, prompt_type; repeat."
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="VALUE=NAME of a label map or volume, 1=liver; repeat."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", help="The sentence, or the class, of a set without any."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Of rows that name none. [default: test]")
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            "--window", help="LOW,HIGH of volumes: black and white. [default: 0.5-99.5 %]"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Copy everything there. [default: files stay in FOLDER]"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write an earlier card and annotations anew.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what a folder holds, and write a card and annotations that `check` passes."""
    choices = Choices(
        ask=_take_defaults(quiet or as_json) if yes else _ask,
        columns=_pairs(column, "--column", "image=picture"),
        labels={_number(key): value for key, value in _pairs(label, "--label", "1=liver").items()},
        prompt=prompt,
        split=split,
        window=_window(window),
        format=form,
    )
    refuse_unwritable(out, is_folder=True)
    with Terminal(quiet=quiet or as_json).counting(f"reading {folder}") as tick:
        made = initialise(folder, choices, out=out, name=name, overwrite=overwrite, tick=tick)
    if as_json:
        say_json(_content(made))
        return
    say(f"{made.found.format}: {made.found.source}")
    for line in made.said:
        say(f"  {line}")
    say(f"clusters: {made.card.clusters.rule}. Card: {made.folder / CARD}")
    say("Next:")
    for line in _next(made):
        say(f"  {line}")


def _ask(question: str, default: str) -> str:
    try:
        answer = typer.prompt(question, default=default, err=True)
    except typer.Abort:
        if sys.stdin.isatty():
            raise
        raise UsageError(
            f"data init: {question} Nobody answers here. Give --yes for the default "
            f"({default!r}), or the option that says it: see --help."
        ) from None
    return str(answer)


def _take_defaults(quiet: bool) -> Callable[[str, str], str]:
    def answer(question: str, default: str) -> str:
        if not quiet:
            say(f"{question} {default} (--yes)", err=True)
        return default

    return answer


def _pairs(values: Sequence[str] | None, option: str, example: str) -> dict[str, str]:
    found = {}
    for value in values or []:
        key, equals, name = value.partition("=")
        if not (key and equals and name):
            raise UsageError(
                f"{option}: found {value!r}. A pair is needed, such as {option} {example}. Correct "
                "the option."
            )
        found[key] = name
    return found


def _number(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(
            f"--label: found the value {text!r}. A whole number is needed, as in --label 1=liver. "
            "Correct the option."
        )
    return int(text)


def _window(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not low < high:
        raise UsageError(
            f"--window: found {text!r}. Two rising numbers are needed, such as --window -160,240. "
            "Correct the option."
        )
    return low, high


def _next(made: Made) -> list[str]:
    """The commands that come next, with what they need of this data set."""
    split = "" if "test" in made.card.splits else f" --split {made.card.splits[0]}"
    chosen = (
        f"--datasets {shlex.quote(str(made.folder / CARD))} "
        f"--data-root {shlex.quote(str(made.folder.parent))}{split}"
    )
    return [
        f"vlsm-harness check empty_prompt {chosen}",
        f"vlsm-harness run empty_prompt {chosen} --model CARD",
    ]


def _content(made: Made) -> dict[str, object]:
    return {
        "format": made.found.format,
        "source": made.found.source,
        "folder": str(made.folder),
        "card": str(made.folder / CARD),
        "data_root": str(made.folder.parent),
        "splits": {
            split: {
                "pairs": len(samples),
                "pictures": len({sample.image for sample in samples}),
                "clusters": len({sample.cluster_id for sample in samples}),
                "empty_masks": sum(bool(sample.is_empty) for sample in samples),
            }
            for split, samples in made.samples.items()
        },
        "masks": dict(made.look.encodings),
        "notes": [*made.found.notes, *made.found.gaps],
        "next": _next(made),
    }

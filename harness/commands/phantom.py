"""``phantom``: write the generated data sets as files, and sheets to look at."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from harness.commands.options import DataRoot, Quiet
from harness.commands.output import say


def phantom(
    data_root: DataRoot = Path("data"),
    train: Annotated[
        int, typer.Option("--train", min=0, help="Scenes of a train split, too; a tenth as val.")
    ] = 0,
    sheets: Annotated[
        Path | None, typer.Option("--sheets", help="Folder for contact sheets as PNG.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write the generated data sets, in the layout of every other one."""
    from harness.commands.progress import progress
    from harness.data.phantom import DATASETS, TEST_SCENES, contact_sheet, write_phantom

    for name in DATASETS:
        sizes = {"test": TEST_SCENES[name]}
        if train:
            sizes |= {"train": train, "val": max(1, train // 10)}
        with progress(name, sum(sizes.values()), unit="scenes", quiet=quiet) as advance:
            folder = write_phantom(name, data_root, sizes=sizes, tick=partial(advance, 1))
        say(str(folder))
        if sheets is not None:
            say(str(contact_sheet(data_root, name, sheets / f"{name}.png", n=20)))

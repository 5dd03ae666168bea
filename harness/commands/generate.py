"""``generate``: write generated data sets as files, and sheets to look at."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from harness.commands.options import DataRoot, Quiet
from harness.commands.output import say


def generate(
    datasets: Annotated[
        list[str] | None,
        typer.Argument(help="Names or card files. [default: all generated ones that ship]"),
    ] = None,
    data_root: DataRoot = None,
    train: Annotated[
        int, typer.Option("--train", min=0, help="Scenes of a train split, too; a tenth as val.")
    ] = 0,
    sheets: Annotated[
        Path | None, typer.Option("--sheets", help="Folder for contact sheets as PNG.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write the generated data sets, in the layout of every other one."""
    from harness.auditing.samples import choose_root
    from harness.cards import dataset_names, load_dataset_card
    from harness.commands.progress import Terminal
    from harness.data import generators
    from harness.data.contact_sheet import contact_sheet
    from harness.files.writing import refuse_unwritable

    refuse_unwritable(sheets, is_folder=True)
    cards = {name: load_dataset_card(name) for name in datasets or dataset_names()}
    if not datasets:
        cards = {name: card for name, card in cards.items() if card.generator is not None}
    root = choose_root(data_root, cards, listener=Terminal())
    for card in cards.values():
        sizes = dict(generators.load_generator(card).sizes)
        if train:
            sizes |= {"train": train, "val": max(1, train // 10)}
        with Terminal(quiet=quiet).progress(
            card.name, sum(sizes.values()), unit="scenes"
        ) as advance:
            folder = generators.generate(card, root, sizes=sizes, tick=partial(advance, 1))
        say(str(folder))
        if sheets is not None:
            say(str(contact_sheet(card, root, sheets / f"{card.name}.png", n=20)))

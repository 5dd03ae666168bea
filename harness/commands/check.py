"""``check``: suites, cards and data, before anything slow begins."""

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.options import DataRoot, Datasets, Quiet, Split


def check(
    suite: Annotated[str, typer.Argument(help="A suite's name or the path of its file.")] = "paper",
    data_root: DataRoot = Path("data"),
    datasets: Datasets = None,
    split: Split = None,
    quiet: Quiet = False,
) -> None:
    """Check a suite, the cards it names, and every row, picture and mask of its data."""
    from harness.commands.options import read_sets, select_suite
    from harness.plan import build_plan

    chosen = select_suite(suite, datasets=datasets, split=split)
    sets = read_sets(chosen, data_root, quiet=quiet)
    made = build_plan(chosen, sets)
    for planned in sets:
        n_prompts = sum(len(ps) for s in planned.samples for ps in s.prompts.values())
        images = {s.image_id for s in planned.samples}
        clusters = {s.cluster_id for s in planned.samples}
        typer.echo(
            f"{planned.card.name}/{planned.entry.split}: {len(planned.samples)} samples, "
            f"{len(images)} images, {len(clusters)} clusters, {n_prompts} prompts parsed."
        )
        for defect in planned.card.defects:
            typer.echo(f"  known defect: {defect}")
    typer.echo(f"{made.cases.height} cases would be evaluated per model.")

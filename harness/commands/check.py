"""``check``: suites, cards and data, before anything slow begins."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.commands.options import AsJson, DataRoot, Datasets, PromptSource, Quiet, Split


def check(
    suite: Annotated[str, typer.Argument(help="A suite's name or the path of its file.")] = "paper",
    data_root: DataRoot = Path("data"),
    datasets: Datasets = None,
    split: Split = None,
    prompts: PromptSource = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", min=1, help="Report prompts of more CLIP tokens: 77 for CLIP."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Check a suite, the cards it names, and every row, picture and mask of its data."""
    from harness.commands.options import select_suite

    chosen = select_suite(suite, datasets=datasets, split=split, prompts=prompts)
    content = _suite(chosen, data_root, tokens=tokens, quiet=quiet, silent=quiet or as_json)
    if as_json:
        typer.echo(json.dumps(content, indent=1, ensure_ascii=False))
    else:
        _show_suite(content)


def _suite(
    chosen: Any, root: Path, *, tokens: int | None, quiet: bool, silent: bool
) -> dict[str, Any]:
    """Read every row, picture and mask of a suite's data, and count them and their defects."""
    from harness.commands.defects import content, data_check, show
    from harness.commands.options import read_sets
    from harness.plan import build_plan

    # Defects first: what stops the reading may be among them.
    inspected = data_check(chosen, root, tokens=tokens, quiet=quiet)
    if not silent:
        show(inspected)
    sets = read_sets(chosen, root, pictures=None, quiet=quiet)
    made = build_plan(chosen, sets)
    rows = [
        {
            "dataset": planned.card.name,
            "split": planned.entry.split,
            "samples": len(planned.samples),
            "images": len({s.image_id for s in planned.samples}),
            "clusters": len({s.cluster_id for s in planned.samples}),
            "prompts": sum(len(ps) for s in planned.samples for ps in s.prompts.values()),
            "defects": planned.card.defects,
        }
        for planned in sets
    ]
    found = {"suite": chosen.name, "datasets": rows, "cases": made.cases.height}
    return found | {"data": content(inspected)}


def _show_suite(content: dict[str, Any]) -> None:
    for row in content["datasets"]:
        typer.echo(
            f"{row['dataset']}/{row['split']}: {row['samples']} samples, {row['images']} images, "
            f"{row['clusters']} clusters, {row['prompts']} prompts parsed."
        )
        for defect in row["defects"]:
            typer.echo(f"  known defect: {defect}")
    typer.echo(f"{content['cases']} cases would be evaluated per model.")

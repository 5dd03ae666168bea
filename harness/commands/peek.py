"""``peek``: original and variant side by side, no model and no pictures."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.commands.options import (
    AsJson,
    DataRoot,
    Datasets,
    PromptRung,
    PromptSource,
    Seed,
    Split,
    SuiteName,
)

if TYPE_CHECKING:
    from rich.text import Text


def peek(
    suite: SuiteName,
    data_root: DataRoot = Path("data"),
    datasets: Datasets = None,
    split: Split = None,
    prompt_type: PromptRung = None,
    prompts: PromptSource = None,
    seed: Seed = None,
    n: Annotated[
        int, typer.Option("-n", min=1, help="Samples per dataset, spread over the split.")
    ] = 2,
    as_json: AsJson = False,
) -> None:
    """Show what a suite does to the prompts of a few samples."""
    from harness.commands.options import read_sets, select_suite
    from harness.plan import build_plan

    chosen = select_suite(
        suite, datasets=datasets, split=split, prompt_type=prompt_type, prompts=prompts, seed=seed
    )
    sets = [
        replace(found, samples=found.samples[:: max(1, len(found.samples) // n)][:n])
        for found in read_sets(chosen, data_root, pictures=False, quiet=True)
    ]
    cases = build_plan(chosen, sets).cases
    if as_json:
        keys = ["dataset", "sample_id", "probe", "attribute", "original_prompt", "prompt", "edits"]
        typer.echo(json.dumps(cases.select(keys).to_dicts(), indent=1, ensure_ascii=False))
        return
    for (dataset, sample), rows in cases.group_by(["dataset", "sample_id"], maintain_order=True):
        _show(str(dataset), str(sample), rows.to_dicts())


def _show(dataset: str, sample: str, rows: list[dict[str, object]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print(Text(f"{dataset}/{sample}", style="bold"))
    for row in rows:
        if row["probe"] == "original":
            console.print(Text(f"  original: {row['prompt']}"), soft_wrap=True)
            continue
        name = f"{row['probe']}" + (f" ({row['attribute']})" if row["attribute"] else "")
        change = difference(str(row["original_prompt"]), json.loads(str(row["edits"])))
        console.print(Text(f"  {name}: ").append_text(change), soft_wrap=True)


def difference(original: str, edits: list[list[Any]]) -> "Text":
    """The original with removed text struck out and inserted text in green."""
    from rich.text import Text

    text, at = Text(), 0
    for start, end, old, new, _ in sorted(edits):
        text.append(original[at:start])
        text.append(f"[-{old}-]" if old else "", style="red strike")
        text.append(f"{{+{new}+}}" if new else "", style="green")
        at = end
    return text.append(original[at:])

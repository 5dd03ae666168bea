"""Options that several verbs share, and what they select.

Conventions: names given with commas or by repeating the option mean the same.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.cards import DatasetCard
    from harness.plan import PlannedSet
    from harness.suites import DatasetEntry, Suite

SuiteName = Annotated[str, typer.Argument(help="A suite's name or the path of its file.")]
DataRoot = Annotated[
    Path,
    typer.Option(
        "--data-root",
        envvar="VLSM_DATA_ROOT",
        help="Folder above the datasets' own.",
        show_default=True,
    ),
]
Datasets = Annotated[
    list[str] | None,
    typer.Option(
        "--datasets",
        help="NAME, NAME/SPLIT or card file: a,b or repeated. [default: the suite's]",
    ),
]
Split = Annotated[
    str | None, typer.Option("--split", help="Annotation file to use. [default: the suite's]")
]
PromptRung = Annotated[
    str | None,
    typer.Option("--prompt-type", help="p0 ... p9. [default: the suite's, else the dataset's]"),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="At most so many images per dataset.")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the suite's seed.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
DataType = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="auto (float32 on a CPU, mixed on CUDA), float32, mixed, bfloat16 or float16.",
    ),
]


def split_names(values: Sequence[str] | None) -> list[str]:
    """``["a,b", "c"]`` -> ``["a", "b", "c"]``."""
    return [name.strip() for value in values or [] for name in value.split(",") if name.strip()]


def select_suite(
    name: str,
    *,
    datasets: Sequence[str] | None = None,
    split: str | None = None,
    prompt_type: str | None = None,
    seed: int | None = None,
) -> "Suite":
    """Load a suite and put the command line's choices in place of its own.

    A dataset that the suite does not list is added with the suite's defaults.
    """
    from harness.errors import UsageError
    from harness.suites import Suite, load_suite

    suite = load_suite(name)
    entries = list(suite.datasets)
    chosen = split_names(datasets)
    if chosen:
        listed = {entry.name: entry for entry in reversed(suite.datasets)}
        entries = [_entry(wanted, listed) for wanted in chosen]
    overrides = {
        key: value for key, value in (("split", split), ("prompt_type", prompt_type)) if value
    }
    content = suite.model_dump() | {
        "datasets": [entry.model_dump() | overrides for entry in entries],
        **({} if seed is None else {"seed": seed}),
    }
    try:
        return Suite.model_validate(content)
    except ValueError as problem:
        raise UsageError(
            f"suite {suite.name!r} with these options: {problem}. Correct the options."
        ) from None


def _entry(wanted: str, listed: "dict[str, DatasetEntry]") -> "DatasetEntry":
    """``name``, ``name/split`` or the path of a card; what the suite says of it is kept."""
    from harness.suites import DatasetEntry

    is_file = wanted.endswith((".yaml", ".yml"))
    name, _, split = (wanted, "", "") if is_file else wanted.partition("/")
    entry = listed.get(name, DatasetEntry(name=name))
    return entry.model_copy(update={"split": split}) if split else entry


def read_sets(
    suite: "Suite",
    root: Path,
    *,
    limit: int | None = None,
    pictures: bool = True,
    quiet: bool = False,
) -> "list[PlannedSet]":
    """Read the samples of every dataset of a suite, with a progress bar.

    `limit` keeps the first images of each dataset, with all their samples.
    """
    from harness.cards import load_dataset_card
    from harness.commands.progress import counting
    from harness.data import load_samples
    from harness.plan import PlannedSet

    sets = []
    for entry in suite.datasets:
        card = load_dataset_card(entry.name)
        if card.generated:
            with counting(f"painting {card.name}", quiet=quiet) as tick:
                _generate(card, root, entry.split, tick)
        with counting(f"reading {card.name}/{entry.split}", quiet=quiet) as tick:
            samples = load_samples(card, root, entry.split, pictures=pictures, tick=tick)
        kept = {s.image for s in samples} if limit is None else set(_first(samples, limit))
        chosen = [sample for sample in samples if sample.image in kept]
        sets.append(PlannedSet(entry, card, root, chosen, samples))
    return sets


def _generate(card: "DatasetCard", root: Path, split: str, tick: "Callable[[], None]") -> None:
    """Write a generated set, unless something of that name is there."""
    from harness.data.phantom import write_phantom

    annotations = root / card.name / "anns" / f"{split}.json"
    if not annotations.is_file():
        write_phantom(card.name, root, tick=tick)


def _first(samples: Sequence[object], limit: int) -> list[Path]:
    images = dict.fromkeys(sample.image for sample in samples)  # type: ignore[attr-defined]
    return list(images)[:limit]

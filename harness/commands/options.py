"""Options that several verbs share, and what they select.

Conventions: names given with commas or by repeating the option mean the same.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.cards import DatasetCard
    from harness.data.table_variants import TableTexts
    from harness.plan.build import PlannedSet
    from harness.records import Sample
    from harness.suite.schema import DatasetEntry, Suite

# Name or path of a card, and the checkpoint to fill it with.
Models = list[tuple[str, Path | None]]

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
PromptSource = Annotated[
    str | None,
    typer.Option(
        "--prompts", help="released, corrected (by the masks) or table. [default: the suite's]"
    ),
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


def model_arguments(values: Sequence[str], checkpoint: Path | None) -> Models:
    """``["a", "b=c.pt"]`` -> names with their checkpoints; `checkpoint` goes with a single name."""
    from harness.errors import UsageError

    models: Models = []
    for value in values:
        name, _, file = value.partition("=")
        models.append((name, Path(file) if file else None))
    if checkpoint is not None:
        if len(models) != 1 or models[0][1] is not None:
            raise UsageError(
                f"--checkpoint: given with {len(models)} models. It goes with exactly one --model "
                "without its own. Write --model CARD=CHECKPOINT for each instead."
            )
        models = [(models[0][0], checkpoint)]
    return models


def select_suite(
    name: str,
    *,
    datasets: Sequence[str] | None = None,
    split: str | None = None,
    prompt_type: str | None = None,
    prompts: str | None = None,
    seed: int | None = None,
) -> "Suite":
    """Load a suite and put the command line's choices in place of its own.

    A dataset that the suite does not list is added with the suite's defaults.
    """
    from harness.suite.schema import load_suite

    return with_choices(
        load_suite(name),
        datasets=datasets,
        split=split,
        prompt_type=prompt_type,
        prompts=prompts,
        seed=seed,
    )


def with_choices(
    suite: "Suite",
    *,
    datasets: Sequence[str] | None = None,
    split: str | None = None,
    prompt_type: str | None = None,
    prompts: str | None = None,
    seed: int | None = None,
) -> "Suite":
    """A suite with the command line's choices in place of its own."""
    from harness.errors import UsageError
    from harness.suite.schema import Suite

    entries = list(suite.datasets)
    chosen = split_names(datasets)
    if chosen:
        listed = {entry.name: entry for entry in reversed(suite.datasets)}
        entries = [_entry(wanted, listed) for wanted in chosen]
    asked = {"split": split, "prompt_type": prompt_type, "prompts": prompts}
    overrides = {key: value for key, value in asked.items() if value}
    content = suite.model_dump() | {
        "datasets": [entry.model_dump() | overrides for entry in entries],
        **({} if seed is None else {"seed": seed}),
    }
    try:
        return Suite.model_validate(content).placed(suite.folder)
    except ValueError as problem:
        raise UsageError(
            f"suite {suite.name!r} with these options: {problem}. Correct the options."
        ) from None


def _entry(wanted: str, listed: "dict[str, DatasetEntry]") -> "DatasetEntry":
    """``name``, ``name/split`` or the path of a card; what the suite says of it is kept."""
    from harness.suite.schema import DatasetEntry

    is_file = wanted.endswith((".yaml", ".yml"))
    name, _, split = (wanted, "", "") if is_file else wanted.partition("/")
    entry = listed.get(name, DatasetEntry(name=name))
    return entry.model_copy(update={"split": split}) if split else entry


def read_sets(
    suite: "Suite",
    root: Path,
    *,
    limit: int | None = None,
    pictures: bool | None = True,
    quiet: bool = False,
) -> "list[PlannedSet]":
    """Read the samples of every dataset of a suite, with a progress bar.

    `limit` keeps the first images of each dataset, with all their samples. `pictures` is
    None to look at them where the dataset has a folder of them.
    """
    from harness.cards import load_dataset_card
    from harness.commands.progress import counting
    from harness.data import has_pictures, load_samples
    from harness.plan.build import PlannedSet

    sets = []
    for entry in suite.datasets:
        card = load_dataset_card(entry.name)
        generate_missing(card, root, entry.split, quiet=quiet)
        look = has_pictures(card, root, entry.split) if pictures is None else pictures
        with counting(f"reading {card.name}/{entry.split}", quiet=quiet) as tick:
            samples = load_samples(
                card, root, entry.split, pictures=look, prompts=entry.prompts, tick=tick
            )
        samples, tables = _from_tables(suite, entry, card, root, samples)
        kept = {s.image for s in samples} if limit is None else set(_first(samples, limit))
        chosen = [sample for sample in samples if sample.image in kept]
        sets.append(PlannedSet(entry, card, root, chosen, samples, tables))
    return sets


def _from_tables(
    suite: "Suite",
    entry: "DatasetEntry",
    card: "DatasetCard",
    root: Path,
    samples: "list[Sample]",
) -> "tuple[list[Sample], TableTexts | None]":
    """What the suite's tables say of a dataset; with their originals where the suite asks."""
    from harness.data.table_variants import gather, with_originals

    own = [t for t in suite.tables if (t.dataset, t.split) == (card.name, entry.split)]
    where = f"suite {suite.name!r}"
    tables = gather(own, samples, data_root=root, suite_folder=suite.folder, where=where)
    if entry.prompts == "table":
        rung = entry.prompt_type or card.prompt_type
        samples = with_originals(card, samples, tables, prompt_type=rung)
    return samples, tables


def generate_missing(card: "DatasetCard", root: Path, split: str, *, quiet: bool = False) -> None:
    """Write a generated set, unless something of that name is there or it is a real one."""
    from harness.commands.progress import counting
    from harness.data.generators import generate

    annotations = root / (card.layout.folder or card.name) / "anns" / f"{split}.json"
    if card.generator and not annotations.is_file():
        with counting(f"painting {card.name}", quiet=quiet) as tick:
            generate(card, root, tick=tick)


def _first(samples: Sequence[object], limit: int) -> list[Path]:
    images = dict.fromkeys(sample.image for sample in samples)  # type: ignore[attr-defined]
    return list(images)[:limit]

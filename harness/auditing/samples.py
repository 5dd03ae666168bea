"""Reads the samples of a suite's datasets."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.auditing.listener import SILENT, Listener

if TYPE_CHECKING:
    from harness.cards import DatasetCard
    from harness.data.table_variants import TableTexts
    from harness.plan.build import PlannedSet
    from harness.records import Sample
    from harness.suite.schema import DatasetEntry, Suite


def choose_root(
    given: Path | None,
    datasets: Iterable[str],
    *,
    default: Path = Path("data"),
    listener: Listener = SILENT,
) -> Path:
    """The data root: `given`, else ``VLSM_DATA_ROOT``, else ``data``.

    Generated sets need nothing that a user brings: where all `datasets` are such and there is no
    folder `default`, they go to the user's cache, and `listener` hears where.
    """
    from harness.cards import load_dataset_card
    from harness.files import cache_folder

    if given is not None:
        return given
    if named := os.environ.get("VLSM_DATA_ROOT"):
        return Path(named)
    cards = [] if default.exists() else [load_dataset_card(name) for name in datasets]
    if not cards or not all(card.generator for card in cards):
        return default
    root = cache_folder("data")
    listener.note(
        f"note: generated data sets are kept in {root}, since there is no folder "
        f"{str(default)!r} here. --data-root or VLSM_DATA_ROOT names another."
    )
    return root


def sets_of(suite: "Suite") -> list[str]:
    """Names or card files of a suite's data sets."""
    return [entry.name for entry in suite.datasets]


def read_sets(
    suite: "Suite",
    root: Path,
    *,
    limit: int | None = None,
    pictures: bool | None = True,
    listener: Listener = SILENT,
) -> "list[PlannedSet]":
    """Read the samples of every dataset of a suite.

    `limit` keeps the first images of each dataset, with all their samples. `pictures` is
    None to look at them where the dataset has a folder of them.
    """
    from harness.cards import load_dataset_card
    from harness.data import has_pictures, load_samples
    from harness.plan.build import PlannedSet

    sets = []
    for entry in suite.datasets:
        card = load_dataset_card(entry.name)
        generate_missing(card, root, entry.split, listener=listener)
        look = has_pictures(card, root, entry.split) if pictures is None else pictures
        with listener.counting(f"reading {card.name}/{entry.split}") as tick:
            samples = load_samples(
                card, root, entry.split, pictures=look, prompts=entry.prompts, tick=tick
            )
        samples, tables = _from_tables(suite, entry, card, root, samples)
        kept = {s.image for s in samples} if limit is None else set(_first(samples, limit))
        chosen = [sample for sample in samples if sample.image in kept]
        sets.append(PlannedSet(entry, card, root, chosen, samples, tables))
    return sets


def span_counts(sets: "Sequence[PlannedSet]") -> "list[dict[str, Any]]":
    """What the lexicon found in the prompts of each set that has free text."""
    from harness.prompts.freetext.counting import count_spans

    found = []
    for planned in sets:
        prompts = [p for s in planned.samples for p in s.prompts.get(planned.prompt_type, ())]
        counts = count_spans(planned.card, prompts, freely=planned.is_from_table)
        if counts is not None:
            found.append({"dataset": planned.card.name, "split": planned.entry.split} | counts)
    return found


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


def generate_missing(
    card: "DatasetCard", root: Path, split: str, *, listener: Listener = SILENT
) -> None:
    """Write a generated set, unless something of that name is there or it is a real one."""
    from harness.data.generators import generate

    annotations = root / (card.layout.folder or card.name) / "anns" / f"{split}.json"
    if card.generator and not annotations.is_file():
        with listener.counting(f"painting {card.name}") as tick:
            generate(card, root, tick=tick)


def _first(samples: Sequence[object], limit: int) -> list[Path]:
    images = dict.fromkeys(sample.image for sample in samples)  # type: ignore[attr-defined]
    return list(images)[:limit]

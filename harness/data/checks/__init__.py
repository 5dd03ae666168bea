"""The data check: every kind of defect known from the released annotations, counted.

Conventions: see `rows`. A check that needs what is not there (masks, pictures, a
tokenizer) is reported as not done, with the reason; it never counts as passed.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.cards import DatasetCard, dataset_names
from harness.data.checks.against_masks import look, mask_defects
from harness.data.checks.lengths import Tokenizer, clip_tokenizer, too_long
from harness.data.checks.overlap import (
    AnnotationFile,
    annotation_files,
    identical_files,
    shared_images,
    shared_names,
)
from harness.data.checks.rows import (
    Defect,
    Finding,
    SplitRows,
    Unchecked,
    finding,
    read_split,
)
from harness.data.checks.structure import STRUCTURE
from harness.data.checks.wording import WORDING
from harness.data.layout import dataset_folder
from harness.errors import DataError

__all__ = [
    "ROW_DEFECTS",
    "Facts",
    "Finding",
    "Inspection",
    "Tokenizer",
    "Unchecked",
    "clip_tokenizer",
    "inspect",
]

ROW_DEFECTS: dict[str, Defect] = STRUCTURE | WORDING
"""The checks that annotations alone suffice for."""

Tick = Callable[[], None]


@dataclass(frozen=True)
class Facts:
    """What one annotation file holds.

    `n_distinct` and `top_share` (of the most frequent one) are those of the prompts of the
    type that audits use. `encodings` says how many masks were read as what, those that could
    not be read included; it is empty where there are no masks.
    """

    dataset: str
    split: str
    n_rows: int
    n_images: int
    n_prompts: int
    n_empty: int
    prompt_type: str
    n_distinct: int
    top_share: float
    encodings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Inspection:
    """What a data check found.

    `findings` holds every check that was done, also those that found nothing;
    `texts` all distinct prompts, over all files.
    """

    facts: tuple[Facts, ...]
    findings: tuple[Finding, ...]
    unchecked: tuple[Unchecked, ...]
    texts: frozenset[str]


def inspect(
    cards: Sequence[DatasetCard],
    root: Path,
    *,
    splits: Mapping[str, Collection[str]] | None = None,
    tokenizer: Tokenizer | None = None,
    tick: Tick = lambda: None,
) -> Inspection:
    """Check every annotation file of some datasets, and the pictures and masks beside it.

    By dataset, `splits` names the annotation files to check, all when None; the others are compared
    with, for images that stand in two of them, as are all datasets of known cards below `root`.
    Prompts are held against the limit of `tokenizer`, if there is one.

    Raises:
        DataError: A dataset's folder is missing.
    """
    folders = _present(cards, root).items()
    files = [f for name, folder in folders for f in annotation_files(name, folder)]
    found: list[Finding | Unchecked] = []
    checked: list[SplitRows] = []
    encodings: list[Counter[str]] = []
    for card in cards:
        read = list(_splits(card, root))
        asked = {rows.split for rows in read} if splits is None else splits[card.name]
        own = [rows for rows in read if rows.split in asked]
        found += [rows for rows in own if isinstance(rows, Unchecked)]
        whole = [rows for rows in own if isinstance(rows, SplitRows)]
        for rows in whole:
            encodings.append(Counter())
            found += _of_one(rows, tokenizer, tick, encodings[-1])
        others = [rows for rows in read if isinstance(rows, SplitRows) and rows not in whole]
        found += _between(card, whole, others, files, tick)
        checked += whole
    n_rows = {f"{rows.card.name}/{rows.split}": len(rows.entries) for rows in checked}
    found += identical_files(files, n_rows)
    return Inspection(
        tuple(_facts(*one) for one in zip(checked, encodings, strict=True)),
        tuple(f for f in found if isinstance(f, Finding)),
        tuple(f for f in found if isinstance(f, Unchecked)),
        frozenset(prompt.text for rows in checked for _, prompt in rows.prompts()),
    )


def _present(cards: Sequence[DatasetCard], root: Path) -> dict[str, Path]:
    """Folders of the datasets asked for, and of others that are there under a known name."""
    asked = {card.name: dataset_folder(card, root) for card in cards}
    return {name: root / name for name in dataset_names() if (root / name).is_dir()} | asked


def _splits(card: DatasetCard, root: Path) -> Iterator[SplitRows | Unchecked]:
    """The declared annotation files that are there; one that cannot be read says why."""
    for split in card.splits:
        if not (dataset_folder(card, root) / "anns" / f"{split}.json").is_file():
            continue
        try:
            yield read_split(card, root, split)
        except DataError as problem:
            yield Unchecked(card.name, split, "the whole file", str(problem))


def _of_one(
    rows: SplitRows, tokenizer: Tokenizer | None, tick: Tick, encodings: Counter[str]
) -> Iterator[Finding | Unchecked]:
    """What one annotation file shows."""
    for key, defect in ROW_DEFECTS.items():
        yield finding(key, defect, rows, n_checked=len(rows.entries))
    yield from _of_masks(rows, tick, encodings)
    if tokenizer is None:
        yield Unchecked(rows.card.name, rows.split, "length in tokens", "no tokenizer was asked")
    else:
        yield from too_long(rows, tokenizer)


def _of_masks(
    rows: SplitRows, tick: Tick, encodings: Counter[str]
) -> Iterator[Finding | Unchecked]:
    """What the masks show; how they were read is counted in `encodings`."""
    what = "words against masks, empty masks"
    if not rows.masks.is_dir():
        yield Unchecked(rows.card.name, rows.split, what, f"no folder {rows.masks}")
        return
    shown, lost = look(rows, tick=tick)
    encodings.update([one.encoding for one in shown.values()] + ["not read"] * len(lost))
    if lost:
        why = f"{len(lost)} masks cannot be read, the first: {next(iter(lost.values()))}"
        yield Unchecked(rows.card.name, rows.split, what, why)
    if shown:
        for key, defect in mask_defects(shown).items():
            yield finding(key, defect, rows, n_checked=len(shown))


def _between(
    card: DatasetCard,
    splits: Sequence[SplitRows],
    others: Sequence[SplitRows],
    files: Sequence[AnnotationFile],
    tick: Tick,
) -> Iterator[Finding | Unchecked]:
    """What several annotation files show together; those of two others are left out."""
    for rows in splits:
        if not rows.images.is_dir():
            why = f"no folder {rows.images}"
            yield Unchecked(card.name, rows.split, "images by their content", why)
    yield from shared_images(splits, others, tick=tick)
    yield from shared_names(splits, files)


def _facts(rows: SplitRows, encodings: Counter[str]) -> Facts:
    prompts = [prompt for _, prompt in rows.prompts()]
    counts = Counter(p.text for p in prompts if p.prompt_type == rows.card.prompt_type)
    return Facts(
        rows.card.name,
        rows.split,
        n_rows=len(rows.entries),
        n_images=len({row.image_name for _, row in rows.read()}),
        n_prompts=len(prompts),
        n_empty=sum(not prompt.text for prompt in prompts),
        prompt_type=rows.card.prompt_type,
        n_distinct=len(counts),
        encodings=dict(encodings.most_common()),
        top_share=max(counts.values(), default=0) / max(sum(counts.values()), 1),
    )

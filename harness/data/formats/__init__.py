"""Makes a data set of a folder in any of the known formats: ``vlsm-harness data init``.

A format is a reader: `Files` and `Choices` -> `Found`, or None where the folder is none of it. Its
rows are written once, as annotations in the released form with a card beside them; from then on
there is one layout, and nothing else knows of the format. Where nothing must be made, the files of
the folder are named where they lie.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from harness.cards import PROMPT_TYPES, DatasetCard, load_dataset_card
from harness.data.formats.coco import read_coco
from harness.data.formats.embedded import read_embedded
from harness.data.formats.entries import CLASS_ONLY, Choices, Found
from harness.data.formats.files import Files, list_files
from harness.data.formats.folders import ANNOTATIONS, read_folders, read_released
from harness.data.formats.grammars import find_grammar
from harness.data.formats.looking import Look, look_at
from harness.data.formats.patients import find_patients
from harness.data.formats.tables import read_tables
from harness.data.formats.volumes import read_volumes
from harness.data.formats.writing import Row, Writer, annotations, folders_of, layout_of
from harness.data.layout import load_samples
from harness.errors import DataError, UsageError, choose
from harness.files.writing import json_bytes, replace_together
from harness.records import Sample

__all__ = ["CARD", "FORMATS", "Choices", "Made", "initialise"]

Read = Callable[[Files, Choices], Found | None]
FORMATS: dict[str, Read] = {
    "released": read_released,
    "coco": read_coco,
    "hugging-face": read_embedded,
    "table": read_tables,
    "nifti": read_volumes,
    "folders": read_folders,
}
"""The formats in the order in which they are tried; references of COCO's are read with it."""

CARD = "card.yaml"
_BANNER = "# Written by `vlsm-harness data init` from {source} ({format}). Edit as you like.\n"
Tick = Callable[[], None]


@dataclass(frozen=True)
class Made:
    """A data set that was made."""

    folder: Path  # the data set's own; the data root is the one above it
    card: DatasetCard
    found: Found  # what was read
    look: Look  # what its pictures and masks are
    samples: Mapping[str, Sequence[Sample]]  # by split
    said: tuple[str, ...]  # what was understood, a sentence each


def initialise(
    folder: Path,
    choices: Choices,
    *,
    out: Path | None = None,
    name: str | None = None,
    overwrite: bool = False,
    tick: Tick = lambda: None,
) -> Made:
    """Read a folder, and write annotations and a card that `check` passes.

    Args:
        folder: What a stranger has, or one file of a table in it.
        choices: What is said beforehand, and who answers questions.
        out: The data set's folder, for copies of all files; None leaves them where they are.
        name: Of the data set; None takes the folder's.
        overwrite: Write over an earlier card and annotations.
        tick: Called once per row, picture and mask, for a progress bar.

    Raises:
        DataError: The folder is in no known format, or something in it cannot be read.
        UsageError: A card is there already, or an answer is none.
        RunError: The disk refuses what is written.
    """
    if folder.is_file():
        choices = replace(choices, table=folder.name, format=choices.format or "table")
        folder = folder.parent
    folder = folder.resolve()
    target = folder if out is None else out.resolve()
    _refuse_card(target, overwrite)
    found = recognise(_sources(folder), choices)
    rows = Writer(folder, target).rows(found.entries, tick)
    rows = _with_splits(rows, choices)
    found = _with_repeats(found, rows)
    is_kept = bool(found.folders) and target == folder
    images, masks = (
        {split: places[part] for split, places in found.folders.items()}
        if is_kept
        else folders_of(rows, ("image", "mask")[part])
        for part in (0, 1)
    )
    look = look_at(_distinct(target, rows, "image"), _distinct(target, rows, "mask"), choices, tick)
    clusters, rows = _clusters(found, rows, choices)
    listed = annotations(rows, images, masks)
    banner = _BANNER.format(source=" ".join(found.source.split())[:200], format=found.format)
    prompt_type = _prompt_type(rows)
    grammar, found = _grammar(found, rows, prompt_type)
    content = {
        "name": _plain_name(name or target.name),
        "source": f"{found.source} ({found.format}), by `vlsm-harness data init`",
        "splits": list(listed),
        "prompt_type": prompt_type,
        "layout": {
            "folder": target.name,
            "images": layout_of(images),
            "masks": layout_of(masks),
        },
        **look.keys,
        "clusters": clusters,
        **_classes(rows),
        **grammar,
        "defects": list(found.gaps),
    }
    with _written(target, banner, {} if is_kept else listed, content):
        card = load_dataset_card(target / CARD)
        samples = {
            split: load_samples(card, target.parent, split, tick=tick) for split in card.splits
        }
    return Made(target, card, found, look, samples, tuple(_said(card, look, samples, found)))


def recognise(files: Files, choices: Choices) -> Found:
    """What a folder holds, by the first format that reads it.

    Raises:
        DataError: None does; the message says what was there and what would be read.
    """
    wanted = choices.format
    if wanted is not None:
        choose(wanted, FORMATS, kind="format", where="--format", error=UsageError)
    for name, read in FORMATS.items():
        if wanted in (None, name):
            found = read(files, choices)
            if found is not None:
                return found
    _refuse_other_kinds(files)
    kinds = Counter(path.suffix.lower() or "no ending" for path in files.paths).most_common(6)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds) or "nothing"
    raise DataError(
        f"{files.folder}: found {listed}. Pictures with masks, and a table or JSON that names "
        "them, are read, such as images/1.png, masks/1.png and pairs.csv with the columns image, "
        "mask, prompt. Lay them out so, or name the columns: --column image=NAME."
    )


_OTHERS = {
    **dict.fromkeys((".dcm", ".dicom", ".ima"), ("DICOM files", "NIfTI (dcm2niix does it) or PNG")),
    **dict.fromkeys((".nrrd", ".nhdr", ".mha", ".mhd"), ("ITK volumes", "NIfTI")),
    **dict.fromkeys((".npy", ".npz", ".mat", ".h5", ".hdf5"), ("arrays", "PNG or NIfTI")),
    **dict.fromkeys((".svs", ".ndpi", ".heic"), ("slides or photos of this kind", "PNG or TIFF")),
}


def _refuse_other_kinds(files: Files) -> None:
    """Pictures of kinds that are not read, by their endings; DICOM has often none."""
    for path in files.paths[:1000]:
        known = _OTHERS.get(path.suffix.lower())
        if known is None and (not path.suffix or path.suffix[1:].isdecimal()):
            with files.path(path).open("rb") as file:
                known = _OTHERS[".dcm"] if file.read(132)[128:] == b"DICM" else None
        if known:
            raise DataError(
                f"{files.path(path)}: {known[0]} are not read. PNG, JPEG, TIFF or NIfTI files are "
                f"needed. Convert them to {known[1]} first."
            )


def _refuse_card(target: Path, overwrite: bool) -> None:
    if (target / CARD).exists() and not overwrite:
        raise UsageError(
            f"{target / CARD}: there is a card already. Give --overwrite to write it and its "
            "annotations anew, or --out FOLDER for another data set."
        )


def _sources(folder: Path) -> Files:
    """The files of a folder without what an earlier call wrote from something else."""
    files, card = list_files(folder), folder / CARD
    start = card.read_bytes()[:4096].decode(errors="replace") if card.is_file() else ""
    first = start.partition("\n")[0]
    is_ours = first.startswith(_BANNER.partition(" from ")[0]) and "(released)" not in first
    kept = [p for p in files.paths if not (is_ours and p.parts[0] == ANNOTATIONS)]
    return Files(folder, tuple(kept))


def _with_splits(rows: Sequence[Row], choices: Choices) -> list[Row]:
    """The rows, each with a split: where none is named, the user's."""
    unnamed = sum(row.split is None for row in rows)
    default = choices.split or "test"
    if unnamed and choices.split is None:
        default = choices.ask(f"{unnamed} rows name no split: which one are they?", default)
    return [row if row.split is not None else replace(row, split=default) for row in rows]


def _with_repeats(found: Found, rows: Sequence[Row]) -> Found:
    n_again = _n_sentences(found.entries) - _n_sentences(rows)
    if not n_again or found.folders:
        return found
    again = f"{n_again} sentences stand again for the same target: they are kept once."
    return replace(found, gaps=(*found.gaps, again))


def _grammar(found: Found, rows: Sequence[Row], prompt_type: str) -> tuple[dict[str, str], Found]:
    """The card's grammar, where one that ships reads the sentences, and what is said of it."""
    counts = Counter(text for row in rows for text in row.prompts.get(prompt_type, ()))
    name, note = find_grammar(prompt_type, counts)
    said = replace(found, notes=(*found.notes, note)) if note else found
    return {"grammar": name} if name else {}, said


def _n_sentences(listed: Sequence[Any]) -> int:
    return sum(len(texts) for one in listed for texts in one.prompts.values())


def _distinct(target: Path, rows: Sequence[Row], part: str) -> list[Path]:
    return [target / path for path in dict.fromkeys(getattr(row, part) for row in rows)]


def _clusters(
    found: Found, rows: Sequence[Row], choices: Choices
) -> tuple[dict[str, Any], list[Row]]:
    """The card's rule, and the rows with their clusters where that rule needs them."""
    rows = list(rows)
    if rows and all(row.cluster is not None for row in rows):
        return {"rule": "annotated", "source": found.clusters or found.source}, rows
    rows = [replace(row, cluster=None) for row in rows]
    patients = find_patients([row.image.name for row in rows])
    in_name = patients is not None
    patients = patients or find_patients([str(row.image) for row in rows])
    if patients is None:
        return {"rule": "image"}, rows
    group, name = patients.example
    question = (
        f"Names look like patients ({group!r} in {name!r}; {patients.n} of them): are pictures of "
        "one patient one cluster (yes, no)?"
    )
    if choices.ask(question, "yes").strip().lower() not in {"yes", "y"}:
        return {"rule": "image"}, rows
    if in_name:
        return {"rule": "patient", "pattern": patients.pattern}, rows
    grouped = [replace(r, cluster=g) for r, g in zip(rows, patients.groups, strict=True)]
    return {"rule": "annotated", "source": f"paths, such as {name}"}, grouped


def _prompt_type(rows: Sequence[Row]) -> str:
    """The richest prompt type that most rows have."""
    counts = Counter(rung for row in rows for rung, texts in row.prompts.items() if any(texts))
    most = max(counts.values(), default=0)
    full = [rung for rung, count in counts.items() if 2 * count >= most]
    return max(full, key=PROMPT_TYPES.index, default=PROMPT_TYPES[1])


def _classes(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The card's classes, where the prompts are their names."""
    if any(set(row.prompts) != {CLASS_ONLY} for row in rows):
        return {}
    return {"classes": sorted({text for row in rows for text in row.prompts[CLASS_ONLY]})}


def _plain_name(name: str) -> str:
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".")
    return plain[:100] or "mine"


@contextmanager
def _written(
    target: Path, banner: str, listed: Mapping[str, Any], content: Mapping[str, Any]
) -> Iterator[None]:
    """Write card and annotations; if they then cannot be read, what was there before stands."""
    files = {
        target / ANNOTATIONS / f"{split}.json": json_bytes(rows) for split, rows in listed.items()
    }
    text = banner + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    files[target / CARD] = text.encode()
    earlier = {path: path.read_bytes() for path in files if path.is_file()}
    replace_together(files)
    try:
        yield
    except BaseException:
        for path in files.keys() - earlier.keys():
            path.unlink(missing_ok=True)
        replace_together(earlier)
        with suppress(OSError):  # it holds earlier ones
            (target / ANNOTATIONS).rmdir()
        raise


def _said(
    card: DatasetCard, look: Look, samples: Mapping[str, Sequence[Sample]], found: Found
) -> list[str]:
    """What was understood, a sentence each."""
    said = []
    for split, listed in samples.items():
        targets = Counter(sample.image for sample in listed)
        several = sum(count > 1 for count in targets.values())
        n_prompts = sum(len(p) for s in listed for p in s.prompts.values())
        n_empty = sum(bool(sample.is_empty) for sample in listed)
        n_clusters = len({sample.cluster_id for sample in listed})
        said.append(
            f"{split}: {len(listed)} pairs on {len(targets)} pictures ({several} with several "
            f"targets), {n_prompts} prompts, {n_empty} empty masks, {n_clusters} clusters."
        )
    sizes = sorted(look.sizes.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{w} x {h} ({n})" for (h, w), n in sizes[:4])
    said.append(f"sizes: {shown}{', ...' if len(sizes) > 4 else ''}.")
    said.append(f"masks: {', '.join(f'{name} ({n})' for name, n in look.encodings.items())}.")
    first = next(iter(samples.values()))
    texts = Counter(p.text for s in first for p in s.prompts.get(card.prompt_type, ()))
    examples = ", ".join(repr(text) for text in list(texts)[:3])
    said.append(f"prompts ({card.prompt_type}): {len(texts)} distinct, such as {examples}.")
    return [*said, *found.notes, *found.gaps]

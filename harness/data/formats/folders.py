"""Folders that need no table: the released layout, and pictures with masks alone.

Without any sentence a set has one prompt, which is asked for, and the user's folders have a say:
masks in folders of their own (``masks/left_lung/``) are targets called so; label maps are as many
targets as they hold values. Several masks of one picture in one folder are parts of one target.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.decoding import with_picture
from harness.data.formats.entries import (
    CLASS_ONLY,
    Choices,
    Entry,
    Found,
    Made,
    png,
    said_of_all,
    words_of,
)
from harness.data.formats.files import Files, is_mask, key_of, scope_of, split_of
from harness.data.formats.rows import TABLES
from harness.data.images import read_mask
from harness.data.layout import load_entries, parse_row
from harness.errors import DataError, EncodingError
from harness.records import BY_CONTENT, Prompt

ANNOTATIONS = "anns"
_MOST_LABELS = 32
_TRIED = 50


def read_released(files: Files, choices: Choices) -> Found | None:
    """The rows of the paper's own layout, or None where there is no ``anns`` folder of such rows.

    Raises:
        DataError: A row names no picture or mask.
    """
    entries: list[Entry] = []
    gaps: list[str] = []
    folders: dict[str, tuple[PurePosixPath, PurePosixPath]] = {}
    listed = [p for p in files.paths if p.parts[0] == ANNOTATIONS and p.suffix == ".json"]
    for path in listed:
        rows = load_entries(files.path(path))
        if not (isinstance(rows[0], dict) and "img_name" in rows[0]):
            return None
        if len(listed) > 1 and not any(_is_there(files, path, row) for row in rows[:_TRIED]):
            gaps.append(f"{path}: no picture of its {len(rows)} rows is there: it is left out.")
            continue
        for number, row in enumerate(rows):
            entry, place = _row(files, path, number, row)
            entries.append(entry)
            if folders.setdefault(path.stem, place) != place:
                raise DataError(
                    f"{entry.where}: its files lie in {' and '.join(map(str, place))}, those of "
                    f"the first row in {' and '.join(map(str, folders[path.stem]))}. A split has "
                    "one folder of pictures and one of masks, such as images and masks. Move the "
                    "files, or write their folders into the names."
                )
    if not entries:
        return None
    return Found(
        "released",
        ", ".join(map(str, listed)),
        tuple(entries),
        ("The annotations stay as they are.",),
        tuple(gaps),
        clusters="the rows' own" if all(entry.cluster for entry in entries) else None,
        folders=folders,
    )


def _is_there(files: Files, path: PurePosixPath, row: Any) -> bool:
    name = row.get("img_name") if isinstance(row, dict) else None
    return isinstance(name, str) and bool(files.find(name, mask=False, split=path.stem))


def _row(
    files: Files, path: PurePosixPath, number: int, row: Any
) -> tuple[Entry, tuple[PurePosixPath, PurePosixPath]]:
    """A row, and the folders in which its names begin."""
    where = f"{files.path(path)}: row {number}"
    parsed = parse_row(row, where, lambda text, rung, index: Prompt(text, rung, index))
    found, folders = [], []
    for name, is_of_mask in ((parsed.image_name, False), (parsed.mask_name, True)):
        parts = PurePosixPath(name).parts
        paths = [
            p
            for p in files.find(name, mask=is_of_mask, split=path.stem)
            if p.parts[-len(parts) :] == parts
        ]
        if len(paths) != 1:
            key = "'mask_name'" if is_of_mask else "'img_name'"
            files.refuse_missing(where, key, name, mask=is_of_mask)
        found.append(files.path(paths[0]))
        folders.append(PurePosixPath(*paths[0].parts[: -len(parts)]))
    prompts = {rung: tuple(p.text for p in texts) for rung, texts in parsed.prompts.items()}
    entry = Entry(where, found[0], found[1], prompts, path.stem, parsed.cluster)
    return entry, (folders[0], folders[1])


def read_folders(files: Files, choices: Choices) -> Found | None:
    """Pictures with their masks, or None where no picture has one.

    Raises:
        DataError: A mask cannot be decoded.
    """
    pairs = [
        (image, masks)
        for image in files.pictures
        if not is_mask(image) and (masks := files.masks_of(image))
    ]
    masks = [path for path in files.pictures if is_mask(path)]
    if not pairs:
        _refuse_unlike(files, masks)
        return None
    alone = sum(not is_mask(image) for image in files.pictures) - len(pairs)
    gaps = [f"{alone} pictures without a mask are left out."] * bool(alone)
    lost = sorted({*masks} - {mask for _, own in pairs for mask in own})
    if lost:
        gaps.append(f"{len(lost)} masks fit no picture and are left out, first {lost[0]}.")
    unused = [str(path) for path in files.paths if path.suffix.lower() in TABLES]
    if unused:
        gaps.append(f"{', '.join(unused[:3])}: not used, no column names pictures of this folder.")
    notes = []
    default = words_of(files.folder.resolve().name)
    values = _label_values(files, pairs)
    if values:
        notes.append(f"The masks are label maps of the values {', '.join(map(str, values))}.")
        names = {
            value: choices.labels.get(value)
            or choices.ask(f"What does the value {value} of the masks show?", f"{default} {value}")
            for value in values
        }
        entries = [entry for pair in pairs for entry in _of_labels(files, *pair, names)]
    else:
        is_named = any(_class_of(image, mask) for image, masks in pairs for mask in masks)
        prompt = choices.prompt or (
            default
            if is_named
            else choices.ask(
                f"No table or JSON holds sentences{_of(unused)}: which one fits all?", default
            )
        )
        said = {CLASS_ONLY: (prompt,)} if prompt == default else said_of_all(prompt)
        entries = [entry for pair in pairs for entry in _of_masks(files, *pair, said)]
    return Found("folders", "its pictures and masks", tuple(entries), tuple(notes), tuple(gaps))


def _refuse_unlike(files: Files, masks: Sequence[PurePosixPath]) -> None:
    """Say what the names lack where there are pictures and masks."""
    images = [path for path in files.pictures if not is_mask(path)]
    if images and masks:
        raise DataError(
            f"{files.folder}: found {len(images)} pictures and {len(masks)} masks, such as "
            f"{str(images[0])!r} and {str(masks[0])!r}, and no two that belong together. A mask "
            "has its picture's name, in a like folder or alone of that name. Rename them, or name "
            "both in a table: image,mask,prompt."
        )


def _of(unused: Sequence[str]) -> str:
    return f" ({unused[0]} names no picture of this folder)" if unused else ""


def _class_of(image: PurePosixPath, mask: PurePosixPath) -> str:
    """The words of a mask's folders that its picture's folders lack; none of unlike folders."""
    known, words = {*scope_of(image)}, scope_of(mask)
    return " ".join(word for word in words if word not in known) if known <= {*words} else ""


def _of_masks(
    files: Files,
    image: PurePosixPath,
    masks: Sequence[PurePosixPath],
    said: Mapping[str, tuple[str, ...]],
) -> Iterator[Entry]:
    groups: dict[str, list[PurePosixPath]] = {}
    for mask in masks:
        groups.setdefault(_class_of(image, mask), []).append(mask)
    for name, parts in groups.items():
        paths = [files.path(part) for part in parts]
        made = Made(f"{key_of(image)}.png", partial(_union, paths))
        yield Entry(
            str(image),
            files.path(image),
            paths[0] if len(paths) == 1 else made,
            {CLASS_ONLY: (name,)} if name else said,
            split_of("/".join(image.parent.parts)),
        )


def _union(paths: Sequence[Path]) -> bytes:
    masks = [read_mask(path) for path in paths]
    if len({mask.shape for mask in masks}) > 1:
        raise DataError(
            f"{paths[0]} and {paths[1]}: {masks[0].shape} and {masks[1].shape} pixels. Masks of "
            "one picture have one size. Export them again."
        )
    return png(np.logical_or.reduce(masks))


def _of_labels(
    files: Files,
    image: PurePosixPath,
    masks: Sequence[PurePosixPath],
    names: Mapping[int, str],
) -> Iterator[Entry]:
    held = _values(files.path(masks[0]))
    present = {*np.unique(held).tolist()}
    for value, name in names.items():
        made = Made(f"{key_of(image)}_{value}.png", partial(_of_value, files.path(masks[0]), value))
        yield Entry(
            str(image),
            files.path(image),
            made if value in present else None,
            {CLASS_ONLY: (name,)},
            split_of("/".join(image.parent.parts)),
        )


def _of_value(path: Path, value: int) -> bytes:
    return png(_values(path) == value)


def _label_values(
    files: Files, pairs: Sequence[tuple[PurePosixPath, Sequence[PurePosixPath]]]
) -> list[int]:
    """The values but 0 of label maps; none where the masks are no such maps."""
    if any(len(masks) > 1 for _, masks in pairs):
        return []
    found: set[int] = set()
    is_map = False
    for _, masks in pairs:
        path = files.path(masks[0])
        try:
            read_mask(path)
        except EncodingError:
            is_map = True
        held = {*np.unique(_values(path)).tolist()}
        # Of colours in a palette every index but 0 is foreground: several are classes.
        is_map |= len(held - {0}) > 1 and with_picture(path, "mask", BY_CONTENT, _is_coloured)
        found.update(held)
        if len(found) > _MOST_LABELS:
            return []
    return sorted(found - {0}) if is_map and len(found) > 2 else []


def _is_coloured(picture: Image.Image, depth: int) -> bool:
    palette = np.array(picture.getpalette() or [], dtype=int).reshape(-1, 3)
    return picture.mode == "P" and bool((palette != palette[:, :1]).any())


def _values(path: Path) -> NDArray[Any]:
    """The stored values of a mask, ``(H, W)``: greys, or a palette's indexes."""

    def values(picture: Image.Image, depth: int) -> NDArray[Any]:
        is_plain = picture.mode in {"L", "P", "1"} or picture.mode.startswith("I")
        return np.array(picture if is_plain else picture.convert("L"))

    return with_picture(path, "mask", BY_CONTENT, values)

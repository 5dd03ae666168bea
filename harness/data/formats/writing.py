"""Writes what a format holds as a data set: annotations, the masks that were none, a card.

Conventions: pictures stay where they are; `PREPARED` holds what was made, or with a folder of its
own for the result copies of all files. Names in annotations begin at the folders that the card
names. A sample is a mask: sentences about one picture and mask are one row, and each empty mask is
a row of its own.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from harness.data.decoding import FORMATS as PICTURE_FORMATS
from harness.data.formats.entries import Entry, File, png
from harness.data.formats.files import PREPARED
from harness.errors import DataError
from harness.files.writing import replace_together

Tick = Callable[[], None]
_LONGEST = 100


@dataclass(frozen=True)
class Row:
    """One annotation, its files below the data set's folder."""

    where: str
    image: PurePosixPath
    mask: PurePosixPath
    prompts: Mapping[str, tuple[str, ...]]
    split: str | None
    cluster: str | None


@dataclass
class Writer:
    """Puts the files of entries where the data set has them."""

    source: Path  # the folder that was read
    out: Path  # the data set's folder
    _names: set[PurePosixPath] = field(default_factory=set)
    _images: dict[Any, PurePosixPath] = field(default_factory=dict)
    _masks: dict[tuple[PurePosixPath, Any], PurePosixPath] = field(default_factory=dict)
    _owners: dict[PurePosixPath, PurePosixPath] = field(default_factory=dict)

    def rows(self, entries: Iterable[Entry], tick: Tick) -> list[Row]:
        """The rows of entries, whose files are then in place; equal targets are one row."""
        found: dict[tuple[str | None, PurePosixPath, PurePosixPath], Row] = {}
        for entry in entries:
            image = self._image(entry.image)
            mask = self._mask(image, entry)
            key = (entry.split, image, mask)
            row = Row(entry.where, image, mask, entry.prompts, entry.split, entry.cluster)
            if key in found:
                merged = {
                    rung: tuple(dict.fromkeys((*found[key].prompts.get(rung, ()), *texts)))
                    for rung, texts in entry.prompts.items()
                }
                row = Row(
                    found[key].where,
                    image,
                    mask,
                    {**found[key].prompts, **merged},
                    entry.split,
                    entry.cluster,
                )
            found[key] = row
            tick()
        return list(found.values())

    def _image(self, image: File) -> PurePosixPath:
        if isinstance(image, Path):
            if image not in self._images:
                self._images[image] = self._placed(image, "images")
            return self._images[image]
        if image.key is not None and image.key in self._images:
            return self._images[image.key]
        content = image.content()
        key = hashlib.sha256(content).digest() if image.key is None else image.key
        if key not in self._images:
            self._images[key] = self._written(content, "images", image.name)
        return self._images[key]

    def _mask(self, image: PurePosixPath, entry: Entry) -> PurePosixPath:
        if entry.mask is None:
            height, width = _size(self.out / image, entry.where)
            content = png(np.zeros((height, width), dtype=np.bool_))
            return self._written(content, "masks", f"{image.stem}_nothing.png")
        if isinstance(entry.mask, Path):
            placed = self._masks.get((image, entry.mask))
            if placed is None:
                placed = self._placed(entry.mask, "masks")
                if self._owners.setdefault(placed, image) != image:
                    # A mask names one sample: the next picture has its own copy.
                    name = f"{image.stem}_{entry.mask.name}"
                    placed = self._written(entry.mask.read_bytes(), "masks", name)
                self._masks[image, entry.mask] = placed
            return placed
        content = entry.mask.content()
        key = (image, hashlib.sha256(content).digest())
        if key not in self._masks:
            self._masks[key] = self._written(content, "masks", entry.mask.name)
        return self._masks[key]

    def _placed(self, path: Path, part: str) -> PurePosixPath:
        """A file of the source: as it lies there, or copied where the result lies elsewhere."""
        relative = PurePosixPath(path.relative_to(self.source).as_posix())
        if self.out.resolve() == self.source.resolve():
            return relative
        target = PurePosixPath(part) / relative
        self._names.add(target)
        replace_together({self.out / target: path.read_bytes()}, durable=False)
        return target

    def _written(self, content: bytes, part: str, name: str) -> PurePosixPath:
        target = self._free(PurePosixPath(PREPARED) / part, name)
        replace_together({self.out / target: content}, durable=False)
        return target

    def _free(self, folder: PurePosixPath, name: str) -> PurePosixPath:
        """A name that no file of this data set has, of letters that every disk holds."""
        stem, dot, suffix = name.rpartition(".")
        stem, suffix = (stem, f".{suffix}") if dot and len(suffix) <= 5 else (name, ".png")
        plain = "".join(c if c.isalnum() or c in "-_. ()" else "_" for c in stem)[:_LONGEST]
        plain = plain.encode()[:_LONGEST].decode(errors="ignore").strip(". ") or "file"
        number, target = 1, folder / f"{plain}{suffix}"
        while target in self._names:
            number += 1
            target = folder / f"{plain}-{number}{suffix}"
        self._names.add(target)
        return target


def _size(path: Path, where: str) -> tuple[int, int]:
    """Height and width of a picture as it is stored, from its header."""
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as picture:
            return picture.height, picture.width
    except Exception as problem:  # noqa: BLE001, decoders raise whatever they run into
        raise DataError(
            f"{where}: the picture {str(path)!r} cannot be opened ({str(problem)[:120]}). A whole "
            "PNG, JPEG or TIFF file is needed. Copy the file again."
        ) from None


def common_folder(paths: Iterable[PurePosixPath]) -> PurePosixPath:
    """The deepest folder that holds all of them.

    Example:
        >>> str(common_folder([PurePosixPath("a/b/1.png"), PurePosixPath("a/c/1.png")]))
        'a'
    """
    folders = [path.parent.parts for path in paths]
    shared = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return PurePosixPath(*shared)


Folders = Mapping[str, PurePosixPath]


def folders_of(rows: Sequence[Row], part: str) -> Folders:
    """The folder of the pictures (`part` ``image``) or masks (``mask``) of each split."""
    paths: dict[str, list[PurePosixPath]] = {}
    for row in rows:
        paths.setdefault(row.split or "", []).append(getattr(row, part))
    return {split: common_folder(listed) for split, listed in paths.items()}


def layout_of(folders: Folders) -> str | dict[str, str]:
    """Folders as a card's layout has them: one, or one for each split where they differ."""
    named = {split: str(folder) for split, folder in folders.items()}
    return next(iter(named.values())) if len(set(named.values())) == 1 else named


def annotations(
    rows: Sequence[Row], images: Folders, masks: Folders
) -> dict[str, list[dict[str, Any]]]:
    """The annotation rows of each split, in the released form."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        split = row.split or ""
        made: dict[str, Any] = {
            "img_name": row.image.relative_to(images[split]).as_posix(),
            "mask_name": row.mask.relative_to(masks[split]).as_posix(),
            "prompts": {
                rung: texts[0] if len(texts) == 1 else list(texts)
                for rung, texts in row.prompts.items()
                if texts
            },
        }
        if row.cluster is not None:
            made["cluster"] = row.cluster
        found.setdefault(split, []).append(made)
    return found

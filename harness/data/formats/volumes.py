"""NIfTI volumes as axial slices; reading them needs nibabel (the extra ``volumes``).

Conventions: a volume is turned to the nearest canonical axes first (right, anterior, superior), so
that how it was stored does not matter. A slice is shown as radiologists do: rows run from anterior
to posterior, columns from the patient's right to left; slices are numbered from inferior, from 0.
Voxels are not resampled. One volume is one cluster. A slice without a target stays, with an empty
mask: a model that finds something there is wrong.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.formats.entries import (
    CLASS_ONLY,
    Choices,
    Entry,
    File,
    Found,
    Made,
    png,
    said_of_all,
    words_of,
)
from harness.data.formats.files import Files, is_mask, key_of, split_of
from harness.errors import DataError

AXES = (
    "axial slices of the canonical axes, from inferior; rows from anterior to posterior, columns "
    "from the patient's right to left"
)
MAX_VOXELS = 1 << 30
_MOST_LABELS = 64
_CLUSTERS = "one volume, one cluster"
_PERCENTILES = (0.5, 99.5)
_INSTALL = "Install it (pip install 'vlsm-harness[volumes]')."


@dataclass(frozen=True)
class _Volume:
    """A volume on canonical axes: values ``(x, y, z)`` and where its voxels lie, in mm."""

    values: NDArray[Any]
    affine: NDArray[np.float64]


def read_volumes(files: Files, choices: Choices) -> Found | None:
    """The slices of a folder's volumes with the labels beside them, or None without volumes.

    Raises:
        DataError: A volume has no labels, or other axes or another size than they.
    """
    for cached in (_load, _labels, _window):
        cached.cache_clear()  # the files may be others than those of an earlier call
    images = [path for path in files.volumes if not is_mask(path)]
    if not images:
        return None
    pairs = []
    for image in images:
        found = files.masks_of(image)
        if len(found) != 1:
            raise DataError(
                f"{files.path(image)}: {len(found)} volumes of labels for it. One is needed, named "
                f"like it in a folder such as 'labels': labels/{key_of(image)}.nii.gz. Add it."
            )
        pairs.append((image, found[0]))
    names = _names(files, choices, [files.path(label) for _, label in pairs])
    entries = [
        entry
        for image, label in pairs
        for value, name in names.items()
        for entry in _slices(
            Entry(
                str(image),
                files.path(image),
                files.path(label),
                said_of_all(name) if name == choices.prompt else {CLASS_ONLY: (name,)},
                split_of("/".join(image.parent.parts)),
            ),
            choices,
            (value,),
        )
    ]
    empty = sum(entry.mask is None for entry in entries)
    kept = (f"{empty} of {len(entries)} slices hold no target: they are kept, with empty masks.",)
    source = f"{len(pairs)} volumes: {AXES}"
    beside = len(files.pictures)
    gaps = (
        *(kept if empty else ()),
        *[f"{beside} pictures beside the volumes: not used."][:beside],
    )
    return Found("nifti", source, tuple(entries), (), gaps, _CLUSTERS)


def slices(entry: Entry, choices: Choices) -> Iterator[Entry]:
    """The slices of an entry whose image is a volume; its target is what the user calls labels.

    Without such names everything but 0 is.
    """
    return _slices(entry, choices, tuple(choices.labels))


def label_values(mask: File | None) -> list[int]:
    """The labels of a volume but 0."""
    if not isinstance(mask, Path):
        return []
    return sorted({*np.unique(_labels(mask).values).tolist()} - {0})


def _is_target(values: NDArray[Any], wanted: Sequence[int]) -> NDArray[np.bool_]:
    return np.isin(values, wanted) if wanted else values != 0


def _slices(entry: Entry, choices: Choices, wanted: Sequence[int]) -> Iterator[Entry]:
    assert isinstance(entry.image, Path)
    labels = None
    if isinstance(entry.mask, Path):
        labels = _labels(entry.mask)
        _refuse_unlike(entry.image, entry.mask)
        shown = np.asarray(_is_target(labels.values, wanted).any(axis=(0, 1)))
        n_slices = labels.values.shape[2]
    else:
        n_slices = _load(entry.image).values.shape[2]
        shown = np.zeros(n_slices, dtype=np.bool_)
    stem = key_of(PurePosixPath(entry.image.name))
    suffix = "".join(f"_{value}" for value in wanted)
    for number in range(n_slices):
        mask = partial(_mask, entry.mask, wanted, number)
        picture = partial(_picture, entry.image, choices, number)
        yield replace(
            entry,
            where=f"{entry.where}: slice {number}",
            image=Made(f"{stem}_{number:04d}.png", picture, key=(entry.image, number)),
            mask=Made(f"{stem}{suffix}_{number:04d}.png", mask) if shown[number] else None,
            cluster=entry.cluster or stem,
        )


def _picture(path: Path, choices: Choices, number: int) -> bytes:
    low, high = _window(path) if choices.window is None else choices.window
    plane = _plane(_load(path).values[:, :, number]).astype(np.float64)
    shares = np.clip((plane - low) / (high - low), 0, 1) if high > low else np.zeros_like(plane)
    return png(np.rint(255 * shares).astype(np.uint8))


def _mask(path: Any, wanted: Sequence[int], number: int) -> bytes:
    return png(_is_target(_plane(_labels(path).values[:, :, number]), wanted))


def _plane(values: NDArray[Any]) -> NDArray[Any]:
    """``(x, y)`` as a picture: rows from anterior, columns from the patient's right."""
    return values[::-1, ::-1].T


@lru_cache(maxsize=8)
def _window(path: Path) -> tuple[float, float]:
    low, high = np.percentile(_load(path).values, _PERCENTILES)
    return float(low), float(high)


@lru_cache(maxsize=1)
def _load(path: Path) -> _Volume:
    return _read(path)


@lru_cache(maxsize=1)
def _labels(path: Path) -> _Volume:
    """A volume of labels: whole numbers from 0 to 65535."""
    found = _read(path)
    values = np.rint(found.values)
    if not np.array_equal(values, found.values) or values.min() < 0 or values.max() > 65_535:
        raise DataError(
            f"{path}: holds values from {found.values.min():g} to {found.values.max():g}. Labels "
            "are whole numbers from 0, 0 being nothing. Export the labels again."
        )
    return _Volume(values.astype(np.uint16), found.affine)


def _read(path: Path) -> _Volume:
    nibabel = _nibabel(path)
    try:
        volume = nibabel.load(path)
        shape = tuple(n for n in volume.shape[3:] if n != 1)
        if len(volume.shape) < 3 or shape or np.prod(volume.shape, dtype=float) > MAX_VOXELS:
            raise DataError(
                f"{path}: a volume of {' x '.join(map(str, volume.shape))}. Three dimensions and "
                f"at most {MAX_VOXELS:,} voxels are read. Export one volume a file."
            )
        turned = nibabel.as_closest_canonical(volume)
        values = np.asarray(turned.dataobj, dtype=np.float32).reshape(turned.shape[:3])
        affine = np.asarray(turned.affine, dtype=np.float64)
    except DataError:
        raise
    except Exception as problem:  # noqa: BLE001, at this boundary: nibabel's readers raise many
        raise DataError(
            f"{path}: the volume cannot be read ({str(problem)[:160]}). A whole NIfTI file is "
            "needed. Copy the file again."
        ) from None
    if not np.isfinite(values).all():
        raise DataError(
            f"{path}: holds values that are not finite numbers. Every voxel has one. Export the "
            "volume again, with a value for the outside."
        )
    return _Volume(values, affine)


def _nibabel(path: Path) -> Any:
    try:
        import nibabel
    except ImportError:
        raise DataError(
            f"{path}: a volume, and nibabel is not installed. It reads NIfTI. {_INSTALL}"
        ) from None
    return nibabel


def _refuse_unlike(image: Path, label: Path) -> None:
    """Labels that lie elsewhere than their volume would be drawn on the wrong pixels."""
    ours, theirs = _load(image), _labels(label)
    if ours.values.shape != theirs.values.shape:
        raise DataError(
            f"{label}: labels of {' x '.join(map(str, theirs.values.shape))} voxels, their volume "
            f"{image.name} has {' x '.join(map(str, ours.values.shape))}. Both are of one size. "
            "Resample the labels to the volume."
        )
    if not np.allclose(ours.affine, theirs.affine, atol=0.1):
        raise DataError(
            f"{label}: the labels lie elsewhere than their volume {image.name}: their affines "
            "differ by more than 0.1 mm. Both have one place. Resample the labels to the volume."
        )


def _names(files: Files, choices: Choices, labels: Sequence[Path]) -> dict[int, str]:
    """What each label shows: as the user says, as `dataset.json` says, else as is asked."""
    values = sorted({value for path in labels for value in label_values(path)})
    if not values or len(values) > _MOST_LABELS:
        raise DataError(
            f"{labels[0]} and others: {len(values)} labels. From 1 to {_MOST_LABELS} are read, "
            "such as 1 for the liver. Check that these are labels."
        )
    known = _listed(files) | dict(choices.labels)
    default = choices.prompt or words_of(files.folder.resolve().name)
    return {
        value: known.get(value)
        or choices.ask(
            f"What does the label {value} show?",
            default if len(values) == 1 else f"{default} {value}",
        )
        for value in values
    }


def _listed(files: Files) -> dict[int, str]:
    """The labels of a ``dataset.json``: value -> name, or name -> value."""
    path = files.folder / "dataset.json"
    if not path.is_file():
        return {}
    try:
        said: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    labels: Mapping[Any, Any] = said.get("labels") if isinstance(said, dict) else None  # type: ignore[assignment]
    found = {}
    for key, value in labels.items() if isinstance(labels, dict) else []:
        if str(key).isdecimal() and isinstance(value, str):
            found[int(key)] = words_of(value)
        elif isinstance(value, int):
            found[value] = words_of(str(key))
    return found

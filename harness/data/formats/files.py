"""The files of a folder: which are pictures, masks and volumes, and which belong together.

Conventions: paths are relative to the folder. A *mask* is known by its name or its folders'
(``masks/``, ``labelcol/``, ``1_segmentation.png``). Two files belong together when their names are
equal without such words, and so are their folders'. A cell of a table finds its file by what is
there alone, so that none outside the folder is ever opened.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import NoReturn

from harness.errors import DataError, nearest

PICTURES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".jp2"),
    *(".ppm", ".pgm", ".pbm"),
)
VOLUMES = (".nii", ".nii.gz")
PREPARED = "prepared"
"""The folder for what is written; it is never read as a source."""

_MASK = {"mask", "masks", "label", "labels", "labelcol", "gt", "groundtruth", "ground", "truth"}
_MASK |= {"seg", "segs", "segmentation", "segmentations", "annotation", "annotations", "target"}
_MASK |= {"targets"}
_IMAGE = {"image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "input"}
_IMAGE |= {"inputs", "original", "originals", "data", "folder", "jpegimages", "png", "jpg"}
_SPLITS = {"train": "train", "training": "train", "tr": "train", "trainval": "train"}
_SPLITS |= {"val": "val", "valid": "val", "validation": "val", "dev": "val"}
_SPLITS |= {"test": "test", "testing": "test", "ts": "test", "testset": "test"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_AFTER = re.compile(
    r"[-_. ]+(?:mask|masks|label|labels|gt|groundtruth|ground_truth|seg|segmentation|annotation)"
    r"(?:[-_. ]*[0-9]+)?$",
    re.IGNORECASE,
)
_BEFORE = re.compile(r"^(?:masks?|labels?|gt|seg|segmentation)[-_. ]+", re.IGNORECASE)
_CHANNEL = re.compile(r"_0000$")
_IMAGE_WORD = re.compile(
    r"^(?:images?|imgs?|pictures?|photos?|volumes?|vol)[-_. ]+|[-_. ]+(?:image|img|volume)$"
)
_TOP = PurePosixPath()
_MOST_FILES = 2_000_000


def stem(path: PurePosixPath) -> str:
    """The name without its ending, of which ``.nii.gz`` is one."""
    name = path.name
    return name[: -len(".nii.gz")] if name.lower().endswith(".nii.gz") else path.stem


def _tokens(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def split_of(name: str) -> str | None:
    """The one split that a name speaks of, as train, val or test.

    Example:
        >>> [split_of(n) for n in ("Test_text", "instances_val2017", "Train_Val_text", "pairs")]
        ['test', 'val', None, None]
    """
    found = {_SPLITS[word] for word in _tokens(name) if word in _SPLITS}
    return found.pop() if len(found) == 1 else None


def split_name(text: str) -> str:
    """A split as a table calls it: the usual words in one form, others as they are.

    Example:
        >>> [split_name(text) for text in ("Training", "validation", "testA")]
        ['train', 'val', 'testA']
    """
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in text.strip()).lstrip(".")
    return _SPLITS.get(plain.lower(), plain[:100])


def key_of(path: PurePosixPath) -> str:
    """What a picture's name and its mask's have in common.

    Example:
        >>> names = ("mask_7.png", "7.jpg", "benign (4)_mask_1.png", "ct_01_0000.nii.gz")
        >>> [key_of(PurePosixPath(name)) for name in names]
        ['7', '7', 'benign (4)', 'ct_01']
    """
    name = stem(path)
    for pattern in (_AFTER, _BEFORE, *([_CHANNEL] if is_volume(path) else [])):
        shorter = pattern.sub("", name)
        name = shorter or name
    return _plain(name)


def _plain(name: str) -> str:
    """Letters alike, however a disk writes their accents."""
    return unicodedata.normalize("NFC", name).lower()


def _bare(path: PurePosixPath) -> str:
    key = key_of(path)
    return _IMAGE_WORD.sub("", key) or key


def is_volume(path: PurePosixPath) -> bool:
    """Whether the ending is one of NIfTI's."""
    return path.name.lower().endswith(VOLUMES)


def is_mask(path: PurePosixPath) -> bool:
    """Whether a file is a mask by its name or its folders'."""
    name = stem(path)
    return bool(_AFTER.search(name) or _BEFORE.search(name)) or any(
        _MASK & {*_tokens(part), part.lower()} for part in path.parent.parts
    )


def scope_of(path: PurePosixPath) -> tuple[str, ...]:
    """The words of a file's folders that do not say whether it is a mask."""
    words = [word for part in path.parent.parts for word in _tokens(part)]
    return tuple(word for word in words if word not in _MASK | _IMAGE)


@dataclass(frozen=True)
class Files:
    """The files below a folder, in the order of their names; links are not followed out of it."""

    folder: Path
    paths: tuple[PurePosixPath, ...]

    @cached_property
    def pictures(self) -> tuple[PurePosixPath, ...]:
        """Pictures and masks in the formats that are read."""
        return tuple(p for p in self.paths if p.name.lower().endswith(PICTURES))

    @cached_property
    def volumes(self) -> tuple[PurePosixPath, ...]:
        """NIfTI volumes."""
        return tuple(p for p in self.paths if is_volume(p))

    @cached_property
    def _known(self) -> frozenset[PurePosixPath]:
        return frozenset(self._all)

    @property
    def _all(self) -> tuple[PurePosixPath, ...]:
        return self.pictures + self.volumes

    @cached_property
    def _by_name(self) -> dict[str, list[PurePosixPath]]:
        return _grouped(self._all, lambda path: _plain(path.name))

    @cached_property
    def _by_stem(self) -> dict[str, list[PurePosixPath]]:
        return _grouped(self._all, lambda path: _plain(stem(path)))

    @cached_property
    def _by_word(self) -> dict[str, list[PurePosixPath]]:
        return _grouped(self._all, _bare)

    @cached_property
    def _by_key(self) -> dict[str, list[PurePosixPath]]:
        return _grouped(self._all, key_of)

    def path(self, relative: PurePosixPath) -> Path:
        """The path on disk."""
        return self.folder / relative

    def masks_of(self, image: PurePosixPath) -> list[PurePosixPath]:
        """The masks that belong to a picture or volume, those in equally named folders first."""
        scope = scope_of(image)
        found = [
            path
            for path in self._by_key.get(key_of(image), [])
            if is_mask(path) and is_volume(path) == is_volume(image)
        ]
        same = [path for path in found if scope_of(path) == scope]
        found = same or [path for path in found if {*scope} <= {*scope_of(path)}]
        return found or self._alike(image)

    def _alike(self, image: PurePosixPath) -> list[PurePosixPath]:
        """The one mask whose name fits but for words such as ``img``, in any folder.

        None where another picture or mask fits as well, or where their splits differ.
        """
        found = self._by_word.get(_bare(image), [])
        masks = [path for path in found if is_mask(path)]
        if len(found) != 2 or len(masks) != 1 or is_volume(masks[0]) != is_volume(image):
            return []
        splits = [split_of("/".join(path.parent.parts)) for path in found]
        return masks if splits[0] == splits[1] or None in splits else []

    def find(
        self, text: str, *, mask: bool, near: PurePosixPath = _TOP, split: str | None
    ) -> list[PurePosixPath]:
        """The files that a cell of a table may mean, the best alone where one is best.

        `text` is the cell, a path or a name, with or without its ending; `near` the folder of the
        table.
        """
        wanted = PurePosixPath(text.replace("\\", "/"))
        for exact in (near / wanted, wanted):
            if exact in self._known:
                return [exact]
        for listed in self._candidates(wanted):
            found = [path for path in listed if is_mask(path) == mask] or (
                [] if any(map(is_mask, listed)) else listed
            )
            if found:
                return _best(found, wanted, near, split)
        return []

    def _candidates(self, wanted: PurePosixPath) -> Iterator[Sequence[PurePosixPath]]:
        yield self._by_name.get(_plain(wanted.name), [])
        yield self._by_stem.get(_plain(stem(wanted)), [])
        yield self._by_stem.get(_plain(wanted.name), [])
        yield self._by_key.get(key_of(wanted), [])

    def refuse_missing(self, where: str, column: str, text: str, *, mask: bool) -> NoReturn:
        """Say that a cell names no file."""
        kind = "mask" if mask else "picture"
        known = [path for path in self._all if is_mask(path) == mask] or list(self._all)
        if not known:
            raise DataError(
                f"{where}, {column}: {text[:120]!r}, and no {kind} lies below {self.folder}. "
                f"Pictures and masks lie there, such as {kind}s/1.png. Add them."
            )
        near = nearest(text, [path.name for path in known[:20_000]])
        raise DataError(
            f"{where}, {column}: no {kind} {text[:120]!r} below {self.folder}.{near} A {kind} is "
            f"named by its file, such as {str(known[0])!r}. Add the file, or correct the name."
        )


def _grouped(
    paths: Iterable[PurePosixPath], key: Callable[[PurePosixPath], str]
) -> dict[str, list[PurePosixPath]]:
    found: dict[str, list[PurePosixPath]] = defaultdict(list)
    for path in paths:
        found[key(path)].append(path)
    return found


def _best(
    found: Sequence[PurePosixPath], wanted: PurePosixPath, near: PurePosixPath, split: str | None
) -> list[PurePosixPath]:
    """Those of the longest common end, then of the row's split, then nearest to the table."""

    def of_split(path: PurePosixPath) -> int:
        own = split_of("/".join(path.parent.parts))
        return 0 if split is None or own is None else (1 if own == split_of(split) else -1)

    ends = [_n_equal(path.parent.parts[::-1], wanted.parent.parts[::-1]) for path in found]
    ranked = [
        (end, of_split(path), _n_equal(path.parts, near.parts))
        for path, end in zip(found, ends, strict=True)
    ]
    return [path for path, rank in zip(found, ranked, strict=True) if rank == max(ranked)]


def _n_equal(first: Sequence[str], second: Sequence[str]) -> int:
    """How many parts are equal from the beginning."""
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def list_files(folder: Path) -> Files:
    """Every file below a folder that does not begin with a dot, but what is `PREPARED`.

    Raises:
        DataError: There is no such folder, or more files than any data set has.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder. A folder with pictures and masks is needed, such as "
            "data/mine with images/1.png, masks/1.png and pairs.csv. Correct the path."
        )
    root, paths = folder.resolve(), []
    for current, folders, names in os.walk(root):
        here = Path(current).relative_to(root)
        folders[:] = sorted(
            name for name in folders if name[0] != "." and (here / name) != Path(PREPARED)
        )
        for name in sorted(names):
            is_own = name[0] != "." and (Path(current) / name).resolve().is_relative_to(root)
            if is_own and (Path(current) / name).is_file():
                paths.append(PurePosixPath((here / name).as_posix()))
        if len(paths) > _MOST_FILES:
            raise DataError(
                f"{folder}: more than {_MOST_FILES:,} files. A folder of one data set is needed. "
                "Name that one."
            )
    return Files(folder, tuple(paths))

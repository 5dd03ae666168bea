"""Annotation files and images that occur more than once: across splits and across datasets.

Conventions: annotation files are the same when their bytes are, or when they hold the
same rows in any order. Images are the same when their paths are, or their files' bytes;
names alone mean nothing, because several datasets count from 1.png.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

from harness.data.checks.rows import EXAMPLES, Finding, SplitRows
from harness.errors import DataError
from harness.files import inside

_FILES = "files"

# What a row says; numbers of bookkeeping (``sent_id`` and the like) do not count.
_SAYING = ("img_name", "mask_name", "prompts")


@dataclass(frozen=True)
class AnnotationFile:
    """One annotation file of a dataset, declared on its card or not.

    `same` is equal for files with the same rows in any order, None for what holds no rows;
    `images` are the names of its images.
    """

    dataset: str
    path: Path
    sha256: str
    same: str | None
    images: frozenset[str]

    @property
    def name(self) -> str:
        """``dataset/split``."""
        return f"{self.dataset}/{self.path.stem}"


def annotation_files(dataset: str, folder: Path) -> list[AnnotationFile]:
    """The annotation files in a dataset's folder, by name."""
    return [_annotation_file(dataset, path) for path in sorted(folder.glob("anns/*.json"))]


def _annotation_file(dataset: str, path: Path) -> AnnotationFile:
    content = path.read_bytes()
    try:
        rows = [row for row in json.loads(content) if isinstance(row, dict)]
    except (ValueError, TypeError, RecursionError):
        rows = []
    said = sorted(json.dumps([row.get(key) for key in _SAYING], sort_keys=True) for row in rows)
    return AnnotationFile(
        dataset,
        path,
        sha256=hashlib.sha256(content).hexdigest(),
        same=hashlib.sha256("\n".join(said).encode()).hexdigest() if said else None,
        images=frozenset(str(row.get("img_name")) for row in rows),
    )


def identical_files(
    files: Sequence[AnnotationFile], n_rows: Mapping[str, int]
) -> Iterator[Finding]:
    """Annotation files with the same content as another one.

    `n_rows` are the rows of each file to report on, by its name.
    """
    for first, second in combinations(files, 2):
        is_same_bytes = first.sha256 == second.sha256
        if not is_same_bytes and (first.same is None or first.same != second.same):
            continue
        how = "byte for byte" if is_same_bytes else "the same rows, written otherwise"
        for here, there in ((first, second), (second, first)):
            if here.name in n_rows:
                yield Finding(
                    "identical_annotations",
                    "the file is the same as another",
                    here.dataset,
                    here.path.stem,
                    n_rows[here.name],
                    n_rows[here.name],
                    _FILES,
                    (f"{there.name}, {how}",),
                )


def shared_images(
    splits: Sequence[SplitRows],
    others: Sequence[SplitRows] = (),
    *,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Finding]:
    """Images of one dataset that stand in two of its splits.

    `others` are further ones, which are compared with `splits` and not with each other.
    """
    if not splits:
        return
    keyed = {rows.split: _images(rows, tick) for rows in (*splits, *others)}
    for first, second in (*combinations(splits, 2), *product(splits, others)):
        left, right = keyed[first.split], keyed[second.split]
        common = sorted({left[key] for key in left.keys() & right.keys()})
        yield Finding(
            "image_in_two_splits",
            "an image stands in two splits",
            first.card.name,
            f"{first.split}+{second.split}",
            len(common),
            len(set(left.values())),
            _FILES,
            tuple(map(repr, common[:EXAMPLES])),
        )


def _images(rows: SplitRows, tick: Callable[[], None]) -> dict[str, str]:
    """Name of each image by its path, and by the hash of its file where that is there."""
    names = list(dict.fromkeys(row.image_name for _, row in rows.read()))

    def digest(name: str) -> str | None:
        tick()
        try:
            path = inside(rows.images, name, where=rows.split)
        except DataError:
            return None  # the reader refuses such a row; it is no image of this set
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None

    with ThreadPoolExecutor() as pool:
        hashes = zip(names, pool.map(digest, names), strict=True)
        by_content = {found: name for name, found in hashes if found is not None}
    return {str(rows.images / name): name for name in names} | by_content


def shared_names(splits: Sequence[SplitRows], files: Sequence[AnnotationFile]) -> Iterator[Finding]:
    """Image names that other datasets use too: a name alone does not tell an image."""
    for rows in splits:
        names = {row.image_name for _, row in rows.read()}
        others: dict[str, set[str]] = {}
        for file in files:
            if file.dataset != rows.card.name:
                others.setdefault(file.dataset, set()).update(names & file.images)
        told = [f"{len(common)} in {name}" for name, common in sorted(others.items()) if common]
        yield Finding(
            "shared_name",
            "the image has the name of another set's",
            rows.card.name,
            rows.split,
            len(set().union(*others.values())),
            len(names),
            _FILES,
            tuple(told),
        )

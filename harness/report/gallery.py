"""The gallery: what the worst changes of a prompt did to a mask, next to what stayed the same.

Conventions: cases are those that the run kept (`harness.runs.kept_masks`). Of each (model, probe,
attribute) the page shows the `WORST_SHOWN` worst over all its sets and the steadiest one.
Pictures of private data sets are left out unless they are asked for; the prompts and figures
stand there in any case. Paths are those of the plan, below the data root of the run. Images are
RGB, their longer side at most `THUMBNAIL` pixels. A mask is a picture of its own, transparent
where it is empty, a light wash with a firm outline elsewhere; the page lays it over the image,
which it therefore holds only once.
"""

import io
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from harness.data.images import read_mask, with_image
from harness.data.readings import readings_of
from harness.errors import DataError
from harness.files import inside
from harness.files.writing import write_bytes
from harness.records import BY_CONTENT, Reading
from harness.report.run_data import RunData
from harness.runs.kept_masks import STEADY, WORST, Kept, mask_paths

THUMBNAIL = 192
_WASH, _LINE = 70, 255
MASK_HUES = {"truth": (255, 214, 64), "original": (64, 190, 255), "variant": (255, 120, 60)}
"""Colour of each mask: bright, since it lies on a photograph in either theme."""


def scaled_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """(width, height) with the longer side at `longest`; a smaller picture is not made larger.

    Example:
        >>> scaled_size(300, 600, 192)
        (192, 96)
    """
    scale = min(1.0, longest / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def thumbnail(
    path: Path, *, longest: int = THUMBNAIL, reading: Reading = BY_CONTENT
) -> Image.Image:
    """An image made small; without what its file says beside the pixels."""

    def small(pixels: NDArray[np.uint8]) -> Image.Image:
        size = scaled_size(pixels.shape[0], pixels.shape[1], longest)
        return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)

    return with_image(path, reading, small)


def overlay(mask: NDArray[np.bool_], size: tuple[int, int], kind: str) -> Image.Image:
    """A mask ``(H, W)`` as a picture with three colours: nothing, wash, outline.

    `size` is (width, height) of the image it lies on, `kind` one of `MASK_HUES`; the mask may have
    any resolution.
    """
    grown = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    inside = np.asarray(grown, dtype=bool)
    codes = inside.astype(np.uint8)
    core = _eroded(inside)
    # Pages show a smaller picture enlarged, and its outline with it.
    codes[inside & ~(_eroded(core) if max(size) >= THUMBNAIL else core)] = 2
    picture = Image.fromarray(codes).convert("P")
    picture.putpalette([0, 0, 0, *MASK_HUES[kind], *MASK_HUES[kind]])
    picture.info["transparency"] = bytes([0, _WASH, _LINE])
    return picture


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask without its outermost pixels; what touches the picture's edge stays."""
    padded = np.pad(mask, 1, mode="edge")
    return (
        padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        & padded[1:-1, 1:-1]
    )  # fmt: skip


def jpeg(picture: Image.Image) -> bytes:
    """A photograph as a file."""
    held = io.BytesIO()
    picture.save(held, format="JPEG", quality=82, optimize=True)
    return held.getvalue()


def png(picture: Image.Image) -> bytes:
    """A mask as a file."""
    held = io.BytesIO()
    given = picture.info.get("transparency")
    picture.save(held, format="PNG", bits=2, transparency=given)
    return held.getvalue()


def uri(content: bytes, kind: str) -> str:
    """A file as an address that needs no other file."""
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


WORST_SHOWN = 1
NONE, THUMBNAILS, FULL = "none", "thumbnails", "full"
IMAGES = (NONE, THUMBNAILS, FULL)
FULL_PX = 1024


@dataclass(frozen=True)
class Shown:
    """One case as the page shows it; `masks` is empty where no picture may be shown."""

    key: str  # of its elements on the page
    kept: Kept  # figures and keys
    title: str  # probe and attribute
    where: str  # data set, split and sample
    original_prompt: str
    prompt: str
    image: str = ""  # class of the image's style, which holds the picture
    # (kind, caption, class of the mask's style, which holds its picture).
    masks: tuple[tuple[str, str, str], ...] = ()
    missing: str = ""  # why there are no pictures, where there should be some
    ratio: float = 1.0  # width over height of the image
    files: tuple[tuple[str, str], ...] = ()  # (caption, path beside the page) of the full pictures


@dataclass(frozen=True)
class Gallery:
    """All cases of a page."""

    cases: Mapping[str, Sequence[Shown]]  # by `model_id`
    images: Mapping[str, str]  # style class -> address of the image or mask
    why_none: tuple[str, ...]  # sentences on pictures that are not shown


def chosen(kept: Sequence[Kept]) -> Iterator[Kept]:
    """The cases to show, probe by probe: the worst first, the steadiest last."""
    groups: dict[tuple[str, str], list[Kept]] = {}
    for one in kept:
        *_, probe, attribute = one.group
        groups.setdefault((probe or "", attribute or ""), []).append(one)
    for key in sorted(groups):
        ranked = sorted(groups[key], key=lambda one: one.rank)
        worst = [one for one in ranked if one.kind == WORST and one.score > 0][:WORST_SHOWN]
        ids = {one.case_id for one in worst}
        steady = [one for one in ranked if one.kind == STEADY and one.case_id not in ids][:1]
        yield from (*worst, *steady)


def gallery(
    run: RunData,
    *,
    images: str | None,
    folder: Path | None = None,
    picked: Mapping[str, Sequence[Kept]] | None = None,
    prefix: str = "",
) -> Gallery:
    """The gallery of a run.

    `images` is one of `IMAGES`; None shows thumbnails of sets that are not private. Full pictures
    are written into `folder`. `picked` are cases by `model_id`, of those that the run kept; None
    takes what `chosen` does. `prefix` stands before the names of elements and style classes, where
    a page shows two runs.
    """
    if picked is None:
        picked = {m["model_id"]: list(chosen(run.kept(m["model_id"]))) for m in run.models}
    ids = [one.case_id for cases in picked.values() for one in cases]
    texts = _plan_rows(run, ids)
    maker = _Maker(run, images, folder, prefix)
    shown = {
        model: [maker.shown(model, n, one, texts[one.case_id]) for n, one in enumerate(cases)]
        for model, cases in picked.items()
    }
    return Gallery(shown, maker.images, tuple(dict.fromkeys(maker.why_none)))


def _plan_rows(run: RunData, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    wanted = pl.Series("case_id", sorted(set(ids)), dtype=pl.UInt64)
    columns = ("case_id", "image", "prompt", "original_prompt")
    rows = run.store.plan_scan().select(columns).filter(pl.col("case_id").is_in(wanted.implode()))
    return {row["case_id"]: row for row in rows.collect(engine="streaming").iter_rows(named=True)}


class _Maker:
    """Makes the pictures of a gallery, each image once."""

    def __init__(self, run: RunData, images: str | None, folder: Path | None, prefix: str) -> None:
        self._run, self._asked, self._folder, self._prefix = run, images, folder, prefix
        self._root = Path(run.manifest.get("data_root", "."))
        self._readings = readings_of(run.manifest)
        self._no_root = (
            f"No pictures: the images lay in {self._root}, which is not here. Run this where they "
            "are, from the folder in which the run was started."
        )
        self._classes: dict[str, tuple[str, tuple[int, int]]] = {}
        self._drawn: dict[tuple[Path, str], str] = {}
        self._names: dict[str, str] = {}
        self.images: dict[str, str] = {}
        self.why_none: list[str] = []

    def shown(self, model_id: str, place: int, kept: Kept, row: Mapping[str, Any]) -> Shown:
        """One case, with pictures where they may be shown and can be."""
        dataset, split, *_, probe, attribute = kept.group
        key = f"{self._prefix}m{self._run.numbers[model_id]}-c{place}"
        texts = {
            "key": key,
            "kept": kept,
            "title": " ".join(filter(None, (probe, attribute))),
            "where": f"{dataset}/{split}, {kept.sample_id}",
            "original_prompt": row["original_prompt"],
            "prompt": row["prompt"],
        }
        if self._asked == NONE:
            return Shown(**texts)
        if self._asked is None and dataset in self._run.private_sets:
            self.why_none.append(
                f"{dataset} is marked private on its card: its pictures are left out. "
                "`--images thumbnails` shows them."
            )
            return Shown(**texts)
        if not self._root.is_dir():
            self.why_none.append(self._no_root)
            return Shown(**texts)
        try:
            return self._with_pictures(texts, model_id, kept, str(row["image"]))
        except (DataError, OSError) as problem:
            return Shown(**texts, missing=str(problem))

    def _with_pictures(self, texts: dict[str, Any], model_id: str, kept: Kept, image: str) -> Shown:
        reading = self._readings.get(kept.group[0] or "", BY_CONTENT)
        name, size = self._image(image, reading)
        variant, original, truth = mask_paths(self._run.folder, model_id, kept)
        stored = {
            "truth": ("target", truth),
            "original": (f"original prompt: Dice {kept.dice_original:.3f}", original),
            "variant": (f"changed prompt: Dice {kept.dice:.3f}", variant),
        }
        masks, files = [], []
        for kind, (caption, path) in stored.items():
            masks.append((kind, caption, self._overlay(path, size, kind)))
            if self._asked == FULL and self._folder is not None:
                files.append((caption, self._full(image, path, kind, reading)))
        ratio = size[0] / size[1]
        return Shown(**texts, image=name, masks=tuple(masks), ratio=ratio, files=tuple(files))

    def _overlay(self, path: Path, size: tuple[int, int], kind: str) -> str:
        """The class of a mask's style; targets and originals serve many cases."""
        if (path, kind) not in self._drawn:
            address = uri(png(overlay(read_mask(path), size, kind)), "png")
            name = self._names.setdefault(address, f"{self._prefix}k{len(self._names)}")
            self.images[name] = address
            self._drawn[path, kind] = name
        return self._drawn[path, kind]

    def _image(self, image: str, reading: Reading) -> tuple[str, tuple[int, int]]:
        if image not in self._classes:
            small = thumbnail(inside(self._root, image, where="plan"), reading=reading)
            name = f"{self._prefix}i{len(self._classes)}"
            self.images[name] = uri(jpeg(small), "jpeg")
            self._classes[image] = (name, small.size)
        return self._classes[image]

    def _full(self, image: str, mask: Path, kind: str, reading: Reading) -> str:
        """Write one large picture beside the page; its path from there."""
        assert self._folder is not None
        path = inside(self._root, image, where="plan")
        large = thumbnail(path, longest=FULL_PX, reading=reading)
        drawn = overlay(read_mask(mask), large.size, kind).convert("RGBA")
        name = f"{self._image(image, reading)[0]}-{mask.parent.name}-{mask.stem}-{kind}.jpg"
        large = large.convert("RGBA")
        large.alpha_composite(drawn)
        write_bytes(self._folder / name, jpeg(large.convert("RGB")))
        return f"{self._folder.name}/{name}"

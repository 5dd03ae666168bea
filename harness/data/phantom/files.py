"""Writes phantom sets as files, in the layout every other data set has.

Conventions: ``<root>/<data set>/{anns/<split>.json, images/<split>/, masks/<split>/}``
beside ``phantom.json``, which says what the folder was made from. Pictures are PNG.
A mask's name is its sample's id: ``0007-b.png`` is the second group of scene 7, and in
pairs the deciding attribute is the folder, ``size/0003-a.png``. The pairs of one
attribute are a split of their own (``anns/size.json``), with the pictures of ``test``.
Boxes are first and last column and row, ``[x0, y0, x1, y1]``, both included.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.phantom.arrangement import DATASETS, SPLITS
from harness.data.phantom.scenes import Scene, make_scene
from harness.data.phantom.vocabulary import DECIDING, RUNGS
from harness.errors import DataError, choose
from harness.prompts.grammar import PromptGrammar, load_grammar
from harness.writing import temporary_folder, write_json, write_picture, writing

# Scenes; each is one sample (solo), two (pairs), or as many as it has groups (crowd).
TEST_SCENES = {"phantom_solo": 120, "phantom_crowd": 120, "phantom_pairs": 200}
_RECORD = "phantom.json"

Sizes = Mapping[str, int]


def write_phantom(
    name: str,
    root: Path,
    *,
    sizes: Sizes | None = None,
    seed: int = 0,
    tick: Callable[[], None] | None = None,
) -> Path:
    """Write one phantom set below a data root, unless it is there already.

    The folder appears complete or not at all: it is made beside its place and renamed.

    Args:
        name: ``phantom_solo``, ``phantom_crowd`` or ``phantom_pairs``.
        root: The data root; made if it is missing.
        sizes: Number of scenes per split; None writes the released test split.
        seed: Names a family of streams; the released sets have 0.
        tick: Called after each scene, for a progress bar.

    Returns:
        The set's folder.

    Raises:
        DataError: The set or a split is unknown, a size is not positive, or the place
            holds something that this function has not made.
    """
    choose(name, DATASETS, kind="data set", where="phantom", error=DataError)
    wanted = dict({"test": TEST_SCENES[name]} if sizes is None else sizes)
    _check_sizes(wanted, where=f"phantom: {name}")
    folder = root / name
    content = {"dataset": name, "sizes": wanted, "seed": seed, "generator": _generator()}
    if _is_current(folder, content):
        return folder
    _refuse_foreign(folder)
    with temporary_folder(beside=folder) as made, writing(folder):
        for split, count in wanted.items():
            _write_split(made, name, split, count=count, seed=seed, tick=tick)
        write_json(made / _RECORD, content | {"annotations": _digests(made)})
        made.chmod(0o755)  # temporary folders are such that nobody else may read them
        _move(made, folder)
    return folder


def _check_sizes(sizes: Sizes, *, where: str) -> None:
    for split, count in sizes.items():
        choose(split, SPLITS, kind="split", where=where, error=DataError)
        if count < 1:
            raise DataError(
                f"{where}: {count} scenes for the split {split!r}. At least one is needed. "
                "Leave the split out or give it a size."
            )
    if not sizes:
        raise DataError(f"{where}: no split to write. Give at least one split with its size.")


def _generator() -> str:
    """Hash of this package's sources: what another one made is made again."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _digests(folder: Path) -> dict[str, str]:
    paths = sorted((folder / "anns").glob("*.json"))
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _is_current(folder: Path, content: Mapping[str, Any]) -> bool:
    """Whether the folder holds exactly `content`, no annotation changed, no file missing."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        digests = _digests(folder)
        if record != {**content, "annotations": digests}:
            return False
        return all(_is_complete(folder, split) for split in digests)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def _is_complete(folder: Path, split: str) -> bool:
    rows = json.loads((folder / "anns" / f"{split}.json").read_text(encoding="utf-8"))
    pictures = "test" if split in DECIDING else split
    images, masks = folder / "images" / pictures, folder / "masks" / pictures
    return all((images / r["img_name"]).is_file() for r in rows) and all(
        (masks / r["mask_name"]).is_file() for r in rows
    )


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not (folder / _RECORD).is_file():
        raise DataError(
            f"{folder}: the place is taken by something without {_RECORD!r}. Only folders that "
            "the generator made are replaced. Move it away or choose another data root."
        )


def _move(made: Path, folder: Path) -> None:
    """Put `made` in the place of `folder`, whose old content goes into `made`'s place."""
    if folder.exists():
        old = made.with_name(made.name + "-old")
        folder.rename(old)
        made.rename(folder)
        shutil.rmtree(old)
    else:
        made.rename(folder)


def _write_split(
    folder: Path,
    name: str,
    split: str,
    *,
    count: int,
    seed: int,
    tick: Callable[[], None] | None,
) -> None:
    grammar, rows = load_grammar(name), []
    for index in range(count):
        scene = make_scene(name, split, index, seed=seed)
        _save(scene.pixels, folder / "images" / split / f"{stem(scene)}.png")
        for row, mask in zip(annotations(scene, grammar), scene.masks, strict=True):
            _save(mask.astype(np.uint8) * 255, folder / "masks" / split / row["mask_name"])
            rows.append(row)
        if tick is not None:
            tick()
    _write_rows(folder, split, rows)
    if split == "test":
        for attribute in DECIDING:
            _write_rows(folder, attribute, [r for r in rows if r.get("decides") == attribute])


def _write_rows(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    """Annotations of a split; of the scenes that one attribute decides, where there are any."""
    if rows:
        write_json(folder / "anns" / f"{split}.json", rows)


def _save(values: NDArray[np.uint8], path: Path) -> None:
    write_picture(path, Image.fromarray(values), compress_level=4)


def stem(scene: Scene) -> str:
    """The scene's name within its split; pairs count for each attribute from 0."""
    if scene.decides is None:
        return f"{scene.address.index:04d}"
    return f"{scene.decides}/{scene.address.index // len(DECIDING):04d}"


def annotations(scene: Scene, grammar: PromptGrammar) -> Iterator[dict[str, Any]]:
    """One annotation row for each group: each is a target that a prompt may name.

    Args:
        scene: The scene.
        grammar: The grammar of the scene's data set, which writes the prompts.
    """
    name = stem(scene)
    for letter, values, mask in zip("abcdefgh", scene.values, scene.masks, strict=False):
        row = {
            "img_name": f"{name}.png",
            "mask_name": f"{name}-{letter}.png",
            "bbox": _box(mask),
            "modality": scene.modality,
            "attributes": values,
            "prompts": {
                rung: grammar.render(rung, {n: values[n] for n in scene.named_at(rung)})
                for rung in RUNGS
            },
        }
        yield row if scene.decides is None else row | {"decides": scene.decides}


def _box(mask: NDArray[np.bool_]) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])]

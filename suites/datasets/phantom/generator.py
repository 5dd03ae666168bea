"""Small medical-looking scenes whose every attribute is known: calibration for audits.

Three sets, generated without a picture of any patient. In `phantom_solo` an image
shows one lesion, so that language is redundant, as in most real sets. In
`phantom_crowd` it shows two to four (or, once in six scenes, a group of equal lesions
and its like) and the prompt names one. In `phantom_pairs` it shows two that differ in
one attribute alone: size, colour, shape, location or number. Each pair serves twice,
once per target, so that a mask that ignores the prompt cannot exceed a Dice of 2/3:
let it cover x pixels of one target and y of the other; its two Dice sum to at most
``2x/(2x + y) + 2y/(2y + x)``, which is largest at x = y, where it is 4/3. In the same
way no such mask exceeds a mean of ``2/(n + 1)`` over the n targets of a crowd's scene.

Conventions: 96 x 96 px, RGB uint8, as PNG; masks bool, disjoint. A scene is a pure
function of (data set, split, index, seed), the same to the last bit on every machine;
the streams of two splits share nothing. `frozen` holds the hashes that guard this. A
mask's name is its sample's id: ``0007-b.png`` is the second group of scene 7, and in
pairs the deciding attribute is the folder, ``size/0003-a.png``. The pairs of one
attribute are a split of their own (``anns/size.json``), with the pictures of ``test``.
Boxes are first and last column and row, ``[x0, y0, x1, y1]``, both included.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.cards import DatasetCard
from harness.errors import DataError, choose
from harness.prompts.grammar import PromptGrammar, load_grammar

from .arrangement import DATASETS
from .scenes import Scene, make_scene
from .vocabulary import DECIDING, RUNGS

# Scenes; each is one sample (solo), two (pairs), or as many as it has groups (crowd).
TEST_SCENES = {"phantom_solo": 120, "phantom_crowd": 120, "phantom_pairs": 200}


class Phantom:
    """Writes the phantom set that a card names; `harness.data.generators` says how it is used."""

    sizes: Mapping[str, int]

    def __init__(self, card: DatasetCard) -> None:
        self._name = choose(card.name, DATASETS, kind="data set", where="phantom", error=DataError)
        self._grammar = load_grammar(card)
        self.sizes = {"test": TEST_SCENES[self._name]}

    def write_split(
        self, folder: Path, split: str, count: int, *, seed: int, tick: Callable[[], None]
    ) -> None:
        """Write the first `count` scenes of a split's stream; the released sets have seed 0."""
        rows = []
        for index in range(count):
            scene = make_scene(self._name, split, index, seed=seed)
            _save(scene.pixels, folder / "images" / split / f"{stem(scene)}.png")
            for row, mask in zip(annotations(scene, self._grammar), scene.masks, strict=True):
                _save(mask.astype(np.uint8) * 255, folder / "masks" / split / row["mask_name"])
                rows.append(row)
            tick()
        _write_rows(folder, split, rows)
        if split == "test":
            for attribute in DECIDING:
                _write_rows(folder, attribute, [r for r in rows if r.get("decides") == attribute])


def _write_rows(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    """Annotations of a split; of the scenes that one attribute decides, where there are any."""
    if rows:
        path = folder / "anns" / f"{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _save(values: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, compress_level=4)


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

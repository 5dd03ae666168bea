"""The hash by which the generator is frozen.

Conventions: a digest covers every decoded pixel, every mask and every attribute value
of the first scenes of a stream, not the files, whose bytes depend on the version of
the PNG library. ``frozen.json`` holds the digests that the shipped models and figures
belong to. A generator that draws anything else is another one: train and measure
again, and only then write the file anew with `freeze`.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from .arrangement import DATASETS
from .generator import TEST_SCENES
from .scenes import make_scene

FROZEN = Path(__file__).with_name("frozen.json")
# Beginning of the streams that have no size of their own.
PREFIX_SCENES = 48

Digests = dict[str, dict[str, dict[str, int | str]]]


def digest(dataset: str, split: str, count: int, *, seed: int = 0) -> str:
    """SHA-256 of the first `count` scenes of a stream, as hexadecimal digits."""
    total = hashlib.sha256()
    for index in range(count):
        scene = make_scene(dataset, split, index, seed=seed)
        content = [scene.modality, scene.decides, *scene.values]
        total.update(json.dumps(content, sort_keys=True).encode())
        total.update(scene.pixels.tobytes())
        total.update(np.packbits(scene.masks).tobytes())
    return total.hexdigest()


def current() -> Digests:
    """The digests of this generator: whole test sets, and the beginning of train and val."""
    found: Digests = {}
    for dataset in DATASETS:
        sizes = {"train": PREFIX_SCENES, "val": PREFIX_SCENES, "test": TEST_SCENES[dataset]}
        found[dataset] = {
            split: {"scenes": count, "sha256": digest(dataset, split, count)}
            for split, count in sizes.items()
        }
    return found


def frozen() -> Digests:
    """The digests that the shipped models and figures belong to."""
    digests: Digests = json.loads(FROZEN.read_text(encoding="utf-8"))
    return digests


def freeze(path: Path = FROZEN) -> None:
    """Write the current digests: a new generator, to which no old figure belongs."""
    path.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")

"""One scene: its pixels, its groups, and the mask of each group.

Conventions: pixels ``(96, 96, 3)`` uint8 RGB, masks ``(G, 96, 96)`` bool, group after
group, disjoint. A scene is a pure function of (data set, split, index, seed).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, choose

from .arrangement import DATASETS, LOOKS, SPLITS, Address, arrange
from .fields import pixels, smooth
from .lesions import make_spot, mask_of
from .looks import PAINT
from .placement import Group
from .vocabulary import RUNGS


@dataclass(frozen=True)
class Scene:
    """A painted scene with its ground truth; `decides` is set for pairs only."""

    address: Address
    modality: str
    pixels: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    groups: tuple[Group, ...]
    decides: str | None = None

    @property
    def values(self) -> tuple[dict[str, str], ...]:
        """The attribute values of each group, by attribute name."""
        return tuple(group.traits.values(self.modality) for group in self.groups)

    def named_at(self, prompt_type: str) -> tuple[str, ...]:
        """The attributes that a prompt of a rung names in this scene.

        Pairs keep silent about the location unless it decides: it would tell the two
        apart whatever else the prompt says.
        """
        silent = {"location"} if self.decides not in (None, "location") else set()
        return tuple(name for name in RUNGS[prompt_type] if name not in silent)


def make_scene(dataset: str, split: str, index: int, *, seed: int = 0) -> Scene:
    """Generate one scene.

    Args:
        dataset: ``phantom_solo``, ``phantom_crowd`` or ``phantom_pairs``.
        split: ``train``, ``val`` or ``test``: streams that share nothing.
        index: Number of the scene in its stream, from 0.
        seed: Names a family of streams; the released sets have 0.

    Raises:
        DataError: The data set or the split is unknown, or a number is negative.
    """
    choose(dataset, DATASETS, kind="data set", where="phantom", error=DataError)
    choose(split, SPLITS, kind="split", where=f"phantom: {dataset}", error=DataError)
    if min(index, seed) < 0:
        raise DataError(
            f"phantom: {dataset}/{split}: scene {index} of seed {seed}. Both are counted from 0. "
            "Give numbers that are not negative."
        )
    return _painted(Address(dataset, split, index, seed))


def _painted(address: Address) -> Scene:
    arrangement = arrange(address)
    stream = address.stream(LOOKS)
    waves = smooth(stream, 12), smooth(stream, 12)
    spots = [
        [make_spot(lesion, group.traits.color, waves=waves) for lesion in group.lesions]
        for group in arrangement.groups
    ]
    colors = PAINT[arrangement.modality](stream, [spot for several in spots for spot in several])
    return Scene(
        address=address,
        modality=arrangement.modality,
        pixels=pixels(colors),
        masks=np.stack([mask_of(several) for several in spots]),
        groups=arrangement.groups,
        decides=arrangement.decides,
    )

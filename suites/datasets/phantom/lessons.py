"""What small models are trained on: many prompts of one scene, each with its mask.

Conventions: *set semantics*. A prompt may name any subset of the attributes; its mask
is the union of all groups that fit, masks ``(96, 96)`` bool. A rung of the ladder and
a free subset are equally likely, so that no attribute can be left unlearnt because
another one always gives the answer away.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrangement import PROMPTS
from .draws import Stream
from .scenes import Scene
from .vocabulary import (
    COLORS,
    COUNTS,
    DECIDING,
    LOCATIONS,
    RUNGS,
    SHAPES,
    SIZES,
    describe,
)


class Lesson(NamedTuple):
    """A prompt, the values it names by attribute, and the pixels it means."""

    text: str
    values: dict[str, str]
    mask: NDArray[np.bool_]


def meant(scene: Scene, values: Mapping[str, str]) -> NDArray[np.bool_]:
    """The union of all groups that fit every one of `values`, ``(96, 96)`` bool.

    Without any values that is every group.
    """
    fits = [all(group[name] == values[name] for name in values) for group in scene.values]
    union: NDArray[np.bool_] = scene.masks[np.array(fits)].any(axis=0)
    return union


def lessons(scene: Scene, *, count: int, absent_percent: int = 0) -> Iterator[Lesson]:
    """Prompts of a scene with their masks, the same ones at each call.

    Args:
        scene: The scene.
        count: How many prompts; the first of a longer series are those of a shorter one.
        absent_percent: Share of prompts in which one value is exchanged for another that
            nothing in the scene fits together with the rest: their mask is empty.

    Yields:
        Lessons about a group drawn anew for each; two may have the same text.
    """
    stream = scene.address.stream(PROMPTS)
    for _ in range(count):
        group = stream.choice(scene.values)
        names = _names(stream, scene)
        exchanged, tag = stream.choice(DECIDING), stream.below(100)
        values = {name: group[name] for name in names}
        if tag < absent_percent and exchanged in values:
            values = _without_a_fit(stream, scene, values, exchanged)
        yield Lesson(describe(values), values, meant(scene, values))


def _names(stream: Stream, scene: Scene) -> tuple[str, ...]:
    """P1 to P6, or the class with any attributes, at least one."""
    rungs = tuple(RUNGS)[1:]
    if stream.below(2):
        return scene.named_at(stream.choice(rungs))
    chosen = 1 + stream.below(2 ** len(DECIDING) - 1)
    return ("class", *(name for bit, name in enumerate(DECIDING) if chosen >> bit & 1))


def _without_a_fit(
    stream: Stream, scene: Scene, values: dict[str, str], attribute: str
) -> dict[str, str]:
    known = {
        "size": SIZES,
        "color": COLORS[scene.modality],
        "shape": SHAPES,
        "location": LOCATIONS,
        "number": tuple(COUNTS),
    }[attribute]
    for value in stream.shuffled(known):
        changed = values | {attribute: value}
        if not meant(scene, changed).any():
            return changed
    return values

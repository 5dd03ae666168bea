"""Where lesions may lie: inside their cell, inside the picture, apart from each other.

Conventions: lengths in px. A *group* is what a prompt names: one lesion, or several
equal ones close together. `clearance` is the distance from a point to the edge of
what a modality shows; it is negative in the black around an ultrasound fan.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .draws import Stream
from .fields import SIDE, direction
from .lesions import RADII, Lesion
from .looks import CLEARANCE
from .vocabulary import COUNTS, LOCATIONS, Traits

CELL = SIDE // 3
# Centres keep this far from the border of their cell, so that the word is beyond doubt.
_INSET_PX = 5
_EDGE_PX = 2.0
# Between lesions of different groups; the second keeps a lesion from being counted among
# the many that look like it.
_GAP_PX, _GROUP_GAP_PX = 3.0, 17.0
_TRIES = 24


@dataclass(frozen=True, slots=True)
class Group:
    """What one prompt names: its traits and its lesions."""

    traits: Traits
    lesions: tuple[Lesion, ...]


def place(stream: Stream, traits: Sequence[Traits], *, modality: str) -> list[Group] | None:
    """Give each of several groups a place; None where they found no room.

    Args:
        stream: Where places are drawn from.
        traits: What the groups are, locations included, in order of placing.
        modality: Decides what of the frame is visible.
    """
    placed: list[Group] = []
    for wanted in traits:
        group = _place_one(stream, wanted, placed, modality=modality)
        if group is None:
            return None
        placed.append(group)
    return placed


def _place_one(
    stream: Stream, traits: Traits, others: Sequence[Group], *, modality: str
) -> Group | None:
    low, high = RADII[traits.size]
    radius = stream.between(int(16 * low), int(16 * high)) / 16
    for _ in range(_TRIES):
        lesions = _candidate(stream, traits, radius)
        if all(_is_visible(lesion, modality) for lesion in lesions) and not any(
            _touch(lesion, other, _gap(traits, group.traits))
            for group in others
            for other in group.lesions
            for lesion in lesions
        ):
            return Group(traits, lesions)
    return None


def _candidate(stream: Stream, traits: Traits, radius: float) -> tuple[Lesion, ...]:
    row, column = divmod(LOCATIONS.index(traits.location), 3)
    turn = stream.below(64)
    alone = Lesion(0.0, 0.0, radius, traits.shape, turn)
    offsets = _offsets(stream, COUNTS[traits.number], alone.reach)
    reach = alone.reach + max(max(abs(x), abs(y)) for x, y in offsets) + _EDGE_PX
    x, y = (_centre(stream, cell, reach) for cell in (column, row))
    return tuple(Lesion(x + dx, y + dy, radius, traits.shape, turn) for dx, dy in offsets)


def _centre(stream: Stream, cell: int, reach: float) -> float:
    low = max(CELL * cell + _INSET_PX, reach)
    high = min(CELL * (cell + 1) - _INSET_PX, SIDE - reach)
    return stream.between(int(16 * low), max(int(16 * high), int(16 * low))) / 16


def _offsets(stream: Stream, count: int, reach: float) -> list[tuple[float, ...]]:
    """Centres of a group's lesions around its own: on a ring, just not touching."""
    if count == 1:
        return [(0.0, 0.0)]
    # The side of a regular polygon of 4 is 1.4142 of its radius.
    ring = (2 * reach + 2.0) / 1.4142
    first = stream.below(64)
    points = [direction(first + 64 * step // count) for step in range(count)]
    return [tuple(int(16 * ring * part) / 16 for part in point) for point in points]


def _is_visible(lesion: Lesion, modality: str) -> bool:
    reach = lesion.reach + _EDGE_PX
    inside = reach <= lesion.x <= SIDE - reach and reach <= lesion.y <= SIDE - reach
    return inside and CLEARANCE[modality](lesion.x, lesion.y) >= reach


def _gap(one: Traits, other: Traits) -> float:
    alike = (one.size, one.color, one.shape) == (other.size, other.color, other.shape)
    return _GROUP_GAP_PX if alike and "many" in (one.number, other.number) else _GAP_PX


def _touch(one: Lesion, other: Lesion, gap: float) -> bool:
    apart = one.reach + other.reach + gap
    dx, dy = one.x - other.x, one.y - other.y
    return dx * dx + dy * dy < apart * apart

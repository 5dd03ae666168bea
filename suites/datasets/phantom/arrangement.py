"""What stands in a scene: the groups of the three data sets, before anything is painted.

Conventions: scenes are numbered from 0 in a stream that has no end. The attributes of
a scene's leading group are *balanced* (see `draws.balanced`) within its modality;
everything else is drawn independently. The order of the groups of a crowd is random.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from .draws import Stream, balanced
from .placement import Group, place
from .vocabulary import (
    COLORS,
    DECIDING,
    LOCATIONS,
    MODALITIES,
    SHAPES,
    SIZES,
    Traits,
    opposite_cell,
    opposites,
)

Item = TypeVar("Item")

DATASETS = ("phantom_solo", "phantom_crowd", "phantom_pairs")
SPLITS = ("train", "val", "test")

# In what the first distractor of a crowd differs from the leading lesion. Location stands
# twice: it is the attribute that small models learn last.
TWINS = ("size", "color", "shape", "location", "location", "number")
# Purposes of a stream: no two of them share a key.
PLACES, LOOKS, PROMPTS, _BALANCE = range(4)


@dataclass(frozen=True, slots=True)
class Address:
    """Which scene: the numbers that its streams are named by."""

    dataset: str
    split: str
    index: int
    seed: int = 0

    def key(self, purpose: int) -> tuple[int, ...]:
        """The stream's key; distinct for distinct (purpose, dataset, split, index)."""
        return (purpose, DATASETS.index(self.dataset), SPLITS.index(self.split), self.index)

    def stream(self, purpose: int) -> Stream:
        """The stream of one purpose in this scene."""
        return Stream(self.seed, self.key(purpose))


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A scene's groups; `decides` is the attribute that alone tells a pair's two apart."""

    modality: str
    groups: tuple[Group, ...]
    decides: str | None = None


class _Series:
    """Balanced choices for one scene, counted within its data set, split and attribute."""

    def __init__(self, address: Address, index: int, *within: int) -> None:
        self._seed, self._index = address.seed, index
        place = (DATASETS.index(address.dataset), SPLITS.index(address.split))
        self._key = (_BALANCE, *place, *within)

    def pick(self, tag: int, items: Sequence[Item]) -> Item:
        """The item whose turn it is; `tag` keeps the series of two attributes apart."""
        return balanced(self._seed, (*self._key, tag), self._index, items=items)


def arrange(address: Address) -> Arrangement:
    """Decide what a scene shows: modality, traits and places of its groups."""
    return _ARRANGE[address.dataset](address)


def _opening(address: Address, index: int, *within: int) -> tuple[str, _Series]:
    """The scene's modality, and balanced series within it."""
    modality = _Series(address, index, *within).pick(0, MODALITIES)
    # Each block of three holds every modality once, so this counts scenes of one modality.
    return modality, _Series(
        address, index // len(MODALITIES), *within, 1 + MODALITIES.index(modality)
    )


def _leading(series: _Series, modality: str) -> Traits:
    return Traits(
        size=series.pick(0, SIZES),
        color=series.pick(1, COLORS[modality]),
        shape=series.pick(2, SHAPES),
        location=series.pick(3, LOCATIONS),
    )


def _solo(address: Address) -> Arrangement:
    modality, series = _opening(address, address.index)
    traits, stream = [_leading(series, modality)], address.stream(PLACES)
    return Arrangement(modality, tuple(_settled(stream, lambda: traits, modality)))


def _settled(stream: Stream, draw: Callable[[], list[Traits]], modality: str) -> list[Group]:
    """Draw traits until they find room: the leading group alone always does."""
    while True:
        groups = place(stream, draw(), modality=modality)
        if groups is not None:
            return groups


def _crowd(address: Address) -> Arrangement:
    modality, series = _opening(address, address.index)
    leading, stream = _leading(series, modality), address.stream(PLACES)
    differs = series.pick(4, TWINS)
    count = 2 + stream.below(3)
    if differs == "number":
        leading, count = replace(leading, size="small"), min(count, 3)

    def draw() -> list[Traits]:
        twin = _twin(stream, leading, differs, modality)
        others = _others(stream, [leading, twin], count - 2, modality)
        return [leading, twin, *others]

    return Arrangement(modality, tuple(stream.shuffled(_settled(stream, draw, modality))))


def _twin(stream: Stream, leading: Traits, differs: str, modality: str) -> Traits:
    """The leading lesion again, elsewhere, with one attribute changed.

    Where only the place differs, the twin stands in the opposite cell, so that the
    location's antonym names it.
    """
    if differs == "location":
        cell = opposite_cell(leading.location)
        return replace(leading, location=cell or _free_cell(stream, [leading]))
    twin = replace(leading, location=_free_cell(stream, [leading]))
    if differs == "number":
        return replace(twin, number="many")
    values = {"size": SIZES, "color": COLORS[modality], "shape": SHAPES}[differs]
    other = stream.choice([v for v in values if v != getattr(leading, differs)])
    return replace(twin, **{differs: other})


def _free_cell(stream: Stream, taken: Sequence[Traits]) -> str:
    """A cell that no group has yet: all attributes together name one group."""
    used = {traits.location for traits in taken}
    return stream.choice([cell for cell in LOCATIONS if cell not in used])


def _others(stream: Stream, taken: list[Traits], count: int, modality: str) -> list[Traits]:
    added: list[Traits] = []
    for _ in range(count):
        added.append(
            Traits(
                size=stream.choice(SIZES),
                color=stream.choice(COLORS[modality]),
                shape=stream.choice(SHAPES),
                location=_free_cell(stream, [*taken, *added]),
            )
        )
    return added


def _pairs(address: Address) -> Arrangement:
    index, which = divmod(address.index, len(DECIDING))
    decides = DECIDING[which]
    modality, series = _opening(address, index, which)
    common, stream = _leading(series, modality), address.stream(PLACES)
    if decides == "number":
        common = replace(common, size="small")
    if decides == "shape":
        common = replace(common, size=series.pick(4, SIZES[1:]))
    values = series.pick(5, opposites(decides, modality))

    def draw() -> list[Traits]:
        first = replace(common, **{decides: values[0]})
        second = replace(first, **{decides: values[1]})
        if decides != "location":
            second = replace(second, location=_free_cell(stream, [first]))
        return [first, second]

    return Arrangement(modality, tuple(_settled(stream, draw, modality)), decides)


_ARRANGE = {"phantom_solo": _solo, "phantom_crowd": _crowd, "phantom_pairs": _pairs}

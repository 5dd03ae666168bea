"""Words held against the mask they describe.

Conventions: as in `rows`; number, size and place by the rules of `harness.data.masks`.
Only the attributes that the card lists under ``from_mask`` are compared. A row counts for
an attribute when any of its prompts differs from the mask.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from harness.data.checks.rows import Defect, SplitRows
from harness.data.corrected import denies
from harness.data.images import look_at_mask
from harness.data.layout import Row
from harness.data.masks import MaskWords, describe, middle_cell
from harness.errors import DataError
from harness.files import inside

_MASKS = "masks"
_COLUMNS, _ROWS = {"left": 0, "right": 2}, {"top": 0, "bottom": 2}


@dataclass(frozen=True)
class Shown:
    """What one mask shows: its words, the grid cell of the middle of its box; how it was read."""

    words: MaskWords | None
    middle: tuple[int, int] | None
    encoding: str


def look(
    rows: SplitRows, *, tick: Callable[[], None] = lambda: None
) -> tuple[dict[int, Shown], dict[int, str]]:
    """Read the mask of every row.

    What each mask shows, by row, and why others could not be read; their folder is there.
    """

    def one(item: tuple[int, Row]) -> Shown | str:
        tick()
        try:
            inside(rows.masks, item[1].mask_name, where=f"row {item[0]}")
            mask, encoding = look_at_mask(rows.masks / item[1].mask_name, rows.card.reading)
        except DataError as problem:
            return str(problem)
        return Shown(describe(mask), middle_cell(mask) if mask.any() else None, encoding)

    listed = list(rows.read())
    with ThreadPoolExecutor() as pool:  # decoding releases the GIL
        found = dict(zip((place for place, _ in listed), pool.map(one, listed), strict=True))
    shown = {place: x for place, x in found.items() if isinstance(x, Shown)}
    return shown, {place: x for place, x in found.items() if isinstance(x, str)}


def mask_defects(shown: Mapping[int, Shown]) -> dict[str, Defect]:
    """The checks on rows whose masks are `shown`."""

    def empty(_: SplitRows) -> Mapping[int, str]:
        return {place: "nothing in the mask" for place, one in shown.items() if one.words is None}

    def named(rows: SplitRows) -> Mapping[int, str]:
        if rows.card.grammar is None:
            return {}  # sentences about what is absent are refusal cases there, and counted as such
        return _unlike(rows, shown, denied=False)

    def denied(rows: SplitRows) -> Mapping[int, str]:
        return _unlike(rows, shown, denied=True)

    defects = {
        "empty_mask": Defect("empty mask", _MASKS, empty),
        "named_in_empty_mask": Defect("a target is named, the mask is empty", _MASKS, named),
        "denied_in_mask": Defect("a target is denied, the mask shows one", _MASKS, denied),
    }
    for attribute in MaskWords._fields:
        title = f"the {attribute} contradicts the mask"
        defects[f"wrong_{attribute}"] = Defect(title, _MASKS, _comparing(attribute, shown))
    for name, axis, words in (("column", 1, _COLUMNS), ("row", 0, _ROWS)):
        title = f"one place, not the {name} of its box"
        defects[f"wrong_{name}"] = Defect(title, _MASKS, _misplaced(axis, words, shown))
    return defects


def _unlike(rows: SplitRows, shown: Mapping[int, Shown], *, denied: bool) -> dict[int, str]:
    """Rows in which a prompt that says something denies (or not) against what its mask shows."""
    found: dict[int, str] = {}
    for place, prompt in rows.prompts():
        one = shown.get(place)
        if one is None or "class" not in prompt.values or denies(prompt, rows.card) is not denied:
            continue
        if (one.words is not None) is denied:
            found.setdefault(place, repr(prompt.text))
    return found


def _said(rows: SplitRows, attribute: str) -> Iterator[tuple[int, str]]:
    if attribute in rows.card.from_mask:
        for place, prompt in rows.prompts():
            value = prompt.values.get(attribute)
            if value is not None:
                yield place, value


def _comparing(
    attribute: str, shown: Mapping[int, Shown]
) -> Callable[[SplitRows], Mapping[int, str]]:
    def compare(rows: SplitRows) -> Mapping[int, str]:
        found: dict[int, str] = {}
        for place, value in _said(rows, attribute):
            words = shown[place].words if place in shown else None
            if words is not None and value.lower() != getattr(words, attribute):
                found.setdefault(place, f"says {value!r}, shows {getattr(words, attribute)!r}")
        return found

    return compare


def _misplaced(
    axis: int, words: Mapping[str, int], shown: Mapping[int, Shown]
) -> Callable[[SplitRows], Mapping[int, str]]:
    """The reference's own count: single places whose box's middle lies in another third."""

    def compare(rows: SplitRows) -> Mapping[int, str]:
        found: dict[int, str] = {}
        for place, value in _said(rows, "location"):
            middle = shown[place].middle if place in shown else None
            if middle is None or ", " in value:
                continue
            said = next((words[w] for w in value.split() if w in words), 1)
            if said != middle[axis]:
                found.setdefault(place, f"says {value!r}")
        return found

    return compare

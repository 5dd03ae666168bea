"""Whether what a prompt says of its attributes goes together, and what changes with a value.

Conventions: a list of places names one per lesion, repeats included, so that a number
and several places must agree; one place may hold any number. "Several" and "many" agree
with any list. What a prompt names as its class is in the picture, and so is what that
class is a kind of. Places of lungs are a zone and a side each, at most two of them; zones
of one place that follow each other are one area, and more areas may lie in a place.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness.prompts.entries import SEPARATOR, number_words
from harness.prompts.lexicon import Lexicon, is_denial, like

ZONES = ("upper", "middle", "lower")
# What must change when one of these does, so that the sentence stays true to itself.
FOLLOWERS: Mapping[str, frozenset[str]] = {
    "side": frozenset({"second_side"}),
    "laterality": frozenset({"number", "second_zone", "second_side"}),
}


class Place(NamedTuple):
    """One place that a prompt names, in canonical words."""

    zone: str
    side: str


def contradiction(values: Mapping[str, str], lexicon: Lexicon) -> str | None:
    """What does not go together in a prompt's attribute values, in words; None where all does.

    Example:
        >>> from harness.prompts.lexicon import load_lexicon
        >>> contradiction({"number": "one", "location": "top, left"}, load_lexicon())
        "'one' contradicts the 2 places of 'top, left'"
    """
    return (
        _miscount(values, lexicon)
        or _denied_class(values, lexicon)
        or one_sided(values, lexicon)
        or _too_few_areas(values, lexicon)
    )


def _miscount(values: Mapping[str, str], lexicon: Lexicon) -> str | None:
    number, location = values.get("number"), values.get("location")
    if number is None or location is None:
        return None
    n_places = len(location.split(SEPARATOR))
    same = lexicon.canonical("number", number)
    counts = [n for n, word in number_words().items() if lexicon.canonical("number", word) == same]
    if n_places == 1 or not counts or n_places in counts:
        return None
    return f"{number!r} contradicts the {n_places} places of {location!r}"


def _denied_class(values: Mapping[str, str], lexicon: Lexicon) -> str | None:
    named = values.get("class")
    for attribute, value in values.items() if named is not None else ():
        for item in value.split(SEPARATOR) if attribute != "class" else ():
            # What denies every finding denies those of the class, too.
            if named and is_denial(item) and lexicon.excludes(attribute, item, named):
                return f"{item!r} contradicts {named!r}"
    return None


def one_sided(values: Mapping[str, str], lexicon: Lexicon) -> str | None:
    """How laterality and sides contradict each other, or a place stands twice; None if neither."""
    laterality, named = values.get("laterality"), places(values, lexicon)
    if len({*named}) < len(named):
        return f"'{named[0].zone} {named[0].side}' stands twice"
    sides = sorted({place.side for place in named})
    if laterality is None or not sides:
        return None
    if _is_bilateral(laterality, lexicon) == (len(sides) > 1):
        return None
    return f"{laterality!r} contradicts the side{'s' * (len(sides) - 1)} {' and '.join(sides)}"


def _too_few_areas(values: Mapping[str, str], lexicon: Lexicon) -> str | None:
    """More areas than places can be meant, fewer cannot."""
    least, number = n_areas(values, lexicon), count(values.get("number"))
    if number is None or number >= least:
        return None
    return f"{values['number']!r} contradicts the {least} areas of its places"


def places(values: Mapping[str, str], lexicon: Lexicon) -> list[Place]:
    """The places that a prompt names by zone and side.

    Example:
        >>> from harness.prompts.freetext.terms import extend
        >>> from harness.prompts.lexicon import load_lexicon
        >>> places({"zone": "midlle", "side": "left"}, extend(load_lexicon()))
        [Place(zone='middle', side='left')]
    """
    return [
        Place(
            zone=_one_of(lexicon, "zone", values[zone]), side=_one_of(lexicon, "side", values[side])
        )
        for zone, side in (("zone", "side"), ("second_zone", "second_side"))
        if zone in values and side in values
    ]


def _one_of(lexicon: Lexicon, attribute: str, value: str) -> str:
    return min(lexicon.canonical(attribute, value))


def n_areas(values: Mapping[str, str], lexicon: Lexicon) -> int:
    """How many areas the places of a prompt are: zones without a gap between them are one."""
    return sum(_runs(place.zone) for place in places(values, lexicon))


def _runs(zone: str) -> int:
    named = [word in zone.split() for word in ZONES]
    begins = [is_in and not before for before, is_in in zip([False, *named], named, strict=False)]
    return max(1, sum(begins))


def count(number: str | None) -> int | None:
    """How many a number word means; None for "many" and words that are no number."""
    if number is None:
        return None
    word = number.lower()
    return next((n for n, name in number_words().items() if word in {name, str(n)}), None)


def _is_bilateral(laterality: str, lexicon: Lexicon) -> bool:
    return lexicon.canonical("laterality", laterality) == lexicon.canonical(
        "laterality", "bilateral"
    )


def follow(
    values: Mapping[str, str], attribute: str, new: str, lexicon: Lexicon
) -> dict[str, str] | None:
    """The values of a prompt of places after a change of one, and of what follows it.

    Sides change together, which exchanges two of them. What becomes bilateral shows the same
    on the other side, what becomes unilateral keeps its first place; the number of areas
    goes with them.

    None where nothing but the one value changes.
    """
    if "side" not in values or attribute not in {"number", *FOLLOWERS}:
        return None
    after = {**values, attribute: new}
    if attribute == "side":
        after |= _other_side(values, "second_side", lexicon)
    if attribute == "laterality":
        return _relateralised(values, after, lexicon)
    return after


def _other_side(values: Mapping[str, str], name: str, lexicon: Lexicon) -> dict[str, str]:
    other = lexicon.opposite("side", values[name]) if name in values else None
    return {} if other is None else {name: other}


def _relateralised(
    values: Mapping[str, str], after: dict[str, str], lexicon: Lexicon
) -> dict[str, str]:
    named = places(values, lexicon)
    is_both = _is_bilateral(after["laterality"], lexicon)
    if is_both == (len({place.side for place in named}) > 1):
        return after  # its places are as it now says: the released sentence was not
    change = 0
    if not is_both:
        change = -_runs(named[1].zone)
        after = {k: v for k, v in after.items() if k not in {"second_zone", "second_side"}}
    elif len(named) > 1:
        after |= _other_side(values, "second_side", lexicon)
    else:
        change = _runs(named[0].zone)
        after |= {"second_zone": values["zone"], "second_side": _opposite_of(values, lexicon)}
    return after | dict(_renumbered(after, change, lexicon))


def _opposite_of(values: Mapping[str, str], lexicon: Lexicon) -> str:
    return lexicon.opposite("side", values["side"]) or values["side"]


def _renumbered(
    after: Mapping[str, str], change: int, lexicon: Lexicon
) -> Iterator[tuple[str, str]]:
    number = count(after.get("number"))
    if number is not None and change:
        right = max(number + change, n_areas(after, lexicon))
        yield "number", like(number_words()[right], after["number"])

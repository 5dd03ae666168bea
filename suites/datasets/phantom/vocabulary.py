"""The words of the phantom scenes: which values exist, and which are opposites.

Conventions: a value is one lower-case text, as it stands in a prompt. Locations are
the cells of a 3 x 3 grid in the collapsed words of the released prompts (``left``,
not ``center left``). Opposites are those of the curated lexicon, both ways, so that
its antonym of one target of a pair is byte for byte the prompt of the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.cards import PROMPT_TYPES

MODALITIES = ("endoscopy", "ultrasound", "skin")
CLASSES = {"endoscopy": "polyp", "ultrasound": "tumor", "skin": "melanoma"}
SIZES = ("small", "medium", "large")
SHAPES = ("circle", "oval", "square")
COLORS = {
    "endoscopy": ("white", "pink", "red", "black"),
    "ultrasound": ("bright", "dark"),
    "skin": ("white", "red", "brown", "black"),
}
# How many lesions a group of equal lesions has, by the word that names it.
COUNTS = {"one": 1, "many": 4}
LOCATIONS = (
    *("top left", "top", "top right"),
    *("left", "center", "right"),
    *("bottom left", "bottom", "bottom right"),
)

# Attributes that can decide alone, in the order of the stream of pairs.
DECIDING = ("size", "color", "shape", "location", "number")

OPPOSITES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "size": (("small", "large"),),
    "shape": (("circle", "square"),),
    "number": (("one", "many"),),
    "location": (
        *(("top left", "bottom right"), ("top right", "bottom left")),
        *(("top", "bottom"), ("left", "right")),
    ),
}
COLOR_OPPOSITES = {
    "endoscopy": ("white", "black"),
    "ultrasound": ("bright", "dark"),
    "skin": ("white", "black"),
}


@dataclass(frozen=True, slots=True)
class Traits:
    """What a prompt may say of a lesion, or of a group of equal lesions close together."""

    size: str
    color: str
    shape: str
    location: str
    number: str = "one"

    def values(self, modality: str) -> dict[str, str]:
        """The attributes by name, with the class word of the modality."""
        return {
            "class": CLASSES[modality],
            "shape": self.shape,
            "color": self.color,
            "size": self.size,
            "number": self.number,
            "location": self.location,
        }


# What each rung of the ladder names; the templates stand on the dataset cards.
RUNGS: Mapping[str, tuple[str, ...]] = dict(
    zip(
        PROMPT_TYPES,
        (
            (),
            ("class",),
            ("shape", "class"),
            ("color", "shape", "class"),
            ("size", "color", "shape", "class"),
            ("number", "size", "color", "shape", "class"),
            ("number", "size", "color", "shape", "class", "location"),
        ),
        strict=False,
    )
)


def opposites(attribute: str, modality: str) -> tuple[tuple[str, str], ...]:
    """Pairs of values of an attribute that are each other's opposite in a modality."""
    return (COLOR_OPPOSITES[modality],) if attribute == "color" else OPPOSITES[attribute]


def opposite_cell(location: str) -> str | None:
    """The cell mirrored through the middle of the image; None for the middle itself."""
    mirrored = LOCATIONS[len(LOCATIONS) - 1 - LOCATIONS.index(location)]
    return None if mirrored == location else mirrored


def describe(values: Mapping[str, str]) -> str:
    """The photo sets' sentence about any subset of the attributes.

    A rung's own attributes give the text of its template; the subsets in between are
    what small models are trained on.

    Example:
        >>> describe({"class": "polyp", "color": "red", "location": "top left"})
        'red polyp, located in top left of the image'
    """
    order = ("number", "size", "color", "shape", "class")
    words = " ".join(values[name] for name in order if name in values)
    place = f"located in {values['location']} of the image" if "location" in values else ""
    return ", ".join(part for part in (words, place) if part)

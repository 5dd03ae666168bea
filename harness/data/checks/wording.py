"""Defects that the words of a prompt show by themselves.

Conventions: as in `rows`. A row counts once, however many of its prompts have the
defect. The kinds are those found in the released annotations of the paper's eleven sets.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from harness.data.checks.rows import Defect, SplitRows
from harness.data.corrected import CLASS
from harness.data.masks import NUMBERS
from harness.prompts.coherence import ZONES, count, n_areas, one_sided
from harness.prompts.freetext.terms import extend, plurals_of
from harness.prompts.grammar import LEXICON
from harness.prompts.lexicon import Lexicon, load_lexicon
from harness.records import Prompt

_ANNOTATIONS = "annotations"
_MANY = 7
_SEPARATOR = ", "

# Forms that a shape word may name; what is none of them is an answer to another question
# (organs, food, "large"). Adjectives and nouns alike: "triangular", "triangle".
FORMS = frozenset(
    {
        *("round", "circle", "circular", "oval", "ovoid", "ellipse", "elliptical", "semicircle"),
        *("square", "rectangle", "rectangles", "rectangular", "triangle", "triangular", "diamond"),
        *("pentagon", "hexagon", "octagon", "star", "heart", "kidney", "teardrop", "crescent"),
        "flat",
    }
)
_CLAUSE, _ARTICLE, _SHAPED = re.compile(r"it is "), re.compile(r"an? "), re.compile(r" shaped?$")

# Released misspellings, as patterns of whole words.
MISSPELT = (r"mucuos", r"abnormailty", r"growth that often resemble\b", r"\bmidlle\b")
_TIGHT_COMMA = re.compile(r",(?=[^\W\d_])")
_MISSPELT = re.compile("|".join(MISSPELT))


def count_of(number: str) -> int:
    """How many a number word means; ``many`` and unknown words are more than all of them."""
    word = number.lower()
    return NUMBERS.index(word) if word in NUMBERS else len(NUMBERS)


def bare_form(shape: str) -> str:
    """A shape without the sentence or article around it.

    Example:
        >>> bare_form("it is a triangular shape")
        'triangular'
    """
    for dress in (_CLAUSE, _ARTICLE):
        found = dress.match(shape)
        shape = shape[found.end() :] if found else shape
    return _SHAPED.sub("", shape)


def _first(found: Iterable[tuple[int, str]]) -> dict[int, str]:
    """One remark a row: the first."""
    remarks: dict[int, str] = {}
    for place, what in found:
        remarks.setdefault(place, what)
    return remarks


def _valued(rows: SplitRows, attribute: str) -> Iterator[tuple[int, Prompt, str]]:
    for place, prompt in rows.prompts():
        value = prompt.values.get(attribute)
        if value is not None:
            yield place, prompt, value


def _several(rows: SplitRows) -> Iterator[tuple[int, Prompt, str]]:
    return ((i, p, number) for i, p, number in _valued(rows, "number") if count_of(number) > 1)


def singular_noun(rows: SplitRows) -> Mapping[int, str]:
    """Several targets, and the class word of one; areas with a place each are no targets."""
    plurals = set(rows.card.plural.values())
    english = {*plurals_of(rows.card).values(), *_lexicon().forms.plurals.values()}
    return _first(
        (place, repr(prompt.text))
        for place, prompt, _ in _several(rows)
        if CLASS in prompt.values and "zone" not in prompt.values
        if prompt.values[CLASS] not in plurals
        if prompt.template != LEXICON or prompt.values[CLASS].lower() not in english
    )


def one_size_for_several(rows: SplitRows) -> Mapping[int, str]:
    """Several targets, and one size word for all of them."""
    return _first(
        (place, repr(prompt.text))
        for place, prompt, _ in _several(rows)
        if "size" in prompt.values and _SEPARATOR not in prompt.values["size"]
        if prompt.template != LEXICON
    )


def several_sizes(rows: SplitRows) -> Mapping[int, str]:
    """A list of sizes."""
    return _first((i, repr(size)) for i, _, size in _valued(rows, "size") if _SEPARATOR in size)


def several_places(rows: SplitRows) -> Mapping[int, str]:
    """A list of places."""
    return _first((i, repr(x)) for i, _, x in _valued(rows, "location") if _SEPARATOR in x)


def repeated_places(rows: SplitRows) -> Mapping[int, str]:
    """A list that gives a place twice."""
    return _first(
        (place, repr(value))
        for place, _, value in _valued(rows, "location")
        if len(set(value.split(_SEPARATOR))) < len(value.split(_SEPARATOR))
    )


def seven_or_more(rows: SplitRows) -> Mapping[int, str]:
    """So many targets that specks of the mask were probably counted."""
    return _first(
        (place, repr(number))
        for place, prompt, number in _several(rows)
        if count_of(number) >= _MANY and prompt.template != LEXICON
    )


def shape_clauses(rows: SplitRows) -> Mapping[int, str]:
    """A whole sentence in the place of a shape."""
    return _first((i, repr(x)) for i, _, x in _valued(rows, "shape") if _CLAUSE.match(x))


def shape_articles(rows: SplitRows) -> Mapping[int, str]:
    """A shape that brings its article along: "one small pink a circle polyp"."""
    return _first((i, repr(x)) for i, _, x in _valued(rows, "shape") if _ARTICLE.match(x))


def shapeless(rows: SplitRows) -> Mapping[int, str]:
    """A shape that is no form."""
    return _first((i, repr(x)) for i, _, x in _valued(rows, "shape") if bare_form(x) not in FORMS)


def misspelt(rows: SplitRows) -> Mapping[int, str]:
    """A misspelling of the released descriptions."""
    found = ((place, _MISSPELT.search(prompt.text)) for place, prompt in rows.prompts())
    return _first((place, repr(match.group())) for place, match in found if match)


def stray_blanks(rows: SplitRows) -> Mapping[int, str]:
    """A blank at an end, or two in a row."""
    return _first(
        (place, repr(prompt.text))
        for place, prompt in rows.prompts()
        if prompt.text != " ".join(prompt.text.split(" ")).strip() or "  " in prompt.text
    )


def missing_blanks(rows: SplitRows) -> Mapping[int, str]:
    """A comma with a word right behind it."""
    return _first(
        (place, repr(prompt.text))
        for place, prompt in rows.prompts()
        if _TIGHT_COMMA.search(prompt.text)
    )


def zones_out_of_order(rows: SplitRows) -> Mapping[int, str]:
    """Zones of a lung that are not named from above."""
    return _first(
        (place, repr(value))
        for name in ("zone", "second_zone")
        for place, _, value in _valued(rows, name)
        if (named := [ZONES.index(w) for w in corrected_zone(value) if w in ZONES]) != sorted(named)
    )


def corrected_zone(value: str) -> list[str]:
    """The words of a zone, without the released slip."""
    return value.replace("midlle", "middle").split()


def uncounted_areas(rows: SplitRows) -> Mapping[int, str]:
    """A number of areas that is not that of the places named."""
    lexicon = _lexicon()
    return _first(
        (place, f"{number!r} for {n_areas(prompt.values, lexicon)}")
        for place, prompt, number in _valued(rows, "number")
        if "zone" in prompt.values and count(number) not in (None, n_areas(prompt.values, lexicon))
    )


def wrong_laterality(rows: SplitRows) -> Mapping[int, str]:
    """Bilateral with one side, unilateral with two, or a place named twice."""
    lexicon = _lexicon()
    return _first(
        (place, reason)
        for place, prompt, _ in _valued(rows, "laterality")
        if (reason := one_sided(prompt.values, lexicon)) is not None
    )


@cache
def _lexicon() -> Lexicon:
    return extend(load_lexicon())


def changing_values(rows: SplitRows) -> Mapping[int, str]:
    """One attribute that two prompts of a row say differently, apart from capitals."""
    said: dict[tuple[int, int, str], set[str]] = {}
    for place, prompt in rows.prompts():
        for attribute, value in prompt.values.items():
            if attribute != CLASS:
                said.setdefault((place, prompt.index, attribute), set()).add(value.lower())
    return _first(
        (place, f"{attribute} is {' and '.join(map(repr, sorted(values)))}")
        for (place, _, attribute), values in said.items()
        if len(values) > 1
    )


WORDING: dict[str, Defect] = {
    "singular_noun": Defect("several targets with a singular noun", _ANNOTATIONS, singular_noun),
    "one_size_for_several": Defect(
        "one size word for several targets", _ANNOTATIONS, one_size_for_several
    ),
    "several_sizes": Defect("several size words", _ANNOTATIONS, several_sizes),
    "several_places": Defect("several places", _ANNOTATIONS, several_places),
    "repeated_places": Defect("a place named twice", _ANNOTATIONS, repeated_places),
    "seven_or_more": Defect("seven targets or more: specks counted", _ANNOTATIONS, seven_or_more),
    "shape_clause": Defect("the shape is a sentence", _ANNOTATIONS, shape_clauses),
    "shape_article": Defect("the shape has an article", _ANNOTATIONS, shape_articles),
    "shape_no_form": Defect("the shape is no form", _ANNOTATIONS, shapeless),
    "misspelt": Defect("a known misspelling", _ANNOTATIONS, misspelt),
    "stray_blanks": Defect("blanks at an end or doubled", _ANNOTATIONS, stray_blanks),
    "missing_blank": Defect("no blank after a comma", _ANNOTATIONS, missing_blanks),
    "zone_order": Defect("zones out of their order", _ANNOTATIONS, zones_out_of_order),
    "uncounted_areas": Defect(
        "a number that does not fit the zones", _ANNOTATIONS, uncounted_areas
    ),
    "wrong_laterality": Defect(
        "a laterality that does not fit the sides", _ANNOTATIONS, wrong_laterality
    ),
    "changing_value": Defect("an attribute changes between rungs", _ANNOTATIONS, changing_values),
}

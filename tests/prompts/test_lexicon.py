"""The curated opposites: what they are, and laws they keep."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cards import dataset_names, load_dataset_card
from harness.errors import LexiconError
from harness.prompts.entries import DATA, FILES
from harness.prompts.lexicon import Lexicon, corrected, like, load_lexicon, plainly

CURATED = load_lexicon("curated")
# Sentences of infected areas are changed as wholes (`test_places`).
AREAS = {"qata_cov19", "mosmeddata_plus"}
CARDS = [load_dataset_card(name) for name in dataset_names() if name not in AREAS]
ATTRIBUTES = sorted({name for card in CARDS for name in card.grammar.attributes})
CLOSED = sorted(
    {
        (name, value)
        for card in CARDS
        for name, rule in card.grammar.attributes.items()
        for value in rule.values
    }
)
PLACES = ("center", "top", "bottom", "left", "right", "top left", "top right", "bottom left")
lists = st.lists(st.sampled_from([*PLACES, "bottom right"]), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("attribute", "value", "opposite"),
    [
        ("size", "small", "large"),
        ("size", "large", "small"),
        ("size", "tiny", "large"),
        ("size", "medium", None),
        ("size", "small, medium", "large"),
        ("size", "medium, small", "large"),
        ("size", "tiny, large", None),
        ("location", "left", "right"),
        ("location", "top left", "bottom right"),
        ("location", "center", None),
        ("location", "center, center", None),
        ("location", "left, right", None),
        ("location", "top, center, top", None),
        ("location", "top left, bottom", None),
        ("location", "left, top, left", "right, bottom, right"),
        ("location", "bottom right, bottom right", "top left, top left"),
        ("number", "one", "many"),
        ("number", "thirteen", "one"),
        ("number", "Two", "One"),
        ("color", "white", "black"),
        ("color", "pink", "green"),
        ("color", "grey", None),
        ("shape", "round", "square"),
        ("shape", "a circle", "a square"),
        ("shape", "an oval", "a rectangle"),
        ("shape", "a rectangle", "an oval"),
        ("shape", "it is round", "it is square"),
        ("shape", "it is a triangular shape", "it is a round shape"),
        ("shape", "it is triangular shaped", "it is round shaped"),
        ("shape", "it is a rectangle", "it is an oval"),
        ("shape", "heart shape", "square shape"),
        ("shape", "Circle", "Square"),
        ("shape", "a large, oval bump", None),
        ("shape", "hot dog", None),
        ("shape", "middle of donut", None),
        ("view", "two", "four"),
        ("view", "lateral", "frontal"),
        ("view", "three", None),
        ("cycle", "diastole", "systole"),
        ("gender", "female", "male"),
        ("age", "seventy-six", "twenty-five"),
        ("age", "eighteen", "seventy-five"),
        ("quality", "good", "poor"),
        ("quality", "medium", None),
        ("tumor_type", "Malignant", "Benign"),
        ("tumor_type", "irregular-shaped", "regular-shaped"),
        ("tumor_type", "regular", "irregular"),
        ("class", "No tumor", "Tumor"),
        ("class", "polyp", "no polyp"),
        ("class", "Myocardium", None),
        ("pathology", "Edema", None),
        ("pathology", "Edema, Fracture", None),
        ("description", "a rough wound on skin", None),
        ("texture", "rough", None),
    ],
)
def test_opposites(attribute, value, opposite):
    assert CURATED.opposite(attribute, value) == opposite


def test_every_attribute_has_an_entry():
    assert set(ATTRIBUTES) <= set(CURATED.entries)


@pytest.mark.parametrize(("attribute", "value"), CLOSED)
def test_every_closed_value_has_an_opposite_or_is_known_to_have_none(attribute, value):
    opposite = CURATED.opposite(attribute, value)

    if opposite is None:
        known = CURATED.entries[attribute].without
        assert CURATED.canonical(attribute, value) <= known
    else:
        assert CURATED.canonical(attribute, opposite) != CURATED.canonical(attribute, value)


@pytest.mark.parametrize(
    "card", [c for c in CARDS if not c.name.startswith("phantom")], ids=lambda card: card.name
)
def test_opposites_of_closed_values_stand_in_the_same_grammar(card):
    """A class's absence is no value of its own: it is a sentence of the lower rungs.

    Phantoms draw few of the values, so some opposites are not applicable there.
    """
    for attribute, rule in card.grammar.attributes.items():
        for value in [] if attribute == "class" else rule.values:
            opposite = CURATED.opposite(attribute, value)
            assert opposite is None or opposite in rule.values


PAIRS = [
    (attribute, value)
    for attribute, entries in CURATED.entries.items()
    for value, opposite in entries.opposites.items()
    if entries.opposites.get(opposite) == value
]


@pytest.mark.parametrize(("attribute", "value"), PAIRS)
def test_the_opposite_of_a_pairs_opposite_is_the_first_one(attribute, value):
    opposite = CURATED.opposite(attribute, value)

    assert opposite != value
    assert CURATED.opposite(attribute, opposite) == value


def test_most_entries_are_pairs():
    assert len(PAIRS) > 60
    assert {attribute for attribute, _ in PAIRS} == set(ATTRIBUTES) - {"pathology", "description"}


@given(lists)
def test_places_are_mirrored_one_by_one(places):
    value = ", ".join(places)

    opposite = CURATED.opposite("location", value)

    flip = {"top": "bottom", "bottom": "top", "left": "right", "right": "left", "center": "center"}
    expected = [" ".join(flip[word] for word in place.split()) for place in places]
    shared = any(
        {*a.split()} <= {*b.split()} or {*b.split()} <= {*a.split()}
        for a in places
        for b in expected
    )
    assert opposite == (None if shared else ", ".join(expected))
    if opposite is not None:
        assert CURATED.opposite("location", opposite) == value


@given(st.lists(st.sampled_from(["tiny", "small", "medium", "large"]), min_size=1, unique=True))
def test_sizes_are_opposed_as_a_whole(sizes):
    rank = {"tiny": -2, "small": -1, "medium": 0, "large": 2}
    both = {"large"} < set(sizes) and set(sizes) & {"tiny", "small"}
    total = 0 if both else sum(rank[size] for size in sizes)

    expected = "large" if total < 0 else "small" if total > 0 else None

    assert CURATED.opposite("size", ", ".join(sizes)) == expected


@given(st.sampled_from(ATTRIBUTES), st.text())
def test_any_text_has_an_opposite_or_none(attribute, value):
    opposite = CURATED.opposite(attribute, value)

    assert opposite is None or opposite != value


@pytest.mark.parametrize(
    ("attribute", "one", "other", "same"),
    [
        ("shape", "circle", "round", True),
        ("shape", "a circle", "it is a round shape", True),
        ("shape", "heart shaped", "a heart", True),
        ("shape", "x-rays", "xray", True),
        ("shape", "circle", "oval", False),
        ("shape", "a large, oval bump", "oval", False),
        ("location", "left, right", "right, left", True),
        ("location", "center, center", "center", True),
        ("location", "top left", "left", False),
        ("size", "small, medium", "medium, small", True),
        ("size", "small, medium", "small", False),
        ("color", "gray", "grey", True),
        ("tumor_type", "malignant", "irregular", True),
        ("tumor_type", "malignant", "Regular-shaped", False),
        ("class", "tumor", "tumors", True),
        ("class", "Edema", "edema", True),
        ("pathology", "Edema, Fracture", "Fracture, Edema", True),
        ("number", "One", "one", True),
        ("texture", "Rough", "rough", True),
    ],
)
def test_words_for_the_same_are_equal(attribute, one, other, same):
    assert (CURATED.canonical(attribute, one) == CURATED.canonical(attribute, other)) is same


def test_the_hash_is_of_the_data_and_the_name():
    again = load_lexicon("curated")

    assert re.fullmatch("[0-9a-f]{64}", again.sha256)
    assert (again.sha256, again.source) == (CURATED.sha256, "curated")


def test_an_unknown_lexicon_is_answered_with_the_nearest():
    message = (
        "lexicon: unknown lexicon 'curatd'. Did you mean 'curated'? Known lexicons: 'curated', "
        "'curated+wordnet@3.0'."
    )
    with pytest.raises(LexiconError, match="^" + re.escape(message) + "$"):
        load_lexicon("curatd")


class Thesaurus:
    """Knows one word, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def antonym(self, word):
        self.asked.append(word)
        return "even"

    def synonyms(self, word):
        self.asked.append(word)
        return ("craggy", "jagged")


def with_thesaurus(thesaurus):
    ours = CURATED
    return Lexicon("test", "", ours.entries, ours.forms, ours.strangers, (), frozenset(), thesaurus)


@pytest.mark.parametrize(("value", "expected"), [("rugged", "even"), ("Rugged", "Even")])
def test_another_source_is_asked_for_single_words_without_an_entry(value, expected):
    thesaurus = Thesaurus()

    assert with_thesaurus(thesaurus).opposite("shape", value) == expected
    assert thesaurus.asked == ["rugged"]


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("location", "center"), ("size", "medium"), ("shape", "hot dog"), ("class", "Myocardium")],
)
def test_no_other_source_is_asked_where_there_is_no_opposite(attribute, value):
    thesaurus = Thesaurus()

    assert with_thesaurus(thesaurus).opposite(attribute, value) is None
    assert thesaurus.asked == []


def test_another_source_is_asked_for_synonyms_of_words_without_an_entry():
    thesaurus = Thesaurus()
    lexicon = with_thesaurus(thesaurus)

    assert lexicon.synonyms("shape", "Rugged") == ("Craggy", "Jagged")
    assert lexicon.synonyms("shape", "hot dog") == ()
    assert lexicon.synonyms("shape", "round") == ("circular",)
    assert thesaurus.asked == ["rugged"]


@pytest.mark.parametrize(
    ("attribute", "value", "synonyms"),
    [
        ("size", "small", ["little"]),
        ("size", "small, medium", ["little, medium-sized"]),
        ("location", "top left, center", ["upper left, middle"]),
        ("number", "One", ["Single", "1"]),
        ("number", "thirteen", ["13"]),
        ("color", "grey", ["gray-colored"]),
        ("color", "purple", ["violet", "purple-colored"]),
        ("shape", "circle", ["round", "circular"]),
        ("shape", "a circle", ["a disc", "round", "circular"]),
        ("shape", "it is round", ["it is circular"]),
        ("shape", "it is a round shape", ["it is a circular shape"]),
        ("shape", "it is triangular shaped", ["it is triangle shaped"]),
        ("shape", "heart shape", ["heart-shaped"]),
        ("shape", "a kidney", ["kidney-shaped"]),
        ("shape", "middle of ear", []),
        ("view", "four", ["4"]),
        ("view", "lateral", ["side"]),
        ("cycle", "systole", ["systolic"]),
        ("gender", "female", ["woman"]),
        ("age", "seventy-six", ["76"]),
        ("quality", "good", ["high"]),
        ("tumor_type", "Malignant", ["Cancerous"]),
        ("class", "Left atrium cavity", ["Cavity of the left atrium"]),
        ("class", "Pleural Effusion", ["Pleural Fluid"]),
        ("class", "tumors", ["neoplasms"]),
        ("class", "no polyp", []),
        ("pathology", "Edema, No Finding", ["Pulmonary Edema, No Finding"]),
        ("description", "an abnormailty in foot and toes", ["an anomaly in foot and toes"]),
        ("texture", "rough", []),
    ],
)
def test_synonyms(attribute, value, synonyms):
    found = CURATED.synonyms(attribute, value)

    assert list(found) == synonyms
    assert all(
        CURATED.canonical(attribute, said) == CURATED.canonical(attribute, value) for said in found
    )


def test_where_a_noun_must_stand_a_noun_is_said():
    assert CURATED.synonyms("shape", "round", noun=True) == ("circle", "disc")
    assert CURATED.synonyms("shape", "square", noun=True) == ()


def test_every_attribute_has_synonyms():
    """Of the fourteen, all that prompts really hold."""
    assert {name for name, entries in CURATED.entries.items() if entries.said} == set(ATTRIBUTES)


@pytest.mark.parametrize(
    ("value", "model", "expected"),
    [
        ("small", "Large", "Small"),
        ("small", "large", "small"),
        ("pleural fluid", "Pleural Effusion", "Pleural Fluid"),
        ("cavity of the left atrium", "Left atrium cavity", "Cavity of the left atrium"),
        ("fluid of the lung", "Pleural Effusion", "Fluid of the Lung"),
        ("2", "Two", "2"),
        ("", "Two", ""),
    ],
)
def test_capitals_follow_the_model(value, model, expected):
    assert like(value, model) == expected


def test_texts_are_compared_in_american_english_without_slips():
    assert corrected("a grey centre of a mucuos membrane") == "a gray center of a mucous membrane"
    assert corrected("xray, abnormailty, mushroom like") == "x-ray, abnormality, mushroom-like"
    assert plainly("The Middle of an ear") == "middle of ear"
    assert CURATED.plain("shape", "it is a round shape") == "round"
    assert CURATED.plain("color", "a circle") == "a circle"


def test_plurals_both_ways():
    assert (CURATED.plural("Polyp"), CURATED.singular("Tumors")) == ("Polyps", "Tumor")
    assert (CURATED.plural("polyps"), CURATED.singular("polyp")) == (None, None)


def test_the_hash_is_that_of_every_file():
    import hashlib

    digest = hashlib.sha256(b"curated")
    for name in FILES:
        digest.update((DATA / name).read_bytes())

    assert CURATED.sha256 == digest.hexdigest()


@pytest.mark.parametrize(
    ("attribute", "one", "other", "excludes"),
    [
        ("size", "small", "large", True),
        ("size", "small, medium", "medium", False),
        ("location", "left", "top left", False),
        ("location", "top left", "top right", True),
        ("location", "center", "middle", False),
        ("number", "one", "many", True),
        ("number", "twenty", "twenty-one", True),
        ("number", "several", "ten", False),
        ("number", "2", "two", False),
        ("color", "pink", "light pink", False),
        ("color", "tan", "brown", False),
        ("color", "dark", "black", False),
        ("color", "dark", "bright", True),
        ("shape", "it is round", "a triangle", True),
        ("shape", "smooth", "round", False),
        ("shape", "vertical", "horizontal", True),
        ("class", "no polyp", "polyp", True),
        ("class", "no polyp", "no tumor", False),
        ("class", "melanoma", "tumor", False),
        ("class", "Edema", "Airspace Opacity", False),
        ("pathology", "No Finding", "Edema", True),
        ("pathology", "No Finding", "Support Devices", False),
        ("tumor_type", "benign", "irregular", True),
    ],
)
def test_values_exclude_each_other_both_ways_or_not_at_all(attribute, one, other, excludes):
    assert CURATED.excludes(attribute, one, other) is excludes
    assert CURATED.excludes(attribute, other, one) is excludes


@pytest.mark.parametrize(("attribute", "value"), CLOSED)
def test_nothing_excludes_itself_and_every_opposite_excludes(attribute, value):
    opposite = CURATED.opposite(attribute, value)

    assert not CURATED.excludes(attribute, value, value)
    assert CURATED.implies(attribute, value, value)
    assert opposite is None or CURATED.excludes(attribute, value, opposite)

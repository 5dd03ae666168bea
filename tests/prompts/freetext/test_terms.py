"""The further words of the lexicon."""

import pytest

from harness.cards import load_dataset_card
from harness.prompts.freetext.terms import ATTRIBUTES, extend, suit, vocabulary
from harness.prompts.lexicon import load_lexicon

CURATED = load_lexicon("curated")
MORE = extend(CURATED)


@pytest.mark.parametrize("name", ["kvasir_polyp", "busi", "camus", "chexlocalize", "phantom_pairs"])
def test_released_sets_keep_the_curated_lexicon(name):
    """Plans that were pinned hold its hash."""
    assert suit(CURATED, load_dataset_card(name)) is CURATED


def test_sets_with_places_and_free_text_have_another_hash():
    assert suit(CURATED, load_dataset_card("qata_cov19")).sha256 == MORE.sha256 != CURATED.sha256


@pytest.mark.parametrize(
    ("attribute", "value", "opposite"),
    [
        ("location", "Upper left", "Lower right"),
        ("location", "superior", "inferior"),
        ("size", "little", "large"),
        ("size", "very large", "small"),
        ("color", "dark red", "dark green"),
        ("color", "bright gray", None),
        ("number", "2", "1"),
        ("number", "single", "multiple"),
        ("age", "65", "25"),
        ("side", "left", "right"),
        ("laterality", "Unilateral", "Bilateral"),
        ("zone", "upper midlle", "middle lower"),
        ("second_zone", "lower", "upper"),
        ("zone", "all", None),
    ],
)
def test_opposites(attribute, value, opposite):
    assert MORE.opposite(attribute, value) == opposite


def test_opposites_of_the_curated_files_are_as_before():
    for name, entries in CURATED.entries.items():
        for value in entries.opposites:
            assert MORE.opposite(name, value) == CURATED.opposite(name, value), (name, value)


def test_every_word_is_looked_for_in_lower_case_and_once():
    for name in ATTRIBUTES:
        words = vocabulary({}).values[name]
        assert words == tuple(dict.fromkeys(words))
        assert all(word == word.lower().strip() for word in words)

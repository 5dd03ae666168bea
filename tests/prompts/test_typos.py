"""A typo is one slip of the keyboard, by the definition of edit distance."""

import nltk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.prompts.typos import NEIGHBOURS, is_near, keeps_distance, typos_of

words = st.text(alphabet="abcde", max_size=7)
spelt = st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=4, max_size=9)


def distance(one, other):
    """Insertions, deletions, substitutions and swaps of neighbours."""
    return nltk.edit_distance(one, other, transpositions=True)


@given(words, words)
def test_near_is_a_distance_of_one_at_most(one, other):
    assert is_near(one, other) == (distance(one, other) <= 1)


@given(spelt)
def test_a_typo_is_one_slip_that_spares_the_first_letter(word):
    typos = typos_of(word)

    assert typos
    assert list(typos) == sorted(set(typos))
    assert all(distance(word, typo) == 1 and typo[0] == word[0] for typo in typos)


def test_all_four_slips_are_made():
    typos = set(typos_of("round"))

    assert {"rpund", "roumd", "rounf"} <= typos  # a key beside
    assert {"ruond", "ronud", "roudn"} <= typos  # a swap
    assert {"rund", "rond", "roun"} <= typos  # a drop
    assert {"roound", "roundd"} <= typos  # a double
    assert "qound" not in typos
    assert "roudd" not in typos  # d is no neighbour of n


def test_capitals_stay_capitals():
    assert all(typo[1:].isupper() for typo in typos_of("EDEMA") if len(typo) > 1)


@pytest.mark.parametrize("word", ["", "a", "two", "top"])
def test_short_words_are_spared(word):
    assert typos_of(word) == ()


def test_keys_touch_each_other():
    """Both ways, as on a QWERTY keyboard."""
    assert all(key in NEIGHBOURS[other] for key, others in NEIGHBOURS.items() for other in others)
    assert set(NEIGHBOURS["g"]) == {"t", "y", "f", "h", "v", "b"}
    assert set(NEIGHBOURS["p"]) == {"o", "l"}


@pytest.mark.parametrize(
    ("text", "others", "kept"),
    [("smal", ["large", "tiny"], True), ("lef", ["left", "let"], False), ("felt", ["left"], True)],
)
def test_distance_is_kept_from_every_other_value(text, others, kept):
    assert keeps_distance(text, others) is kept

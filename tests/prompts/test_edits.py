"""Edits lead there and back, in any order, and are refused where they do not fit."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import PromptError
from harness.prompts.edits import (
    apply_edits,
    are_apart,
    begin_like,
    in_order,
    invert_edits,
    lowered,
)
from harness.records import Edit

cuts = st.lists(st.integers(0, 12), unique=True, max_size=6).map(sorted)


@given(
    st.text(min_size=12, max_size=12), cuts, st.lists(st.text(max_size=3), min_size=3), st.randoms()
)
def test_edits_are_undone_by_their_inverse_in_any_order(text, places, new, random):
    pairs = zip(places[::2], places[1::2], strict=False)
    edits = [Edit(a, b, text[a:b], n) for (a, b), n in zip(pairs, new, strict=False)]
    expected = "".join(by_hand(text, edits))
    random.shuffle(edits)

    changed = apply_edits(text, edits)

    assert changed == expected
    assert apply_edits(changed, invert_edits(edits)) == text
    assert are_apart(edits)
    assert list(in_order(edits)) == sorted(edits, key=lambda e: e.start)


def by_hand(text, edits):
    """Slow definition: character by character."""
    for position, character in enumerate(text):
        inside = [edit for edit in edits if edit.start <= position < edit.end]
        if not inside:
            yield character
        elif inside[0].start == position:
            yield inside[0].new


@pytest.mark.parametrize(
    ("edits", "apart"),
    [
        ([], True),
        ([(0, 3)], True),
        ([(3, 5), (0, 3)], True),
        ([(0, 3), (2, 4)], False),
        ([(0, 5), (1, 2)], False),
        ([(2, 2), (2, 2)], False),
        ([(2, 2), (2, 4)], True),
        ([(0, 4), (2, 2)], False),
    ],
)
def test_edits_stand_apart_or_not(edits, apart):
    assert are_apart([Edit(a, b, "x" * (b - a), "y") for a, b in edits]) is apart


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (
            [Edit(0, 5, "small", "tiny"), Edit(3, 7, "ll p", "x")],
            "edit 'll p' -> 'x': starts at character 3, inside the edit before it, which ends at "
            "5. Edits may not overlap. Join the two.",
        ),
        (
            [Edit(0, 5, "large", "tiny")],
            "edit 'large' -> 'tiny': characters 0 to 5 are 'small'. They must be what the edit "
            "replaces. Apply the edit to its own original.",
        ),
    ],
)
def test_edits_that_do_not_fit_are_refused(edits, message):
    with pytest.raises(PromptError, match="^" + re.escape(message) + "$"):
        apply_edits("small polyp", edits)


@pytest.mark.parametrize(
    ("words", "inside"),
    [
        ("Left ventricular cavity", "left ventricular cavity"),
        ("Airspace Opacity", "Airspace Opacity"),
        ("LV", "LV"),
        ("small", "small"),
        ("", ""),
    ],
)
def test_words_inside_a_sentence(words, inside):
    assert lowered(words) == inside


@given(st.text(), st.text())
def test_a_text_begins_like_its_model(text, model):
    found = begin_like(text, model)

    assert found[1:] == text[1:] or text[:1].upper() != found[:1][0]
    if not model[:1].isupper():
        assert found == text

"""Attribute values in free text."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.prompts.freetext.finding import SpanFinder
from harness.prompts.freetext.terms import ATTRIBUTES, vocabulary

FINDER = SpanFinder(vocabulary({"glottis": "glottises"}))


def values(text):
    return {span.attribute: span.value for span in FINDER.find(text).spans}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Two small nodules in the left lung", "number=Two size=small class=nodules side=left"),
        ("a big, greyish tumour", "size=big color=greyish class=tumour"),
        ("small, medium polyps", "size=small, medium class=polyps"),
        ("polyps at top left, center", "class=polyps location=top left, center"),
        ("a mass on the right", "class=mass location=right"),
        ("GLOTTIS of a 65-year-old woman", "class=GLOTTIS age=65 gender=woman"),
        ("a woman aged sixty, frontal view", "gender=woman age=sixty view=frontal"),
        ("four-chamber view of medium image quality", "view=four quality=medium"),
        ("an oval-shaped mass", "shape=oval class=mass"),
        ("a kidney-shaped mass", "shape=kidney class=mass"),
        ("a left-sided mass", "side=left class=mass"),
        ("dark red lesion", "color=dark red class=lesion"),
        ("the upper  left lobe", "location=upper  left"),
        ("bilateral opacities", "laterality=bilateral class=opacities"),
        ("the one on the left side.", "location=left side"),
    ],
)  # fmt: skip
def test_what_is_found(text, found):
    assert " ".join(f"{k}={v}" for k, v in values(text).items()) == found


@pytest.mark.parametrize(
    "text",
    [
        *("a blackberry", "smallish", "infrared", "leftover food", "topical cream's use"),
        *("one-third", "a T2 scan", "5 mm", "2.5", "grade 3", "version 1/2", "non-white"),
        *("the medium quality", "lateral wall", "x-ray", "well-rounded", "small-cell", ""),
    ],
)
def test_nothing_is_found_inside_other_words_or_measurements(text):
    assert values(text).keys() <= {"quality"}


def test_the_longest_wins_over_what_is_in_it():
    assert values("the top left") == {"location": "top left"}
    assert values("very small") == {"size": "very small"}
    assert values("a polyp which is a small lump in the lining of colon") == {
        "class": "polyp",
        "description": "a small lump in the lining of colon",
    }
    assert values("a kidney stone in the kidney") == {"class": "kidney stone"}


def test_the_first_mention_is_the_span_and_others_are_kept():
    found = FINDER.find("small polyp beside a large polyp")

    assert [(s.attribute, s.value) for s in found.spans] == [("size", "small"), ("class", "polyp")]
    assert [(s.attribute, s.value) for s in found.further] == [
        ("size", "large"),
        ("class", "polyp"),
    ]


def test_of_two_nouns_the_second_is_the_class():
    assert values("lung nodule") == {"class": "nodule"}


WORDS = st.sampled_from(
    ["small", "İ", "left", "two", "-", ",", " ", "polyp", "top left", "é", "{", "-shaped", "oval"]
)


@given(st.lists(WORDS | st.text(max_size=3), max_size=12).map("".join))
def test_spans_hold_what_stands_there_and_never_overlap(text):
    found = FINDER.find(text)
    spans = sorted((*found.spans, *found.further), key=lambda s: s.start)

    assert all(text[s.start : s.end] == s.value != "" for s in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    names = [s.attribute for s in found.spans]
    assert len(set(names)) == len(names)
    assert {*names} <= {*ATTRIBUTES}


@given(st.lists(WORDS | st.text(max_size=3), max_size=12).map("".join))
def test_no_span_begins_or_ends_inside_a_word(text):
    for span in FINDER.find(text).spans:
        assert not (text[: span.start][-1:].isalnum() and span.value[0].isalnum())
        assert not (text[span.end :][:1].isalnum() and span.value[-1].isalnum())

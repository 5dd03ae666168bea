"""Values are taken apart and put together again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.prompts.dressing import (
    article_of,
    undress,
    with_right_articles,
    without_articles,
)


@pytest.mark.parametrize(
    ("value", "head"),
    [
        ("round", "round"),
        ("a circle", "circle"),
        ("an oval", "oval"),
        ("it is round", "round"),
        ("it is a round shape", "round"),
        ("heart shaped", "heart"),
        ("heart-shaped", "heart"),
        ("x shape", "x"),
        ("a large, oval bump", "large, oval bump"),
        ("middle of the ear", "middle of the ear"),
        ("another", "another"),
    ],
)
def test_heads(value, head):
    assert undress(value).head == head


@given(st.text())
def test_any_value_is_its_parts(value):
    parts = undress(value)

    assert parts.before + parts.head + parts.after == value
    assert parts.before.endswith(parts.article)


@pytest.mark.parametrize(
    ("value", "head", "expected"),
    [
        ("a circle", "oval", "an oval"),
        ("an oval", "circle", "a circle"),
        ("it is a circle", "ellipse", "it is an ellipse"),
        ("it is round", "oval", "it is oval"),
        ("round shape", "oval", "oval shape"),
    ],
)
def test_another_head_takes_the_article_it_needs(value, head, expected):
    assert undress(value).with_head(head) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a oval polyp", "an oval polyp"),
        ("an circle and an one-chamber view", "a circle and a one-chamber view"),
        ("of a 88-year-old, a 8-year-old", "of an 88-year-old, an 8-year-old"),
        ("a 18-year-old, a 11-year-old", "an 18-year-old, an 11-year-old"),
        ("an 80 and a 180, an 110", "an 80 and a 180, a 110"),
        ("a hour, a x-ray, an uterine spot", "an hour, an x-ray, a uterine spot"),
        ("a ulcer, a uninteresting spot", "an ulcer, an uninteresting spot"),
        ("hepatitis A infection. A apple", "hepatitis A infection. An apple"),
        ("of a eighty-four-year-old male", "of an eighty-four-year-old male"),
        ("A upright bump", "An upright bump"),
        ("a one-chamber view", "a one-chamber view"),
        ("a uniform spot", "a uniform spot"),
        ("a small oval", "a small oval"),
        ("extra oval", "extra oval"),
    ],
)
def test_articles_are_put_right_before_vowels(text, expected):
    assert with_right_articles(text) == expected


def test_articles_are_taken_out():
    assert without_articles("the middle of an ear, a bump") == "middle of ear, bump"
    assert (article_of("oval"), article_of("disc"), article_of("")) == ("an ", "a ", "a ")

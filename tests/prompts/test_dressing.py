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

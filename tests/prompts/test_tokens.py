"""Words stand where a reader sees them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.prompts.tokens import chunk_places, word_places


@given(st.text(alphabet=st.sampled_from(" \t\n\x1c\x85\u2003\u200bab-,.1é"), max_size=20))
def test_chunks_are_what_stands_between_blanks(text):
    assert [text[a:b] for a, b in chunk_places(text)] == text.split()


@given(st.text(alphabet=st.sampled_from(" -,.1_aBcé"), max_size=20))
def test_words_are_runs_of_letters(text):
    assert [text[a:b] for a, b in word_places(text)] == re.findall(r"[^\W\d_]+", text)


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_blank_texts_have_no_words(text):
    assert (chunk_places(text), word_places(text)) == ((), ())

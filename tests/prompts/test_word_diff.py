"""Word diffs are edits like all others: they lead there, and back."""

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from harness.prompts.perturbations import apply_edits, invert_edits
from harness.prompts.word_diff import word_edits

words = st.sampled_from(["one", "small", "polyp", "top-left", ",", ".", "  ", " ", "\n", "é"])
texts = st.lists(words, max_size=12).map("".join) | st.text(max_size=30)


@given(texts, texts)
def test_a_diff_leads_from_one_text_to_the_other_and_back(original, text):
    edits = word_edits(original, text)
    assert apply_edits(original, edits) == text
    assert apply_edits(text, invert_edits(edits)) == original


@given(texts)
def test_equal_texts_have_no_edit(text):
    assert word_edits(text, text) == ()


@given(texts, texts)
def test_edits_are_whole_words_apart_from_each_other(original, text):
    edits = word_edits(original, text)
    for edit in edits:
        assert edit.old != edit.new
        for position in (edit.start, edit.end):
            around = original[max(position - 1, 0) : position + 1]
            assert position in (0, len(original)) or not re.fullmatch(r"\w{2}", around)
    for before, after in pairwise(edits):
        between = original[before.end : after.start]
        assert between
        assert not between.isspace()


def test_neighbouring_changes_are_one_edit():
    (edit,) = word_edits("one small pink polyp", "one large red polyp")
    assert (edit.start, edit.end, edit.old, edit.new) == (4, 14, "small pink", "large red")


def test_changes_with_a_word_between_them_are_two():
    edits = word_edits("one small polyp, located in top", "one large polyp, located in bottom")
    assert [(e.old, e.new) for e in edits] == [("small", "large"), ("top", "bottom")]

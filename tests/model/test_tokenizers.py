"""CLIP's tokenizer without a hub."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from harness.model.tokenizers import ClipTokenizer
from harness.prompts.words import uncommon_words

PUBLISHED = ClipTokenizer(context_length=77)
OPEN_CLIP = SimpleTokenizer()
words = st.text(alphabet=st.characters(codec="utf-8"), max_size=40)


def check_against_open_clip(texts):
    """Equal to open_clip's own ids, but for the padding, which is end-of-text."""
    ids, mask = PUBLISHED(texts)
    theirs = OPEN_CLIP(texts)
    assert torch.equal(ids * mask, theirs * mask)
    assert (theirs[mask == 0] == 0).all()
    assert (ids[mask == 0] == PUBLISHED.end).all()


@given(st.lists(words, min_size=1, max_size=3))
def test_ids_are_open_clips_and_padding_is_end_of_text(texts):
    check_against_open_clip(texts)


@pytest.mark.slow
def test_ids_of_real_prompts(shared_data):
    """Every distinct prompt of annotation files of the reference."""
    texts = set()
    for file in shared_data.glob("*/anns/*.json"):
        for row in json.loads(file.read_text(encoding="utf-8")):
            for prompt in row["prompts"].values():
                texts.update([prompt] if isinstance(prompt, str) else prompt)
    assert len(texts) > 10_000
    check_against_open_clip(sorted(texts))


def test_long_texts_keep_start_and_end():
    texts = ["", "red", "red " * 90, "red " * 75]
    ids, mask = PUBLISHED(texts)
    assert mask.sum(1).tolist() == [2, 3, 77, 77]
    assert ids[:, 0].tolist() == [PUBLISHED.start] * 4
    assert ids[2, -1] == PUBLISHED.end
    assert ids[2, -2] == ids[2, 1]
    assert PUBLISHED.count(texts) == ((2, 3, 92, 77), (False, False, True, False))


@given(words)
def test_a_smaller_vocabulary_folds_the_ids(text):
    small = ClipTokenizer(context_length=16, vocabulary_size=512)
    ids, mask = small([text])
    full, _ = PUBLISHED([text])
    length = int(mask.sum()) - 2
    assert int(ids.max()) <= 511
    assert ids[0, 1 : length + 1].tolist() == [n % 510 for n in full[0, 1 : length + 1].tolist()]
    assert int(ids.argmax(dim=1)) == length + 1


def test_every_uncommon_word_has_tokens_of_its_own():
    """No word is unknown: an id for each, and different words differ."""
    ids, mask = PUBLISHED(list(uncommon_words()))
    assert int(mask.sum(1).min()) >= 3
    assert len({tuple(row) for row in ids.tolist()}) == len(uncommon_words())

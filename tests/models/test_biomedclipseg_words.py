"""BERT's WordPiece, with a real vocabulary or the stand-in for it."""

import hashlib
import importlib
import json
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizer

from harness.errors import CardError, ModelError
from harness.model.loading import load_model
from harness.prompts.words import draw_words

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SMALL = [*SPECIAL, "polyp", "one", "##s", "red", "p", "##o", ",", "uber"]
TEXTS = ["one red polyps, ÜBER one", "", "nevus", "red " * 40, "a [SEP] b [PAD] polyp"]


def write_card(folder, extra="", **settings):
    path = folder / "card.yaml"
    lines = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in settings.items())
    path.write_text(f"extends: biomedclipseg-small\nname: tiny\n{extra}settings:\n{lines}")
    return path


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """The model with the stand-in vocabulary, every piece with a row of its own."""
    card = write_card(tmp_path_factory.mktemp("words"), context_length=24)
    return load_model(card, random_weights=True).raw


@pytest.fixture(scope="module")
def words():
    """The module about words, which BiomedCLIPSeg and MedCLIPSeg share."""
    return importlib.import_module("harness.model.wordpiece")


@pytest.fixture(scope="module")
def vocabulary(words):
    return words.stand_in(30522)


@pytest.fixture(scope="module")
def transformers_tokenizer(vocabulary):
    return BertTokenizer(vocab=dict(vocabulary))


def test_the_stand_in_is_the_same_everywhere(vocabulary):
    """Small models are trained with it: another order would be another language."""
    pieces = list(vocabulary)
    digest = hashlib.sha256("\n".join(pieces).encode()).hexdigest()

    assert list(vocabulary.values()) == list(range(30522))
    assert pieces[:5] == SPECIAL
    assert digest == STAND_IN_SHA256


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80))
def test_no_ascii_text_holds_an_unknown_token(stand_in, text):
    ids, _ = stand_in.tokenize([text.replace("[UNK]", "")])
    assert 1 not in ids


def test_uncommon_words_are_told_apart(stand_in):
    """The words that the suites draw: none unknown, no two alike."""
    drawn = draw_words(1000, 0)
    ids, _ = stand_in.tokenize(drawn)

    assert 1 not in ids
    assert len({tuple(row) for row in ids.tolist()}) == len(drawn)


@given(st.lists(st.text(max_size=40) | st.sampled_from(TEXTS), min_size=1, max_size=4))
def test_ids_are_those_of_transformers(stand_in, transformers_tokenizer, texts):
    """Raw text in, no cleaning before: padded, cut and masked as there."""
    theirs = transformers_tokenizer(
        texts, padding="max_length", truncation=True, max_length=24, return_tensors="pt"
    )
    ids, mask = stand_in.tokenize(texts)
    untruncated = [len(row) for row in transformers_tokenizer(texts)["input_ids"]]
    counts = stand_in.count_tokens(texts)

    assert torch.equal(ids, theirs["input_ids"])
    assert torch.equal(mask, (ids != 0).long())
    assert counts.n_tokens == tuple(untruncated)
    assert counts.truncated == tuple(n > 24 for n in untruncated)


def test_the_empty_prompt_is_start_and_end(stand_in):
    ids, mask = stand_in.tokenize([""])
    assert ids[0, :3].tolist() == [2, 3, 0]
    assert mask.sum() == 2


@pytest.mark.parametrize("size", [64, 200, 1024])
def test_a_smaller_table_folds_all_but_the_special_tokens(tmp_path, stand_in, size):
    model = load_model(
        write_card(tmp_path, vocabulary_size=size, context_length=24), random_weights=True
    )
    whole, mask = stand_in.tokenize(TEXTS)
    folded, same = model.raw.tokenize(TEXTS)

    assert torch.equal(mask, same)
    assert folded.max() < size
    special = whole < 5
    assert torch.equal(folded[special], whole[special])
    expected = 5 + (whole - 5) % (size - 5)
    assert torch.equal(folded[~special], expected[~special])


def write_vocabulary(folder, pieces, name="vocab.txt"):
    path = folder / name
    if path.suffix == ".json":
        content = {piece: number for number, piece in enumerate(pieces)}
        path.write_text(json.dumps({"model": {"type": "WordPiece", "vocab": content}}))
    else:
        path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize("separator", ["plain", "\u2028", "\x85"])
def test_a_vocabulary_of_ones_own_is_read(tmp_path, name, separator):
    """PubMedBERT's has lines that other readers would take for two."""
    pieces = [*SMALL, *(f"x{number}" for number in range(60)), separator]
    write_vocabulary(tmp_path, pieces, name)
    card = write_card(
        tmp_path,
        f"tokenizer: {{path: {name}}}\n",
        vocabulary="published",
        vocabulary_size=len(pieces),
        context_length=12,
    )
    model = load_model(card, random_weights=True)
    tokenizer = BertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)})
    theirs = tokenizer(
        TEXTS, padding="max_length", truncation=True, max_length=12, return_tensors="pt"
    )

    assert torch.equal(model.raw.tokenize(TEXTS)[0], theirs["input_ids"])
    assert model.raw.tokenize(["nevus"])[0][0, :3].tolist() == [2, 1, 3]
    assert model.notes == ()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[PAD]\n[UNK]\n[CLS]\n", "the vocabulary has 3 pieces, no '[SEP]', no '[MASK]'."),
        ("\n".join(SMALL), "the vocabulary has 13 pieces. The model's has 64, numbered from 0, "),
        ("[UNK]\n[PAD]\n" + "\n".join(map(str, range(62))), "the vocabulary has 64 pieces, no '[C"),
        (b"\xff\xfe", "not a WordPiece vocabulary (UnicodeDecodeError"),
        ("{", "not a WordPiece vocabulary (JSONDecodeError"),
        ('{"model": []}', "not a WordPiece vocabulary (TypeError"),
        ('{"model": {"vocab": {"a": "b", "c": 1}}}', "not a WordPiece vocabulary (TypeError"),
    ],
)
def test_what_is_no_vocabulary_says_so(tmp_path, content, text):
    name = "tokenizer.json" if str(content).startswith("{") else "vocab.txt"
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    card = write_card(
        tmp_path, f"tokenizer: {{path: {name}}}\n", vocabulary="published", vocabulary_size=64
    )
    with pytest.raises(ModelError, match=re.escape(f"{tmp_path / name}: {text}")):
        load_model(card, random_weights=True)


def test_two_vocabularies_are_refused(tmp_path):
    write_vocabulary(tmp_path, SMALL)
    card = write_card(tmp_path, "tokenizer: {path: vocab.txt}\n", vocabulary="stand_in")
    text = (
        f"settings.vocabulary: found 'stand_in', but 'tokenizer' names {tmp_path / 'vocab.txt'}. "
        "A model has one vocabulary. Write `tokenizer: null` on the card"
    )
    with pytest.raises(CardError, match=re.escape(text)):
        load_model(card, random_weights=True)


STAND_IN_SHA256 = "6644bae0d54200304fddd74d99b12fb3847efe1e1205a7291767776c9426f549"

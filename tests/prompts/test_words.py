"""The list of uncommon words keeps its definition, and draws repeat."""

import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness.prompts
from harness.cards import dataset_names, load_dataset_card
from harness.errors import LexiconError
from harness.prompts.lexicon import load_lexicon
from harness.prompts.words import draw_words, uncommon_words, words_sha256

DATA = Path(harness.prompts.__file__).parent / "data"


def lines(name):
    return (DATA / name).read_text(encoding="utf-8").splitlines()


def test_a_thousand_distinct_words_in_order():
    words = uncommon_words()

    assert len(words) == 1000
    assert list(words) == sorted(set(words))
    assert all(re.fullmatch("[a-z]{4,10}", word) for word in words)


def test_the_header_states_the_definition():
    header = " ".join(line[2:] for line in lines("uncommon_words.txt") if line.startswith("#"))

    for part in (
        "Zipf frequency in [1.5, 2.7)",
        "WordNet 3.0",
        "make_uncommon_words.py",
        "wordfreq",
    ):
        assert part in header


def test_words_have_the_stated_frequency():
    wordfreq = pytest.importorskip("wordfreq", reason="wordfreq is needed to check frequencies")

    frequencies = [wordfreq.zipf_frequency(word, "en") for word in uncommon_words()]

    assert all(1.5 <= zipf < 2.7 for zipf in frequencies)


def test_no_word_belongs_to_a_grammar_or_to_the_lexicon():
    known = set(load_lexicon("curated").words())
    for name in dataset_names():
        grammar = load_dataset_card(name).grammar
        for text in [v for rule in grammar.attributes.values() for v in rule.values]:
            known |= set(re.findall("[a-z]+", text.lower()))
        for text in [t for templates in grammar.prompts.values() for t in templates]:
            known |= set(re.findall("[a-z]+", text.lower()))

    assert not known & set(uncommon_words())


def test_words_taken_out_by_a_reader_stay_out():
    removed = {line for line in lines("uncommon_words_removed.txt") if not line.startswith("#")}

    assert removed
    assert not removed & set(uncommon_words())


@given(st.integers(0, 1000), st.integers(0, 2**32))
def test_draws_repeat_and_grow_from_their_beginning(n, seed):
    words = draw_words(n, seed)

    assert len(set(words)) == n
    assert set(words) <= set(uncommon_words())
    assert words == draw_words(n, seed) == draw_words(1000, seed)[:n]


def test_seeds_matter():
    assert len({draw_words(10, seed) for seed in range(50)}) == 50


@pytest.mark.parametrize("n", [-1, 1001])
def test_more_words_than_there_are_is_refused(n):
    message = f"words: asked for {n} uncommon words, the list has 1000. Ask for 0 to 1000."
    with pytest.raises(LexiconError, match="^" + re.escape(message) + "$"):
        draw_words(n, 0)


def test_the_hash_is_of_the_words_alone():
    words = [line for line in lines("uncommon_words.txt") if not line.startswith("#")]

    assert words_sha256() == hashlib.sha256("\n".join(words).encode()).hexdigest()

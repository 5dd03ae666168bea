"""The files of the curated lexicon, made ready to be looked up."""

import re

import pytest

from harness.errors import LexiconError
from harness.prompts.entries import (
    DATA,
    FILES,
    Group,
    Opposites,
    Synonyms,
    compile_entries,
    number_words,
    read_entries,
    read_forms,
    read_lines,
    read_strangers,
)
from harness.prompts.lexicon import load_lexicon


def test_two_opposites_of_one_value_are_refused():
    message = (
        "opposites.yaml: 'small' has two opposites, 'large' and 'huge'. A value has one. Remove "
        "one of them."
    )
    with pytest.raises(LexiconError, match="^" + re.escape(message) + "$"):
        compile_entries(Opposites(pairs=[("small", "large"), ("small", "huge")]), Synonyms())


def test_groups_that_share_a_word_are_one():
    rules = Synonyms(say=[["a", "b"]], same=[["c", "d"], ["d", "b"]])

    same = compile_entries(Opposites(), rules).same

    assert {same[word] for word in "abcd"} == {same["a"]}


def test_words_are_said_by_their_part_of_speech():
    rules = Synonyms(
        say=[Group(noun=["circle", "disc"], adjective=["round"])], forms={"{}-like": ["circle"]}
    )

    said = compile_entries(Opposites(), rules).said["circle"]

    assert said.any == ("disc", "round", "circle-like")
    assert (said.noun, said.adjective) == (("disc",), ("round",))


def test_numbers_in_words():
    words = number_words()

    assert list(words) == [*range(1, 101)] or sorted(words) == [*range(1, 101)]
    assert [words[n] for n in (1, 13, 20, 21, 40, 76, 99, 100)] == [
        *("one", "thirteen", "twenty", "twenty-one", "forty", "seventy-six", "ninety-nine"),
        "one hundred",
    ]


def test_every_file_of_the_lexicon_ships_and_is_lower_case():
    for name in FILES:
        text = "\n".join(
            line.split("#")[0]
            for line in (DATA / name).read_text(encoding="utf-8").splitlines()
            if not line.startswith(("title:", "#"))
        )
        if name != "irrelevant.txt":
            assert text == text.lower(), name


def test_synonyms_mean_the_same_and_opposites_do_not():
    lexicon = load_lexicon("curated")
    for attribute, entries in read_entries().items():
        for word, said in entries.said.items():
            for way in said.any:
                assert lexicon.canonical(attribute, way) == lexicon.canonical(attribute, word)
        for word, opposite in entries.opposites.items():
            assert lexicon.canonical(attribute, word) != lexicon.canonical(attribute, opposite)


def test_plurals_are_the_same_things():
    lexicon = load_lexicon("curated")
    for one, many in read_forms().plurals.items():
        assert lexicon.canonical("class", one) == lexicon.canonical("class", many)
        assert (lexicon.plural(one), lexicon.singular(many)) == (many, one)


def test_strangers_are_on_no_card():
    known = load_lexicon("curated").words()
    strangers = read_strangers()

    for one, many in [*strangers.classes, *strangers.things]:
        assert one != many
        assert one not in known
    assert len(strangers.classes) >= 10
    assert len(strangers.things) >= 10


def test_irrelevant_sentences_speak_of_something_else():
    """No word of theirs is a value, a class or a synonym."""
    ordinary = set(re.findall("[a-z]+", "a an the of in on at to with is are and his he she they"))
    ordinary |= set(re.findall("[a-z]+", "we our my by into from out it that often"))
    values = {
        word
        for entries in read_entries().values()
        for text in [*entries.opposites, *entries.same, *entries.said]
        for word in re.findall("[a-z]+", text)
    } - ordinary
    for sentence in read_lines("irrelevant.txt"):
        assert re.fullmatch(r"[A-Z][^.]*\.", sentence)
        shared = set(re.findall("[a-z]+", sentence.lower())) & values
        assert not shared, (sentence, shared)

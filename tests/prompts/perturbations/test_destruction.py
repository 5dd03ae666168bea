"""Words become meaningless: the same ones for every sample, or drawn."""

from collections import Counter

from harness.prompts.grammar import load_grammar
from harness.prompts.lexicon import load_lexicon
from harness.prompts.words import draw_words, uncommon_words
from harness.records import NotApplicable

WORDS = draw_words(10, 0)
PHOTO = "one small white round polyp, located in center of the image"


def photo(text=PHOTO):
    return load_grammar("kvasir_polyp").parse(text)


def test_random_words_replace_the_whole_value_one_variant_a_word(contexts, made):
    prompt = photo("two small, medium white it is round polyp, located in top, left of the image")

    variants = made("random_word", prompt, contexts("kvasir_polyp"), "size")

    assert [variant.word for variant in variants] == list(WORDS)
    assert variants[0].text == (
        f"two {WORDS[0]} white it is round polyp, located in top, left of the image"
    )
    assert all(variant.prompt_type == "p6" for variant in variants)


def test_random_words_keep_the_capital_at_the_beginning(contexts, made):
    context = contexts("busi", "p2", words=("kazoo",))
    prompt = context.grammar.parse("Malignant tumor in the breast ultrasound image.")

    (variant,) = made("random_word", prompt, context, "tumor_type")

    assert (variant.text, variant.word) == ("Kazoo tumor in the breast ultrasound image.", "kazoo")


def test_a_random_word_that_stands_there_already_is_counted(contexts, made):
    context = contexts("kvasir_polyp", "p2", words=("kazoo",))

    assert made("random_word", photo("kazoo polyp"), context, "shape") == [
        NotApplicable("the shape is already 'kazoo'", "shape")
    ]


def test_all_attributes_take_different_words_at_once(contexts, made):
    variants = made("random_words", photo(), contexts("kvasir_polyp"))

    assert [variant.word for variant in variants] == list(WORDS)
    first = [edit.new for edit in variants[0].edits]
    assert first == list(WORDS[:6])
    assert [edit.new for edit in variants[9].edits] == [WORDS[9], *WORDS[:5]]
    assert variants[0].text == "{} {} {} {} {}, located in {} of the image".format(*first)


def test_few_words_are_taken_again(contexts, made):
    context = contexts("kvasir_polyp", "p2", words=("kazoo",))

    (variant,) = made("random_words", photo("round polyp"), context)

    assert variant.text == "kazoo kazoo"
    assert made("random_words", photo(), contexts("kvasir_polyp", words=())) == [
        NotApplicable("the prompt names no attribute")
    ]


def test_random_prompts_have_as_many_words(texts):
    found = texts("random_prompt", "kvasir_polyp", PHOTO, repeats=5)

    assert len(set(found)) == 5
    for text in found:
        words = text.split()
        assert len(words) == len(set(words)) == len(PHOTO.split())
        assert set(words) <= set(uncommon_words())
    (formal,) = texts("random_prompt", "camus", "Myocardium of the heart.", repeats=1)
    assert formal[0].isupper()


def test_irrelevant_sentences_are_written_as_the_prompt_is(texts):
    sentences = set(load_lexicon().sentences)

    informal = texts("irrelevant", "kvasir_polyp", PHOTO, repeats=99)
    formal = texts("irrelevant", "camus", "Myocardium of the heart.", repeats=99)

    assert set(formal) == sentences
    assert {text[0].upper() + text[1:] + "." for text in informal} == sentences
    assert all(text[0].islower() and text[-1] != "." for text in informal)


def test_shuffled_words_are_the_same_words(texts):
    found = texts("shuffle_words", "kvasir_polyp", PHOTO, repeats=8)

    assert len(set(found) - {PHOTO}) == 8
    assert all(Counter(text.split()) == Counter(PHOTO.split()) for text in found)


def test_an_order_that_says_the_same_is_no_shuffle(texts):
    """Of six orders of three words two are read as the original."""
    found = texts("shuffle_words", "kvasir_polyp", "white round polyp", repeats=99)

    assert set(found) == {
        *("white polyp round", "round polyp white", "polyp white round", "polyp round white"),
    }


def test_what_has_one_order_is_counted(texts):
    reason = ["no other order of its words says something else"]

    assert texts("shuffle_words", "kvasir_polyp", "polyp") == reason
    assert texts("shuffle_words", "kvasir_polyp", "polyp polyp") == reason


def test_shuffles_are_uniform(made, contexts):
    """1,200 draws of four orders, 300 expected of each, 4 sigma = 60."""
    prompt, context = photo("white round polyp"), contexts("kvasir_polyp", "p3")

    found = Counter(
        made("shuffle_words", prompt, context, seed=seed, repeats=1)[0].text for seed in range(1200)
    )

    assert len(found) == 4
    assert all(240 < count < 360 for count in found.values())

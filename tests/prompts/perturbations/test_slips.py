"""Typos keep their distance, repairs repair, spellings are exchanged."""

import nltk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.prompts.grammar import load_grammar
from harness.prompts.lexicon import load_lexicon
from harness.prompts.perturbations import PERTURBATIONS, variants_of
from harness.prompts.worlds import scenes
from harness.records import Variant

LEXICON = load_lexicon("curated")
PHOTO = "two small white a circle polyp, located in center of the image"
CAMUS = "Myocardium in two-chamber view of the heart at end of the systole cycle of a "
DATASETS = ("kvasir_polyp", "busi", "camus", "chexlocalize")


def distance(one, other):
    return nltk.edit_distance(one, other, transpositions=True)


@settings(max_examples=30)
@given(
    st.sampled_from(DATASETS).flatmap(
        lambda name: scenes(load_grammar(name), LEXICON, per_attribute=False)
    ),
    st.integers(0, 99),
)
def test_a_typo_is_nearer_to_its_word_than_to_any_other_value(scene, seed):
    import numpy as np

    rules = scene.context.grammar.card.attributes
    for variant in variants_of(
        PERTURBATIONS["typo"],
        scene.prompt,
        attribute=None,
        context=scene.context,
        rng=np.random.default_rng(seed),
        repeats=4,
    ):
        if not isinstance(variant, Variant):
            continue
        (edit,) = variant.edits
        assert distance(edit.old, edit.new) == 1
        assert edit.new.lower() not in LEXICON.real_words | LEXICON.words()
        for span in scene.prompt.spans:
            if span.start <= edit.start < span.end:
                known = {*rules[span.attribute].values}
                known |= {*scene.context.value_sets.get(span.attribute, ())}
                assert_unmistakable(span, edit, known)


def assert_unmistakable(span, edit, known):
    """By definition: the misspelt item of the list against every single value."""
    at = edit.start - span.start
    before, after = span.value[:at], span.value[at + len(edit.old) :]
    item = before.split(", ")[-1] + edit.new + after.split(", ")[0]
    own = before.split(", ")[-1] + edit.old + after.split(", ")[0]
    for value in {item for several in known for item in several.split(", ")}:
        if LEXICON.canonical(span.attribute, value) != LEXICON.canonical(span.attribute, own):
            assert distance(item.lower(), value.lower()) > distance(item.lower(), own.lower())


def test_typos_never_make_a_word(texts):
    found = texts("typo", "kvasir_polyp", "pink round polyp", repeats=9999)

    words = {word for text in found for word in text.split()}
    assert not words & {"pin", "rung", "bound", "poly"} - {"poly"}
    assert {"pnik", "rund", "polpy"} <= words
    assert len(found) > 60


@pytest.mark.parametrize("text", ["one", "tan"])
def test_short_words_are_spared(texts, text):
    sets = {"color": (), "shape": ()}

    found = texts("typo", "kvasir_polyp", f"{text} polyp", value_sets=sets, repeats=999)

    assert all(variant.startswith(f"{text} ") for variant in found)


def test_what_has_no_long_word_is_counted(contexts, made):
    from harness.records import NotApplicable, Prompt

    assert made("typo", Prompt("a b", "p1"), contexts("kvasir_polyp")) == [
        NotApplicable("no word is long enough for a typo that cannot be mistaken")
    ]


@pytest.mark.parametrize(
    ("dataset", "text", "expected"),
    [
        (
            "kvasir_polyp",
            "polyp which is a growth of a mucuos membrane",
            ["polyp which is a growth of a mucous membrane"],
        ),
        ("kvasir_polyp", PHOTO, [PHOTO.replace("center", "centre")]),
        ("kvasir_polyp", "grey round polyp", ["gray round polyp"]),
        ("kvasir_polyp", "gray round polyp", ["grey round polyp"]),
        (
            "chexlocalize",
            "Edema in a chest Xray.",
            ["Edema in a chest X-ray.", "Oedema in a chest Xray."],
        ),
        (
            "busi",
            "Two benign tumors in the breast ultrasound image.",
            ["Two benign tumours in the breast ultrasound image."],
        ),
        ("kvasir_polyp", "round polyp", ["no word of the prompt has another spelling"]),
    ],
)
def test_spellings(texts, dataset, text, expected):
    assert texts("spelling", dataset, text) == expected


@pytest.mark.parametrize(
    ("dataset", "text", "expected"),
    [
        (
            "kvasir_polyp",
            PHOTO,
            "two small white circle polyps, located in the center of the image",
        ),
        ("kvasir_polyp", "it is a round shape polyp", "round polyp"),
        (
            "kvasir_polyp",
            "two small white round polyp which is a growth of tissue",
            "two small white round polyps, each of which is a growth of tissue",
        ),
        (
            "kvasir_polyp",
            "two small white round polyp which is a growth located in top, left of the image",
            "two small white round polyps, each of which is a growth, located in the top, left of "
            "the image",
        ),
        (
            "busi",
            "One medium a shadow-shaped benign tumor at the top in the breast ultrasound image.",
            "One medium shadow-shaped benign tumor at the top in the breast ultrasound image.",
        ),
        (
            "busi",
            "One benign tumors in the breast ultrasound image.",
            "One benign tumor in the breast ultrasound image.",
        ),
        (
            "dfu",
            "three small pink square foot ulcer",
            "three small pink square foot ulcers",
        ),
        (
            "camus",
            f"{CAMUS}eighty-seven-year-old male.",
            "Myocardium in the two-chamber view of the heart at the end of the systole cycle of an "
            "eighty-seven-year-old male.",
        ),
        (
            "chexlocalize",
            "Edema in a Chest Xray. Edema are present. ",
            "Edema in a Chest Xray. Edema is present. ",
        ),
        (
            "chexlocalize",
            "Edema in a Chest Xray. Support Devices are present. ",
            "articles and numbers of the prompt are right",
        ),
        (
            "kvasir_polyp",
            "polyp which is a tissue growth that often resemble mushroom like stalks",
            "polyp which is a tissue growth that often resembles mushroom like stalks",
        ),
        ("kvasir_polyp", "round polyp", "articles and numbers of the prompt are right"),
    ],
)
def test_repairs(texts, dataset, text, expected):
    assert texts("article_number", dataset, text) == [expected]


def test_a_repaired_prompt_needs_no_repair(texts):
    (once,) = texts("article_number", "kvasir_polyp", "two small white a circle polyp")

    assert once == "two small white circle polyps"

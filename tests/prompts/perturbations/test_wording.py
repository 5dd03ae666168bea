"""The same in other words and in another order."""

import pytest

from harness.prompts.lexicon import Lexicon, load_lexicon

PHOTO = "one small white round polyp, located in top of the image"
CAMUS = "Myocardium in two-chamber view of the heart at end of the systole cycle of a male."


@pytest.mark.parametrize(
    ("dataset", "attribute", "text", "expected"),
    [
        ("kvasir_polyp", "size", PHOTO, [PHOTO.replace("small", "little")]),
        ("kvasir_polyp", "shape", PHOTO, [PHOTO.replace("round", "circular")]),
        (
            "kvasir_polyp",
            "number",
            PHOTO,
            [PHOTO.replace("one", "single"), PHOTO.replace("one", "1")],
        ),
        (
            "kvasir_polyp",
            "location",
            PHOTO.replace("top", "top left, center"),
            [PHOTO.replace("top", "upper left, middle")],
        ),
        ("kvasir_polyp", "shape", "square polyp", ["square-shaped polyp"]),
        (
            "busi",
            "tumor_type",
            "Malignant tumor in the breast ultrasound image.",
            ["Cancerous tumor in the breast ultrasound image."],
        ),
        (
            "busi",
            "class",
            "Two benign tumors in the breast ultrasound image.",
            ["Two benign neoplasms in the breast ultrasound image."],
        ),
        ("camus", "gender", CAMUS, [CAMUS.replace("male", "man")]),
        ("camus", "view", CAMUS, [CAMUS.replace("two", "2")]),
    ],
)
def test_synonyms(texts, dataset, attribute, text, expected):
    assert texts("synonym", dataset, text, attribute) == expected


def test_a_shape_that_is_called_a_shape_already_takes_no_other_ending(texts):
    text = "One small square-shaped benign tumor at the top in the breast ultrasound image."

    assert texts("synonym", "busi", text, "shape") == [
        "no synonym of 'square' in the curated lexicon fits the prompt"
    ]
    assert texts("synonym", "busi", text.replace("square", "circle"), "shape") == [
        text.replace("square", "disc")
    ]


class Careless:
    """A thesaurus that takes the centre for the left."""

    def antonym(self, word):
        return None

    def synonyms(self, word):
        return {"flat": ("level",), "open": ("closed",)}.get(word, ())


def thesaurus():
    known = load_lexicon("curated")
    return Lexicon(
        "test", "", known.entries, known.forms, known.strangers, (), frozenset(), Careless()
    )


def test_a_thesaurus_is_asked_for_words_without_an_entry(texts):
    sets = {"shape": ("flat", "closed")}
    asked = {"lexicon": thesaurus(), "value_sets": sets}

    assert texts("synonym", "kvasir_polyp", "flat polyp", "shape", **asked) == ["level polyp"]


def test_what_a_thesaurus_says_is_no_synonym_where_it_is_another_value(texts):
    asked = {"lexicon": thesaurus(), "value_sets": {"shape": ("closed", "open")}}

    assert texts("synonym", "kvasir_polyp", "open polyp", "shape", **asked) == [
        "no synonym of 'open' in the test lexicon fits the prompt"
    ]


def test_paraphrases_are_those_of_the_card(texts):
    assert texts("paraphrase", "kvasir_polyp", PHOTO) == [
        "one small white round polyp in the top of the image",
        "in the top of the image, one small white round polyp",
        "one small white polyp of round shape, found in the top of the image",
    ]


@pytest.mark.parametrize(
    ("dataset", "text", "expected"),
    [
        ("kvasir_polyp", "oval polyp", "polyp that has an oval shape"),
        ("kvasir_polyp", "it is round polyp", "polyp of round shape"),
        ("bkai_polyp", "no polyp", "no polyp in the image"),
        (
            "busi",
            "Two benign tumors in the breast ultrasound image.",
            "Breast ultrasound image with two benign tumors.",
        ),
        (
            "busi",
            "No tumor in the breast ultrasound image.",
            "There is no tumor in the breast ultrasound image.",
        ),
        (
            "camus",
            "Left atrium cavity in two-chamber view of the heart.",
            "Two-chamber view of the heart with the left atrium cavity.",
        ),
        (
            "chexlocalize",
            "Edema in a Chest Xray. Edema, Fracture are present. ",
            "Edema, Fracture are present. Edema in a Chest Xray.",
        ),
    ],
)
def test_paraphrases_keep_capitals_numbers_and_articles(texts, dataset, text, expected):
    assert expected in texts("paraphrase", dataset, text)


def test_adjectives_take_every_other_order(texts):
    found = texts("reorder_attributes", "kvasir_polyp", PHOTO)

    assert len(found) == 5
    for text in found:
        assert sorted(text.split()) == sorted(PHOTO.split())
        assert text.startswith("one ")
        assert text.endswith("polyp, located in top of the image")


@pytest.mark.parametrize("shape", ["kidney", "circle", "hot dog"])
def test_a_noun_stays_before_the_noun_it_belongs_to(texts, shape):
    text = f"one medium orange {shape} polyp, located in top of the image"

    assert texts("reorder_attributes", "kvasir_polyp", text) == [
        f"one orange medium {shape} polyp, located in top of the image"
    ]


@pytest.mark.parametrize(
    ("age", "digits"),
    [("eighty-eight", "an 88"), ("eighteen", "an 18"), ("eleven", "an 11"), ("seventy", "a 70")],
)
def test_the_article_before_digits_is_that_of_the_spoken_number(texts, age, digits):
    text = f"{CAMUS[:-5]}{age}-year-old male."

    assert f"{CAMUS[:-7]}{digits}-year-old male." in texts("synonym", "camus", text, "age")


def test_phrases_of_a_sentence_change_places(texts):
    found = texts("reorder_attributes", "camus", CAMUS)

    assert "Myocardium of a male in two-chamber view of the heart at end of the systole cycle." in (
        found
    )
    assert len(found) == 5


def test_lists_are_turned_round(texts):
    text = "Edema in a Chest Xray. Edema, Fracture, Pneumonia are present. "

    assert texts("reorder_attributes", "chexlocalize", text) == [
        text.replace("Edema, Fracture, Pneumonia", "Pneumonia, Fracture, Edema")
    ]


@pytest.mark.parametrize("text", ["round polyp", "one small white it is round polyp"])
def test_what_cannot_move_stays(texts, text):
    """A single adjective, or a clause among them."""
    assert texts("reorder_attributes", "kvasir_polyp", text) == [
        "nothing in the prompt may change its place"
    ]


def test_a_grammar_without_paraphrases_says_so(contexts, texts):
    grammar = contexts("kvasir_polyp").grammar
    silent = {name: () for name in grammar.paraphrases}

    from dataclasses import replace

    assert texts(
        "paraphrase", "kvasir_polyp", PHOTO, grammar=replace(grammar, paraphrases=silent)
    ) == ["the grammar knows no other sentence for this p6"]

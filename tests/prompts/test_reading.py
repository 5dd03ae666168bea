"""What a changed prompt says is read, and what says something else is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.prompts.grammar import load_grammar
from harness.prompts.lexicon import load_lexicon
from harness.prompts.reading import Reader
from harness.prompts.worlds import scenes

LEXICON = load_lexicon("curated")
DATASETS = ("kvasir_polyp", "busi", "camus", "chexlocalize")
READERS = {name: Reader(load_grammar(name), LEXICON) for name in DATASETS}
PHOTO = "two small, medium white it is round polyp, located in top left, center of the image"
CHEST = (
    "Edema of shape oval, and located in right of the frontal view of a Chest Xray. Edema, "
    "Fracture are present."
)


def same(dataset, original, text):
    reader = READERS[dataset]
    return reader.says_the_same(text, reader.grammar.parse(original))


@pytest.mark.parametrize(
    ("dataset", "original", "text"),
    [
        ("kvasir_polyp", PHOTO, PHOTO.upper()),
        ("kvasir_polyp", PHOTO, PHOTO.replace(" ", "  ") + "."),
        ("kvasir_polyp", PHOTO, PHOTO.replace("polyp, l", "polyps - l")),
        ("kvasir_polyp", PHOTO, PHOTO.replace("it is round", "circular")),
        ("kvasir_polyp", PHOTO, PHOTO.replace("two small, medium", "2 little, medium-sized")),
        ("kvasir_polyp", PHOTO, PHOTO.replace("in top left, center", "in the upper left, centre")),
        ("kvasir_polyp", PHOTO, PHOTO.replace("small, medium white", "white medium, small")),
        ("kvasir_polyp", PHOTO, f'"{PHOTO}!"'),
        (
            "kvasir_polyp",
            PHOTO,
            "in the top left, center of the image, two white small, medium round polyp",
        ),
        ("chexlocalize", CHEST, CHEST.replace("Xray", "X-ray").replace("Edema", "oedema")),
        ("chexlocalize", CHEST, CHEST.replace("Edema, Fracture", "Fracture, Pulmonary edema")),
        ("busi", "Tumor in the breast ultrasound image.", "Tumour in breast ultrasound image"),
        (
            "busi",
            "No tumor in the breast ultrasound image.",
            "There is no tumour in the breast ultrasound image.",
        ),
    ],
)
def test_what_says_the_same_is_read_so(dataset, original, text):
    assert same(dataset, original, text)


@pytest.mark.parametrize(
    ("dataset", "original", "text"),
    [
        ("kvasir_polyp", PHOTO, PHOTO.replace("two", "three")),
        ("kvasir_polyp", PHOTO, PHOTO.replace("small, medium", "small")),
        ("kvasir_polyp", PHOTO, PHOTO.replace("top left, center", "top, left, center")),
        ("kvasir_polyp", PHOTO, PHOTO.replace("white ", "")),
        ("kvasir_polyp", PHOTO, PHOTO.replace("round", "oval")),
        ("kvasir_polyp", PHOTO, PHOTO.replace("white", "whit")),
        ("kvasir_polyp", PHOTO, "no polyp"),
        ("kvasir_polyp", "polyp", "no polyp"),
        ("kvasir_polyp", "no polyp", "polyp"),
        ("chexlocalize", CHEST, CHEST.replace("Edema, Fracture", "Edema")),
        ("chexlocalize", CHEST, CHEST.replace("frontal", "lateral")),
    ],
)
def test_what_says_something_else_is_not(dataset, original, text):
    assert text != original
    assert not same(dataset, original, text)


@given(
    st.sampled_from(DATASETS).flatmap(
        lambda name: scenes(READERS[name].grammar, LEXICON, per_attribute=False)
    )
)
def test_an_original_with_known_values_is_read_as_itself(scene):
    reader = READERS[scene.context.grammar.dataset]
    free = [name for name, rule in reader.grammar.card.attributes.items() if rule.free]
    known = all(
        span.attribute not in free or span.value.replace(" ", "").replace("-", "").isalpha()
        for span in scene.prompt.spans
    )

    if scene.prompt.text and known:
        assert reader.says_the_same(scene.prompt.text, scene.prompt)


@given(st.sampled_from(DATASETS), st.text(max_size=60))
def test_any_text_can_be_asked_about(dataset, text):
    reader = READERS[dataset]
    prompt = reader.grammar.parse({"kvasir_polyp": "polyp"}.get(dataset, ""))

    assert reader.says_the_same(text, prompt) in (True, False)


def test_prompts_that_say_the_same_do_not_exclude_each_other():
    reader = READERS["kvasir_polyp"]
    round_, circle, oval = map(reader.grammar.parse, ("round polyp", "circle polyp", "oval polyp"))

    assert not reader.exclude(round_, circle)
    assert reader.exclude(circle, oval)
    assert reader.exclude(oval, circle)


def test_all_readings_are_given():
    reader = READERS["kvasir_polyp"]
    prompt = reader.grammar.parse("white round polyp")

    (reading,) = reader.readings("round white polyp", prompt)

    assert {name: sorted(values) for name, values in reading.items()} == {
        "color": ["white"],
        "shape": ["circle"],
        "class": ["polyp"],
    }

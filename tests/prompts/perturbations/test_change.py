"""The prompt says something else: one thing, and nothing beside it."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.prompts.grammar import load_grammar
from harness.prompts.lexicon import load_lexicon
from harness.prompts.perturbations import PERTURBATIONS
from harness.prompts.worlds import scenes
from harness.records import ExpectedMask, NotApplicable, Variant

LEXICON = load_lexicon("curated")
CAMUS = "Myocardium in two-chamber view of the heart at end of the systole cycle of a "


@pytest.mark.parametrize(
    ("dataset", "text", "attribute", "expected"),
    [
        ("kvasir_polyp", "small white round polyp", "size", "large white round polyp"),
        ("kvasir_polyp", "white it is a circle polyp", "shape", "white it is a square polyp"),
        ("kvasir_polyp", "polyp", "class", "no polyp"),
        ("bkai_polyp", "no polyp", "class", "polyp"),
        (
            "busi",
            "Malignant tumor in the breast ultrasound image.",
            "tumor_type",
            "Benign tumor in the breast ultrasound image.",
        ),
        (
            "busi",
            "No tumor in the breast ultrasound image.",
            "class",
            "Tumor in the breast ultrasound image.",
        ),
        (
            "camus",
            f"{CAMUS}eighty-four-year-old male.",
            "age",
            f"{CAMUS}twenty-five-year-old male.",
        ),
        (
            "busi",
            "One benign tumor in the breast ultrasound image.",
            "number",
            "Many benign tumors in the breast ultrasound image.",
        ),
        (
            "busi",
            "Two benign tumors in the breast ultrasound image.",
            "number",
            "One benign tumor in the breast ultrasound image.",
        ),
        ("kvasir_polyp", "one small white round polyp", "number", "many small white round polyp"),
    ],
)
def test_antonyms(texts, dataset, text, attribute, expected):
    assert texts("antonym", dataset, text, attribute) == [expected]


@pytest.mark.parametrize(
    ("dataset", "text", "attribute", "reason"),
    [
        (
            "kvasir_polyp",
            "one small white round polyp, located in center of the image",
            "location",
            "no opposite of 'center' in the curated lexicon",
        ),
        ("kvasir_polyp", "white round polyp", "size", "the prompt names no size"),
        (
            "kvasir_polyp",
            "round polyp",
            "class",
            "'no polyp', the opposite of 'polyp', does not fit the grammar of p2",
        ),
        (
            "chexlocalize",
            "Edema in a Chest Xray. Edema, Fracture are present. ",
            "pathology",
            "no opposite of 'Edema, Fracture' in the curated lexicon",
        ),
        (
            "kvasir_polyp",
            "two small white round polyp, located in top left, top of the image",
            "number",
            "'one' contradicts the 2 places of 'top left, top'",
        ),
        (
            "kvasir_polyp",
            "two small white round polyp, located in top left, center of the image",
            "location",
            "no opposite of 'top left, center' in the curated lexicon",
        ),
    ],
)
def test_values_without_an_antonym_are_counted(texts, dataset, text, attribute, reason):
    assert texts("antonym", dataset, text, attribute) == [reason]


DATASETS = ("kvasir_polyp", "busi", "camus", "chexlocalize", "phantom_crowd")
any_scene = st.sampled_from(DATASETS).flatmap(
    lambda name: scenes(load_grammar(name), LEXICON, per_attribute=True)
)


@given(any_scene)
def test_the_antonym_of_an_antonym_is_the_first_where_the_lexicon_says_so(scene):
    antonym = PERTURBATIONS["antonym"]

    def opposite(prompt):
        if prompt.span(scene.attribute) is None:
            return None
        (found,) = antonym.enumerate(prompt, attribute=scene.attribute, context=scene.context)
        return found if isinstance(found, Variant) else None

    there = opposite(scene.prompt)
    if there is None:
        return
    changed = scene.context.grammar.parse(there.text, prompt_type=scene.prompt.prompt_type)
    value = scene.prompt.values[scene.attribute]
    symmetric = LEXICON.opposite(scene.attribute, changed.values[scene.attribute]) == value
    back = opposite(changed)

    assert changed.values[scene.attribute] == LEXICON.opposite(scene.attribute, value)
    if symmetric:
        assert back.text == scene.prompt.text


def photo(text="one small white round polyp, located in center of the image"):
    return load_grammar("kvasir_polyp").parse(text)


def test_swaps_take_whole_values_of_the_value_set(contexts, made):
    sets = {"size": ("large", "large, medium", "medium", "small")}

    found = made(
        "swap_value", photo(), contexts("kvasir_polyp", value_sets=sets), "size", repeats=9
    )

    assert {variant.edits[0].new for variant in found} == {"large", "large, medium", "medium"}


@pytest.mark.parametrize(
    ("attribute", "text", "values", "left"),
    [
        ("size", "one small white round polyp", ["small, medium", "tiny", "large"], ["large"]),
        ("size", "two small, medium white round polyp", ["small", "medium", "large"], ["large"]),
        ("color", "small pink round polyp", ["pink", "light pink", "peach", "red"], ["red"]),
        ("color", "small white round polyp", ["bright", "cream", "black"], ["black"]),
        ("number", "two small white round polyp", ["many", "several", "2", "three"], ["three"]),
        ("number", "one small white round polyp", ["single", "1", "two", "many"], ["many", "two"]),
        ("shape", "white round polyp", ["smooth", "a large, round bump", "square"], ["square"]),
    ],
)
def test_a_swapped_value_excludes_the_old_one(contexts, made, attribute, text, values, left):
    """Neither holds the other, nor is a kind of it, nor says something beside it."""
    context = contexts("kvasir_polyp", value_sets={attribute: tuple(values)})

    found = made("swap_value", photo(text), context, attribute, repeats=9)

    assert sorted(v.edits[0].new for v in found) == left


@pytest.mark.parametrize(
    ("place", "left"),
    [
        ("left", ["right", "top", "top right"]),
        ("top left", ["right", "top right"]),
        ("top right", ["left", "top left"]),
    ],
)
def test_a_swapped_place_does_not_hold_the_old_one(contexts, made, place, left):
    sets = {"location": ("left", "top", "top left", "top right", "right", "top right, right")}
    context = contexts("kvasir_polyp", value_sets=sets)
    prompt = photo(f"one small white round polyp, located in {place} of the image")

    found = made("swap_value", prompt, context, "location", repeats=9)

    assert sorted(v.edits[0].new for v in found) == left


def test_lists_of_places_agree_with_the_number(contexts, made):
    """A list names one place per lesion; one place may hold several."""
    sets = {"location": ("top, top", "top, top, left", "center"), "number": ("two", "three", "one")}
    context = contexts("kvasir_polyp", value_sets=sets)
    two = photo("two small white round polyp, located in right, right of the image")

    places = made("swap_value", two, context, "location", repeats=9)
    numbers = made("swap_value", two, context, "number", repeats=9)

    assert sorted(v.edits[0].new for v in places) == ["center", "top, top"]
    assert numbers == [
        NotApplicable("no value of the dataset excludes 'two' and fits the prompt", "number")
    ]


def test_a_swapped_list_of_findings_shares_none_with_the_old_one(contexts, made):
    sets = {"pathology": ("Edema", "Fracture", "Lung Opacity, Fracture", "No Finding")}
    context = contexts("chexlocalize", "p6", value_sets=sets)
    text = "Edema in a Chest Xray. Edema, Pneumonia are present. "
    prompt = context.grammar.parse(text, prompt_type="p6")

    (found,) = made("swap_value", prompt, context, "pathology", repeats=9)

    assert found.edits[0].new == "Fracture"


@pytest.mark.parametrize(
    ("old", "new", "article"),
    [
        ("a seventy", "eighty-one", "an"),
        ("a eighty-four", "seventy", "a"),
        ("a six", "eight", "an"),
    ],
)
def test_the_article_follows_the_new_age(contexts, made, old, new, article):
    context = contexts("camus", "p5", value_sets={"age": (new,)})
    prompt = context.grammar.parse(f"{CAMUS}{old[2:]}-year-old male.", prompt_type="p5")

    (found,) = made("swap_value", prompt, context, "age")

    assert found.text == f"{CAMUS[:-2]}{article} {new}-year-old male."


def test_another_image_lends_only_what_excludes_the_own_prompt(contexts, made):
    """Not the place that holds the own one."""
    context = contexts("kvasir_polyp")
    own, near = (
        replace(
            context.sample,
            sample_id=name,
            image_id=name,
            prompts={
                "p6": (photo(f"one small white round polyp, located in {place} of the image"),)
            },
        )
        for name, place in (("own", "left"), ("near", "top left"))
    )
    people = replace(context.population, samples=[own, near], _drawn={}, _by_image={})

    found = made(
        "other_sample", own.prompts["p6"][0], replace(context, sample=own, population=people)
    )

    assert found == [NotApplicable("too few prompts of other images say something else")]


def test_swaps_never_say_the_same_in_other_words(contexts, made):
    sets = {"shape": ("a circle", "circle", "circular", "it is round", "oval", "round")}

    found = made(
        "swap_value", photo(), contexts("kvasir_polyp", value_sets=sets), "shape", repeats=9
    )

    assert [variant.edits[0].new for variant in found] == ["oval"]


def test_the_descriptions_of_a_class_are_no_swap(texts):
    sets = {"description": ("a projecting growth of tissue", "often a bumpy flesh in rectum")}
    text = "polyp which is a projecting growth of tissue"

    assert texts("swap_value", "kvasir_polyp", text, "description", value_sets=sets) == [
        "no value of the dataset excludes 'a projecting growth of tissue' and fits the prompt"
    ]


def test_swaps_that_no_longer_parse_are_left_out(texts):
    """A class that is absent has a sentence of its own."""
    sets = {"class": ("No tumor", "tumor", "tumors")}
    text = "One benign tumor in the breast ultrasound image."

    assert texts("swap_value", "busi", text, "class", value_sets=sets) == [
        "no value of the dataset excludes 'tumor' and fits the prompt"
    ]


def test_swaps_are_uniform_without_replacement(contexts, made):
    sets = {"color": ("black", "blue", "green", "red", "white")}
    context = contexts("kvasir_polyp", value_sets=sets)

    prompt, first, pairs = photo(), Counter(), Counter()
    for seed in range(1200):
        variants = made("swap_value", prompt, context, "color", seed=seed, repeats=2)
        drawn = tuple(variant.edits[0].new for variant in variants)
        first[drawn[0]] += 1
        pairs[drawn] += 1

    assert set(first) == {"black", "blue", "green", "red"}
    assert all(240 < count < 360 for count in first.values())  # 300 expected, 4 sigma = 60
    assert len(pairs) == 12
    assert all(60 < count < 140 for count in pairs.values())  # 100 expected, 4 sigma = 38


def test_swapped_classes_may_name_another_sample_of_the_image(contexts, made):
    context = contexts("camus")
    prompt = context.sample.prompts["p6"][1]

    (variant,) = made("swap_value", prompt, context, "class")

    assert PERTURBATIONS["swap_value"].expected_mask is ExpectedMask.NAMED
    assert variant.text == prompt.text.replace("Left ventricular cavity", "Myocardium")


def test_another_samples_prompt_is_lent_value_by_value(contexts, made):
    context = contexts("dfu")
    samples = context.population.samples
    assert len(samples) == 2

    for own, other in (samples, reversed(samples)):
        prompt, theirs = own.prompts["p6"][0], other.prompts["p6"][0]
        (variant,) = made("other_sample", prompt, replace(context, sample=own))
        assert variant.text == theirs.text
        assert all(edit.attribute for edit in variant.edits)


def test_nobody_to_borrow_from_is_counted(contexts, made):
    context = contexts("dfu")
    prompt = context.sample.prompts["p6"][0]
    reason = NotApplicable("too few prompts of other images say something else")

    alone = replace(context.population, samples=context.population.samples[:1], _drawn={})
    assert made("other_sample", prompt, replace(context, population=alone)) == [reason]
    assert made("other_sample", prompt, replace(context, sample=None)) == [reason]


def test_a_wrong_class_is_another_one_of_the_dataset(texts):
    text = "Myocardium of the heart."
    classes = {"class": ("Left atrium cavity", "Left ventricular cavity", "Myocardium")}

    found = texts("wrong_class", "camus", text, value_sets=classes)

    assert sorted(found) == [f"{name} of the heart." for name in sorted(classes["class"])[:2]]


def test_without_another_class_a_stranger_is_named(texts):
    strangers = LEXICON.strangers.classes

    found = texts("wrong_class", "kvasir_polyp", "round polyp", repeats=99)
    plural = texts(
        "wrong_class", "busi", "Two benign tumors in the breast ultrasound image.", repeats=99
    )

    assert sorted(found) == sorted(f"round {one}" for one, _ in strangers)
    assert {text.split(" in the")[0] for text in plural} == {
        f"Two benign {many}" for _, many in strangers
    }


def test_a_stranger_shares_no_word_with_the_class(texts, monkeypatch):
    found = texts("wrong_class", "dfu", "round foot ulcer", repeats=99)

    assert not any("foot" in text or "ulcer" in text for text in found)


@pytest.mark.parametrize("name", ["wrong_class", "absent"])
def test_what_says_that_there_is_none_has_no_class_to_change(texts, name):
    assert texts(name, "bkai_polyp", "no polyp") == ["'no polyp' already says that there is none"]

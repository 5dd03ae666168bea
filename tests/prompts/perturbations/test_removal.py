"""Words are taken away: what remains is said, and what cannot be taken is refused."""

from dataclasses import replace

import pytest

from harness.prompts.grammar import load_grammar
from harness.records import Edit, Meaning, NotApplicable, Variant

PHOTO = "one small white round polyp, located in top left of the image"


def test_empty_removes_everything(contexts, made):
    grammar, context = load_grammar("kvasir_polyp"), contexts("kvasir_polyp")
    prompt = grammar.parse(PHOTO)

    assert made("empty", prompt, context) == [Variant("", (Edit(0, len(PHOTO), PHOTO, ""),), "p0")]
    assert made("empty", grammar.parse(""), context) == [
        NotApplicable("the prompt is already empty")
    ]


@pytest.mark.parametrize(
    ("dataset", "attribute", "text", "expected"),
    [
        ("kvasir_polyp", "size", PHOTO, PHOTO.replace("small ", "")),
        ("kvasir_polyp", "number", PHOTO, PHOTO.replace("one ", "")),
        ("kvasir_polyp", "location", PHOTO, "one small white round polyp"),
        ("kvasir_polyp", "shape", "it is round polyp", "polyp"),
        (
            "kvasir_polyp",
            "location",
            "one small white round polyp which is a lump located in top of the image",
            "one small white round polyp which is a lump",
        ),
        ("kvasir_polyp", "description", "polyp which is a lump", "polyp"),
        (
            "busi",
            "number",
            "Two benign tumors in the breast ultrasound image.",
            "Benign tumors in the breast ultrasound image.",
        ),
        (
            "busi",
            "tumor_type",
            "Benign tumor in the breast ultrasound image.",
            "Tumor in the breast ultrasound image.",
        ),
        (
            "camus",
            "gender",
            "Myocardium in two-chamber view of the heart at end of the systole cycle of a male.",
            "Myocardium in two-chamber view of the heart at end of the systole cycle.",
        ),
        (
            "camus",
            "gender",
            "Myocardium in two-chamber view of the heart at end of the systole cycle of a "
            "seventy-year-old male.",
            "Myocardium in two-chamber view of the heart at end of the systole cycle of a "
            "seventy-year-old.",
        ),
        (
            "chexlocalize",
            "location",
            "Edema of shape oval, and located in top of the frontal view of a Chest Xray.",
            "Edema of shape oval in the frontal view of a Chest Xray.",
        ),
        (
            "chexlocalize",
            "pathology",
            "Edema in a Chest Xray. Edema, Fracture are present. ",
            "Edema in a Chest Xray. ",
        ),
    ],
)
def test_an_attribute_leaves_with_its_phrase(texts, dataset, attribute, text, expected):
    assert texts("drop_attribute", dataset, text, attribute) == [expected]


def test_the_class_cannot_be_left_out(texts):
    assert texts("drop_attribute", "kvasir_polyp", PHOTO, "class") == [
        "the grammar knows no sentence of p6 without class"
    ]


def test_an_attribute_that_is_not_named_cannot_be_left_out(texts):
    assert texts("drop_attribute", "kvasir_polyp", "polyp", "size") == ["the prompt names no size"]


@pytest.mark.parametrize(
    ("dataset", "text", "expected"),
    [
        ("kvasir_polyp", PHOTO, "polyp"),
        ("kvasir_polyp", "polyp", "the prompt is already its class word"),
        ("busi", "Two benign tumors in the breast ultrasound image.", "Tumors"),
        ("busi", "No tumor in the breast ultrasound image.", "No tumor"),
        ("camus", "Left ventricular cavity of the heart.", "Left ventricular cavity"),
    ],
)
def test_the_class_alone(texts, dataset, text, expected):
    assert texts("class_only", dataset, text) == [expected]


def test_truncation_keeps_a_beginning_of_whole_words(texts):
    found = texts("truncate", "kvasir_polyp", PHOTO, repeats=99)

    words = PHOTO.split()
    assert sorted(found, key=len) == [" ".join(words[:n]) for n in range(1, len(words))]
    assert texts("truncate", "kvasir_polyp", "polyp") == ["the prompt is a single word"]


def climb(contexts, made, dataset, rung, *rungs, index=0):
    context = contexts(dataset, rung)
    prompt = context.sample.prompts[rung][index]
    return made("prompt_type", prompt, replace(context, rungs=rungs) if rungs else context)


def test_the_ladder_holds_the_samples_own_prompts(contexts, made):
    context = contexts("kvasir_polyp")

    found = climb(contexts, made, "kvasir_polyp", "p6")

    own = context.sample.prompts
    expected = [p.text for rung in sorted(own) if rung != "p6" for p in own[rung]]
    assert [variant.text for variant in found] == expected
    assert [v.prompt_type for v in found][:7] == ["p0", "p1", "p2", "p3", "p4", "p5", "p7"]


def test_rungs_can_be_chosen(contexts, made):
    (variant,) = climb(contexts, made, "kvasir_polyp", "p6", "p3")

    assert (variant.text, variant.prompt_type) == ("white round polyp", "p3")


def test_a_rung_that_only_adds_keeps_the_meaning(contexts, made):
    """P9 says all that P6 says; P7 and P8 leave something out."""
    meanings = {
        rung: {variant.meaning for variant in climb(contexts, made, "kvasir_polyp", "p6", rung)}
        for rung in ("p1", "p5", "p7", "p8", "p9")
    }

    assert meanings.pop("p9") == {Meaning.PRESERVED}
    assert set(map(frozenset, meanings.values())) == {frozenset({None})}


def test_prompts_of_a_list_climb_to_the_same_place(contexts, made):
    context = contexts("camus")

    (variant,) = climb(contexts, made, "camus", "p6", "p2", index=1)

    assert variant.text == context.sample.prompts["p2"][1].text


def test_a_rung_without_a_prompt_or_with_the_same_text_is_counted(contexts, made):
    context = contexts("busi")
    normal = next(s for s in context.population.samples if s.prompts["p6"][0].text[:2] == "No")
    prompt = normal.prompts["p6"][0]

    found = made("prompt_type", prompt, replace(context, sample=normal, rungs=("p1", "p9")))

    assert found == [
        NotApplicable("the p1 prompt is the same text as another rung's"),
        NotApplicable("the row has no p9 prompt"),
    ]

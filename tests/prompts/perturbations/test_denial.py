"""Contradictions, denials, and targets that are not there."""

from dataclasses import replace

import pytest

from harness.cards import load_dataset_card
from harness.prompts.grammar import load_grammar
from harness.prompts.lexicon import load_lexicon
from harness.prompts.perturbations import PERTURBATIONS
from harness.prompts.population import Population
from harness.records import ExpectedMask

PHOTO = "one small white round polyp, located in top of the image"
CAMUS = "Myocardium in two-chamber view of the heart at end of the systole cycle of a "
CHEST = "Edema of shape oval, and located in top of the frontal view of a Chest Xray."


@pytest.mark.parametrize(
    ("dataset", "attribute", "text", "expected"),
    [
        ("kvasir_polyp", "size", PHOTO, PHOTO.replace("small", "small yet large")),
        ("kvasir_polyp", "location", PHOTO, PHOTO.replace("top", "top yet bottom")),
        ("kvasir_polyp", "class", "polyp", "polyp yet no polyp"),
        ("kvasir_polyp", "shape", "it is round polyp", "it is round yet square polyp"),
        ("kvasir_polyp", "shape", "a circle polyp", "a circle yet a square polyp"),
        (
            "camus",
            "age",
            f"{CAMUS}seventy-year-old male.",
            f"{CAMUS}seventy-year-old yet twenty-five-year-old male.",
        ),
        (
            "camus",
            "view",
            f"{CAMUS}male.",
            f"{CAMUS}male.".replace("two-chamber", "two-chamber yet four-chamber"),
        ),
        (
            "busi",
            "tumor_type",
            "Benign tumor in the breast ultrasound image.",
            "Benign yet malignant tumor in the breast ultrasound image.",
        ),
    ],
)
def test_a_value_and_its_opposite_stand_together(texts, dataset, attribute, text, expected):
    assert texts("contradiction", dataset, text, attribute) == [expected]


@pytest.mark.parametrize(
    ("attribute", "text", "reason"),
    [
        (
            "location",
            PHOTO.replace("top", "top, left"),
            "'top, left' lists several values, which do not exclude each other",
        ),
        (
            "location",
            PHOTO.replace("top", "center"),
            "no value excludes 'center' in the curated lexicon",
        ),
    ],
)
def test_what_does_not_exclude_is_no_contradiction(texts, attribute, text, reason):
    assert texts("contradiction", "kvasir_polyp", text, attribute) == [reason]


@pytest.mark.parametrize(
    ("dataset", "attribute", "text", "expected"),
    [
        ("kvasir_polyp", "class", PHOTO, PHOTO.replace("one", "no")),
        ("kvasir_polyp", "class", "white round polyp", "no white round polyp"),
        ("kvasir_polyp", "color", PHOTO, PHOTO.replace("white", "non-white")),
        ("kvasir_polyp", "location", PHOTO, PHOTO.replace("located", "not located")),
        ("kvasir_polyp", "description", "polyp which is a lump", "polyp which is not a lump"),
        (
            "busi",
            "class",
            "Two benign tumors in the breast ultrasound image.",
            "No benign tumors in the breast ultrasound image.",
        ),
        (
            "busi",
            "tumor_type",
            "Benign tumor in the breast ultrasound image.",
            "Non-benign tumor in the breast ultrasound image.",
        ),
        (
            "camus",
            "class",
            "Left atrium cavity of the heart.",
            "No left atrium cavity of the heart.",
        ),
        ("camus", "gender", f"{CAMUS}male.", f"{CAMUS}patient who is not male."),
        (
            "camus",
            "gender",
            f"{CAMUS}seventy-year-old male.",
            f"{CAMUS}seventy-year-old who is not male.",
        ),
        ("chexlocalize", "class", CHEST, CHEST.replace("Edema", "No edema")),
        ("chexlocalize", "view", CHEST, CHEST.replace("the frontal", "a non-frontal")),
        (
            "chexlocalize",
            "pathology",
            f"{CHEST} Edema, Lung Opacity, Fracture are present.",
            f"{CHEST} Fracture is not present.",
        ),
        (
            "chexlocalize",
            "pathology",
            f"{CHEST} Edema, Fracture, Support Devices are present.",
            f"{CHEST} Fracture, Support Devices are not present.",
        ),
        (
            "chexlocalize",
            "class",
            f"{CHEST} Edema, Fracture are present.",
            f"{CHEST.replace('Edema', 'No edema')} Fracture is present.",
        ),
        (
            "chexlocalize",
            "class",
            f"{CHEST} Edema are present.",
            CHEST.replace("Edema", "No edema"),
        ),
        (
            "chexlocalize",
            "class",
            "Airspace Opacity in a Chest Xray. Lung Opacity, Edema, Support Devices are present. ",
            "No Airspace Opacity in a Chest Xray. Support Devices are present. ",
        ),
    ],
)
def test_denials(texts, dataset, attribute, text, expected):
    assert texts("negation", dataset, text, attribute) == [expected]


@pytest.mark.parametrize(
    ("attribute", "text", "reason"),
    [
        ("class", "no polyp", "'no polyp' already says that there is none"),
        ("shape", "it is round polyp", "'it is round' is no single word to be denied"),
        ("number", PHOTO, "the grammar knows no sentence of p6 that denies number"),
    ],
)
def test_what_cannot_be_denied_is_counted(texts, attribute, text, reason):
    assert texts("negation", "kvasir_polyp", text, attribute) == [reason]


def test_findings_that_the_class_implies_are_not_denied(texts):
    text = f"{CHEST} Lung Opacity, Edema are present."

    assert texts("negation", "chexlocalize", text, "pathology") == [
        "denying 'Lung Opacity, Edema' would deny the class"
    ]


def test_a_kind_of_what_the_image_shows_is_not_absent(contexts, made):
    """Where there is an edema, there is an airspace opacity."""
    context = contexts("chexlocalize", "p1")
    prompt = context.grammar.parse("Edema in a chest Xray.", prompt_type="p1")
    sample = replace(context.sample, prompts={"p1": (prompt,)})
    known = replace(
        context,
        sample=sample,
        population=Population([sample], "p1", complete=True),
        value_sets={"class": ("Airspace Opacity", "Atelectasis", "Edema")},
        _memory={},
    )

    found = made("absent", prompt, known, repeats=9)

    assert [v.edits[0].new for v in found] == ["Atelectasis"]


def test_the_mask_of_what_is_absent_is_empty():
    assert PERTURBATIONS["absent"].expected_mask is ExpectedMask.EMPTY


def test_things_that_no_such_picture_shows_are_absent(texts):
    found = texts("absent", "kvasir_polyp", PHOTO, repeats=99)

    things = load_lexicon().strangers.things
    assert sorted(found) == sorted(PHOTO.replace("polyp", one) for one, _ in things)


def test_where_all_targets_are_known_another_class_is_absent(contexts, made):
    context = contexts("chexlocalize")
    sample = context.sample
    prompt = sample.prompts["p5"][0]
    classes = load_dataset_card("chexlocalize").grammar.attributes["class"].values
    known = replace(context, value_sets={"class": tuple(sorted(classes))}, _memory={})

    found = made("absent", prompt, known, repeats=99)

    # Nothing that the sentence of findings lists, and no lung opacity by another name.
    spoken = {*prompt.values["pathology"].split(", "), prompt.values["class"]}
    offered = {variant.edits[0].new for variant in found}
    assert offered
    assert offered <= set(classes) - spoken
    assert "Lung Opacity" in spoken
    assert "Airspace Opacity" not in offered


def test_where_every_class_is_shown_a_thing_is_absent(contexts, made):
    context = contexts("camus")
    samples = [replace(s, image_id="one") for s in context.population.samples]
    population = Population(samples, "p6", complete=True)
    prompt = samples[0].prompts["p6"][0]
    shown = {s.prompts["p6"][0].values["class"] for s in samples}
    around = replace(
        context,
        sample=samples[0],
        population=population,
        value_sets={"class": tuple(sorted(shown))},
        _memory={},
    )

    found = made("absent", prompt, around, repeats=2)

    things = {one.capitalize() for one, _ in load_lexicon().strangers.things}
    assert {variant.edits[0].new for variant in found} <= things


def test_denials_keep_the_grammar_where_it_knows_them(texts):
    grammar = load_grammar("bkai_polyp")
    (text,) = texts("negation", "bkai_polyp", "polyp", "class")

    assert grammar.parse(text).values == {"class": "no polyp"}

"""Contradictions, denials, and targets that are not there."""

from dataclasses import replace

import pytest

from harness.prompts.context import Context
from harness.prompts.grammar import load_grammar
from harness.prompts.lexicon import load_lexicon
from harness.prompts.population import Population

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


def test_denials_keep_the_grammar_where_it_knows_them(texts):
    grammar = load_grammar("bkai_polyp")
    (text,) = texts("negation", "bkai_polyp", "polyp", "class")

    assert grammar.parse(text).values == {"class": "no polyp"}


@pytest.fixture
def crowd(contexts):
    """The context of a picture with three lesions, the first two of them red, and its prompts."""
    context = Context(load_grammar("phantom_crowd"), load_lexicon())
    base = contexts("kvasir_polyp").sample
    texts = ("one small red round polyp", "one large red oval polyp", "one small black oval tumor")
    texts = [text.replace("round", "circle") for text in texts]
    prompts = [context.grammar.parse(text, prompt_type="p5") for text in texts]
    samples = [
        replace(base, sample_id=f"s{k}", image_id="one", prompts={"p5": (prompt,)})
        for k, prompt in enumerate(prompts)
    ]
    population = Population(samples, "p5", complete=True)
    return replace(context, sample=samples[0], population=population, _memory={}), prompts


def test_what_all_targets_but_one_are_names_that_one_by_denial(crowd, made):
    context, (first, *_) = crowd
    (color,) = made("negation_named", first, context, "color")
    assert (color.text, color.target) == ("the one that is not red", "s2")


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [
        ("shape", "not exactly one target of the image is certainly not 'circle'"),
        # A polyp may be a tumor.
        ("class", "not exactly one target of the image is certainly not 'polyp'"),
        ("number", "one target cannot be told by not being 'one'"),
    ],
)
def test_a_denial_that_names_none_or_several_is_not_made(crowd, made, attribute, reason):
    context, (first, *_) = crowd
    assert [o.reason for o in made("negation_named", first, context, attribute)] == [reason]


def test_where_targets_may_be_missing_no_denial_names_one(crowd, made):
    context, (first, *_) = crowd
    unknown = replace(context, population=Population(context.population.samples, "p5"))
    (why,) = made("negation_named", first, unknown, "color")
    assert why.reason == "the data set does not say what else its pictures show"

"""Targets that are not there, by how far they are from what is."""

from dataclasses import replace

import pytest

from harness.cards import load_dataset_card
from harness.prompts.entries import read_kin
from harness.prompts.lexicon import load_lexicon
from harness.prompts.perturbations import PERTURBATIONS
from harness.prompts.perturbations.absence import KINDS
from harness.prompts.population import Population
from harness.records import ExpectedMask, NotApplicable

PHOTO = "one small white round polyp, located in top of the image"


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


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_has_an_empty_right_mask(name):
    assert PERTURBATIONS[name].expected_mask is ExpectedMask.EMPTY


@pytest.mark.parametrize(
    ("name", "nouns"),
    [
        ("absent_near", read_kin().near[0].nouns),
        ("absent_far", load_lexicon().strangers.things),
        ("absent_modality", load_lexicon().strangers.classes),
        ("absent_nonsense", read_kin().nonsense),
    ],
)
def test_the_class_word_alone_becomes_one_of_the_kind(texts, name, nouns):
    found = texts(name, "kvasir_polyp", PHOTO, repeats=99)
    assert sorted(found) == sorted(PHOTO.replace("polyp", one) for one, _ in nouns)


def test_what_is_near_is_of_the_same_organ(texts):
    text = "Two benign tumors in the breast ultrasound image."
    (found,) = texts("absent_near", "busi", text, repeats=1)
    assert found.removeprefix("Two benign ").removesuffix(" in the breast ultrasound image.") in {
        many for _, many in read_kin().near[1].nouns
    }


def test_no_nonsense_is_a_word():
    real = load_lexicon().real_words if hasattr(load_lexicon(), "real_words") else ()
    assert not {one for one, _ in read_kin().nonsense} & set(real)


def test_where_all_targets_are_known_the_near_thing_is_a_class_that_is_not_shown(contexts, made):
    context = contexts("chexlocalize")
    sample = context.sample
    prompt = sample.prompts["p5"][0]
    classes = load_dataset_card("chexlocalize").grammar.attributes["class"].values
    known = replace(context, value_sets={"class": tuple(sorted(classes))}, _memory={})
    offered = {v.edits[0].new for v in made("absent_near", prompt, known, repeats=99)}
    assert offered
    assert offered <= set(classes) - {*prompt.values["pathology"].split(", "), "Lung Opacity"}


def test_a_target_of_another_image_is_none_of_this_one(contexts, made):
    context = contexts("camus")
    mine, *others = context.population.samples
    own = mine.prompts["p6"][0]
    population = Population(context.population.samples, "p6", complete=True)
    around = replace(context, sample=mine, population=population, _memory={})
    found = made("absent_target", own, around, repeats=99)
    lent = {s.prompts["p6"][0].text for s in others if s.image_id != mine.image_id}
    texts = {v.text for v in found if not isinstance(v, NotApplicable)}
    assert texts <= lent
    shown = [s.prompts["p6"][0] for s in population.of_image(mine.image_id)]
    other = {s.prompts["p6"][0].text: s.prompts["p6"][0] for s in others}
    assert all(context.reader.exclude(one, other[text]) for text in texts for one in shown)
    (why,) = made("absent_target", own, replace(around, population=Population()))
    assert why.reason == "the data set does not say what else its pictures show"


def test_a_wrong_class_that_is_not_in_the_picture_has_an_empty_right_mask(contexts, made):
    """A stranger never is; another class of the data set only where all targets are known."""
    context = contexts("kvasir_polyp")
    prompt = context.grammar.parse("round polyp", prompt_type="p2")
    (stranger,) = made("wrong_class", prompt, context, repeats=1)
    assert stranger.expected_mask is ExpectedMask.EMPTY

    context = contexts("camus")
    own = context.sample.prompts["p6"][0]
    classes = {s.prompts["p6"][0].values["class"] for s in context.population.samples}
    sets = {"class": tuple(sorted({*classes, "Myocardium", "Left atrium cavity"}))}
    for complete, wanted in ((False, {None}), (True, {ExpectedMask.EMPTY})):
        alone = Population([context.sample], "p6", complete=complete)
        around = replace(context, population=alone, value_sets=sets, _memory={})
        found = made("wrong_class", own, around, repeats=9)
        assert {v.expected_mask for v in found} == wanted

"""Sentences of infected areas: parsed and rendered byte for byte, and changed as a whole."""

import re

import numpy as np
import pytest

from harness.cards import DatasetCard, load_dataset_card
from harness.errors import CardError
from harness.files import shipped
from harness.prompts.coherence import contradiction, n_areas, places
from harness.prompts.context import Context
from harness.prompts.freetext.terms import suit
from harness.prompts.grammar import LEXICON, load_grammar
from harness.prompts.lexicon import load_lexicon
from harness.prompts.perturbations import PERTURBATIONS, variants_of
from harness.records import Variant

CARD = load_dataset_card("qata_cov19")
GRAMMAR, LEXICON_OF_PLACES = load_grammar(CARD), suit(load_lexicon(), CARD)
B, U = "Bilateral pulmonary infection, ", "Unilateral pulmonary infection, "
SENTENCES = (
    f"{B}two infected areas, all left lung and all right lung.",
    f"{B}two infected areas,lower left lung and all right lung.",
    f"{B}two infected areas,  middle lower left lung and lower right lung.",
    f"{B}two infected areas, upper midlle left lung and lower right lung.",
    f"{B}two infected areas, middle upper left lung and all right lung.",
    f"{B}three infected areas, all left lung and upper lower right lung.",
    f"{U}one infected area, upper middle left lung.",
    f"{U}two infected areas, upper lower right lung.",
)


def made(name, text, attribute, values=None):
    prompt = GRAMMAR.parse(text, prompt_type="p9")
    around = Context(GRAMMAR, LEXICON_OF_PLACES, values or {})
    found = variants_of(
        PERTURBATIONS[name],
        prompt,
        attribute=attribute,
        context=around,
        rng=np.random.default_rng(0),
        repeats=9,
    )
    return [o.text if isinstance(o, Variant) else o.reason for o in found]


def check_round_trip(text):
    prompt = GRAMMAR.parse(text, prompt_type="p9")
    assert prompt.template != LEXICON
    assert GRAMMAR.render("p9", prompt.values, template=prompt.template) == text


@pytest.mark.parametrize("text", SENTENCES)
def test_sentences_come_back_byte_for_byte(text):
    check_round_trip(text)


def test_released_sentences_come_back_byte_for_byte(shared_reference):
    facts = shared_reference / "qata.md"
    sentences = facts.read_text(encoding="utf-8").split("```")[-2].strip().splitlines()
    assert len(sentences) == 14
    for text in sentences:
        check_round_trip(text)


@pytest.mark.parametrize("zone", CARD.grammar.attributes["zone"].values)
@pytest.mark.parametrize("blank", ["", " ", "  "])
def test_every_zone_and_blank_comes_back(zone, blank):
    check_round_trip(f"{B}four infected areas,{blank}{zone} left lung and lower right lung.")
    check_round_trip(f"Unilateral pulmonary infection,{blank}one infected area, {zone} left lung.")


def test_mosmed_has_the_same_sentences():
    mosmed = load_dataset_card("mosmeddata_plus")
    assert mosmed.grammar == CARD.grammar


@pytest.mark.parametrize(
    ("text", "attribute", "said"),
    [
        (0, "laterality", f"{U}one infected area, all left lung."),
        (1, "laterality", f"{U}one infected area,lower left lung."),
        (6, "laterality", f"{B}two infected areas, upper middle left lung and upper middle right "
         "lung."),
        (7, "laterality", f"{B}four infected areas, upper lower right lung and upper lower left "
         "lung."),
        (0, "side", "both sides show the same zones, so that exchanging them changes nothing"),
        (1, "side", f"{B}two infected areas,lower right lung and all left lung."),
        (6, "side", f"{U}one infected area, upper middle right lung."),
        (1, "second_side", "the second side changes with the first"),
        (2, "zone", f"{B}two infected areas,  upper middle left lung and lower right lung."),
        (3, "second_zone", f"{B}two infected areas, upper midlle left lung and upper right lung."),
        (6, "number", f"{U}many infected areas, upper middle left lung."),
        (0, "number", "'one' contradicts the 2 areas of its places"),
    ],
)  # fmt: skip
def test_opposites_leave_a_plausible_sentence(text, attribute, said):
    assert made("antonym", SENTENCES[text], attribute) == [said]


def test_numbers_are_exchanged_with_their_noun_and_never_too_few():
    values = {"number": ("one", "two", "three", "four")}

    single = made("swap_value", SENTENCES[6], "number", values)
    double = made("swap_value", SENTENCES[0], "number", values)

    assert sorted(single) == [
        f"{U}{n} infected areas, upper middle left lung." for n in ("four", "three", "two")
    ]
    assert sorted(double) == [
        f"{B}{n} infected areas, all left lung and all right lung." for n in ("four", "three")
    ]


@pytest.mark.parametrize("text", SENTENCES)
@pytest.mark.parametrize("attribute", ["laterality", "side", "zone", "second_zone", "number"])
def test_changed_sentences_contradict_nothing(text, attribute):
    if attribute not in GRAMMAR.parse(text, prompt_type="p9").values:
        return
    for changed in made("antonym", text, attribute):
        if "infection" in changed:
            values = GRAMMAR.parse(changed, prompt_type="p9").values
            assert contradiction(values, LEXICON_OF_PLACES) is None
            is_one = values["number"] == "one"
            assert ("infected area," in changed) == is_one


@pytest.mark.parametrize(("text", "areas"), [(0, 2), (2, 2), (5, 3), (6, 1), (7, 2)])
def test_zones_that_follow_each_other_are_one_area(text, areas):
    values = GRAMMAR.parse(SENTENCES[text], prompt_type="p9").values
    assert n_areas(values, LEXICON_OF_PLACES) == areas


def test_contradictions_are_told():
    def reason(text):
        return contradiction(GRAMMAR.parse(text, prompt_type="p9").values, LEXICON_OF_PLACES)

    assert reason(f"{B}one infected area, all left lung.") == (
        "'Bilateral' contradicts the side left"
    )
    assert reason(f"{U}two infected areas, all left lung and all right lung.") == (
        "'Unilateral' contradicts the sides left and right"
    )
    assert reason(f"{U}two infected areas, all left lung and all left lung.") == (
        "'upper middle lower left' stands twice"
    )
    assert places({}, LEXICON_OF_PLACES) == []


def test_what_fits_no_sentence_is_read_by_the_lexicon():
    prompt = GRAMMAR.parse("Bilateral infection of the upper left lung", prompt_type="p9")

    assert prompt.template == LEXICON
    assert prompt.values == {
        "laterality": "Bilateral", "class": "infection", "location": "upper left"
    }  # fmt: skip


def test_too_many_spellings_are_refused():
    content = CARD.model_dump() | {"grammar": CARD.grammar.model_dump()}
    content["grammar"]["spellings"] = {" ": ["", "  ", "   "]}
    message = "has 16384 spellings with ' '. At most 64 are tried. Give fewer spellings, of longer"
    with pytest.raises(CardError, match=re.escape(message)):
        load_grammar(DatasetCard.model_validate(content))


def test_the_grammar_of_a_set_that_ships_is_taken_by_its_name(tmp_path):
    content = (shipped("suites") / "datasets" / "mosmeddata_plus.yaml").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(content.replace("mosmeddata_plus", "mine"), encoding="utf-8")
    assert load_dataset_card(path).grammar == CARD.grammar

    path.write_text(content.replace("qata_cov19", "qata_covid"), encoding="utf-8")
    message = (
        "mine.yaml:14: grammar: found 'qata_covid'. no shipped data set is called that. Did you "
        "mean 'qata_cov19'? Known: 'bkai_polyp'"
    )
    with pytest.raises(CardError, match=re.escape(message)):
        load_dataset_card(path)

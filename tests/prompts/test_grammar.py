"""Parsing and rendering with the shipped dataset cards, without any real data."""

import json
import re
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cards import DatasetCard, dataset_names
from harness.errors import CardError, PromptError
from harness.prompts.grammar import MAX_LENGTH, load_grammar

ROWS = json.loads((Path(__file__).parent / "rows.json").read_text(encoding="utf-8"))
PROMPTS = [
    (dataset, prompt_type, index, text)
    for dataset, rows in ROWS.items()
    for row in rows
    for prompt_type, texts in row.items()
    for index, text in enumerate(texts if isinstance(texts, list) else [texts])
]
GRAMMARS = {name: load_grammar(name) for name in ROWS}


def refused(message):
    return pytest.raises(PromptError, match="^" + re.escape(message) + "$")


def card(**grammar):
    """A small card of one's own."""
    return DatasetCard.model_validate(
        {
            "name": "mine",
            "title": "Mine",
            "modality": "none",
            "source": "none",
            "licence": "none",
            "splits": ["test"],
            "prompt_type": "p2",
            "clusters": {"rule": "image"},
            "grammar": {
                "attributes": {"class": {"values": ["cat"]}, "shape": {"free": True}},
                "prompts": {"p1": ["{class}"], "p2": ["{shape} {class}"]},
            }
            | grammar,
        }
    )


@pytest.mark.parametrize(("dataset", "prompt_type", "index", "text"), PROMPTS)
def test_parsing_then_rendering_gives_the_same_text(dataset, prompt_type, index, text):
    grammar = GRAMMARS[dataset]

    prompt = grammar.parse(text, prompt_type=prompt_type, index=index)

    assert (prompt.text, prompt.prompt_type, prompt.index) == (text, prompt_type, index)
    assert grammar.render(prompt_type, prompt.values, template=prompt.template) == text
    assert all(text[s.start : s.end] == s.value for s in prompt.spans)
    assert set(prompt.values) <= set(grammar.attributes(prompt_type))


@pytest.mark.parametrize(("dataset", "prompt_type", "index", "text"), PROMPTS)
def test_the_type_of_a_prompt_is_found(dataset, prompt_type, index, text):
    found = GRAMMARS[dataset].parse(text)

    if text.lower().startswith("no "):  # the same sentence on every rung: the lowest is taken
        assert found.prompt_type == "p1"
    else:
        assert found == GRAMMARS[dataset].parse(text, prompt_type=prompt_type)


def test_the_fixture_holds_every_dataset_family_and_every_rung():
    """Sharing one grammar, the other polyp sets need no rows of their own."""
    photo = load_grammar("kvasir_polyp").card
    others = set(dataset_names()) - set(ROWS)
    assert {n for n in others if "polyp" in n} == {"colondb_polyp", "cvc300_polyp", "etis_polyp"}
    for name in ("colondb_polyp", "cvc300_polyp", "etis_polyp", "clinicdb_polyp"):
        assert load_grammar(name).card == photo
    # BKAI has a further last template, for rows whose released prompt denies the polyp.
    bkai = load_grammar("bkai_polyp").card
    assert bkai.attributes == photo.attributes
    assert {k: v[: len(photo.prompts[k])] for k, v in bkai.prompts.items()} == photo.prompts
    assert Counter(kind for _, kind, _, _ in PROMPTS).keys() == {f"p{n}" for n in range(10)}


@pytest.mark.parametrize(
    ("dataset", "prompt_type", "text", "values"),
    [
        (
            "clinicdb_polyp",
            "p6",
            "one small pink a large, oval bump polyp, located in bottom of the image",
            {
                "number": "one",
                "size": "small",
                "color": "pink",
                "shape": "a large, oval bump",
                "class": "polyp",
                "location": "bottom",
            },
        ),
        (
            "dfu",
            "p4",
            "tiny, small red foot foot ulcer",
            {"size": "tiny, small", "color": "red", "shape": "foot", "class": "foot ulcer"},
        ),
        (
            "isic",
            "p7",
            "skin melanoma which is a spot which is dark",
            {"class": "skin melanoma", "description": "a spot which is dark"},
        ),
        (
            "kvasir_polyp",
            "p9",
            "one small white round polyp which is low, located in it located in top left of the "
            "image",
            {
                "number": "one",
                "size": "small",
                "color": "white",
                "shape": "round",
                "class": "polyp",
                "description": "low, located in it",
                "location": "top left",
            },
        ),
        ("bkai_polyp", "p6", "no polyp", {"class": "no polyp"}),
        ("busi", "p3", "No tumor in the breast ultrasound image.", {"class": "No tumor"}),
        (
            "busi",
            "p6",
            "Two small, medium a fingerprint-shaped irregular tumors at the top, top left in the "
            "breast ultrasound image.",
            {
                "number": "Two",
                "size": "small, medium",
                "shape": "a fingerprint",
                "tumor_type": "irregular",
                "class": "tumors",
                "location": "top, top left",
            },
        ),
        (
            "camus",
            "p5",
            "Myocardium in four-chamber view in the cardiac ultrasound at end of the systole cycle "
            "of a twenty-one-year-old female.",
            {
                "class": "Myocardium",
                "view": "four",
                "cycle": "systole",
                "age": "twenty-one",
                "gender": "female",
            },
        ),
        (
            "chexlocalize",
            "p6",
            "Lung Lesion in a Chest Xray. Edema, Pleural Other are present. ",
            {"class": "Lung Lesion", "pathology": "Edema, Pleural Other"},
        ),
        (
            "chexlocalize",
            "p3",
            "Edema of shape square, oval in the lateral view of a Chest Xray.",
            {"class": "Edema", "shape": "square, oval", "view": "lateral"},
        ),
    ],
)
def test_spans_of_difficult_prompts(dataset, prompt_type, text, values):
    assert load_grammar(dataset).parse(text, prompt_type=prompt_type).values == values


# Independent of the cards: the sentence of P6 as the paper's code writes it.
photo_values = st.fixed_dictionaries(
    {
        "number": st.sampled_from(["one", "two", "thirteen", "nineteen", "many"]),
        "size": st.sampled_from(["tiny", "small", "tiny, small", "small, medium, large"]),
        "color": st.sampled_from(["white", "grey", "peach", "silver"]),
        "shape": st.sampled_from(["round", "it is round", "a large, oval bump", "large", "x-ray"]),
        "class": st.just("polyp"),
        "location": st.lists(
            st.sampled_from(["center", "top", "top left", "bottom right", "left"]),
            min_size=1,
            max_size=20,
        ).map(", ".join),
    }
)


@given(photo_values)
def test_values_are_recovered_from_the_sentence(values):
    text = (
        "{number} {size} {color} {shape} {class}, located in {location} of the image"
    ).format_map(values)

    prompt = load_kvasir().parse(text)

    assert (prompt.prompt_type, prompt.values) == ("p6", values)
    assert load_kvasir().render("p6", values) == text


def load_kvasir():
    return GRAMMARS["kvasir_polyp"]


def test_rendering_without_a_template_finds_the_one_with_these_attributes():
    grammar = load_kvasir()

    assert grammar.render("p2", {"shape": "round", "class": "polyp"}) == "round polyp"
    assert grammar.render("p2", {"class": "no polyp"}) == "no polyp"
    assert grammar.render("p0", {}) == ""


def test_attributes_come_in_the_order_of_the_sentence():
    assert load_kvasir().attributes("p6") == (
        *("number", "size", "color", "shape", "class", "location"),
    )
    assert load_kvasir().attributes("p0") == ()
    assert GRAMMARS["camus"].attributes("p7") == (
        *("class", "shape", "view", "cycle", "age", "gender", "quality"),
    )
    assert GRAMMARS["camus"].prompt_types == tuple(f"p{n}" for n in range(8))


def test_an_unmatched_prompt_is_told_where_it_stops_to_fit():
    with refused(
        "dataset 'kvasir_polyp': the prompt 'one small white round polyp, located in middle of the "
        "image' matches no template of p6. The nearest pattern is '{number} {size} {color} {shape} "
        "{class}, located in {location} of the image' (p6): at character 40 it wants {location}, "
        "the text goes on with 'middle of the image'. Correct the prompt or add its pattern to the "
        "grammar of the dataset card."
    ):
        load_kvasir().parse(
            "one small white round polyp, located in middle of the image", prompt_type="p6"
        )


def test_an_unmatched_prompt_of_unknown_type_is_told_the_nearest_of_all():
    with refused(
        "dataset 'chexlocalize': the prompt 'Edema in a Chest Xray. Edema are present.' matches no "
        "template of any prompt type. The nearest pattern is '{class} in a Chest Xray. {pathology} "
        "are present. ' (p6): at character 28 it wants ' are present. ', the text goes on with "
        "' are present.'. Correct the prompt or add its pattern to the grammar of the dataset card."
    ):
        GRAMMARS["chexlocalize"].parse("Edema in a Chest Xray. Edema are present.")


def test_the_nearest_of_two_templates_is_the_one_the_text_resembles():
    with refused(
        "dataset 'busi': the prompt 'No tumour in the breast ultrasound image.' matches no "
        "template of p6. The nearest pattern is '{class=No tumor} in the breast ultrasound image.' "
        "(p6): at character 0 it wants 'No tumor', the text goes on with "
        "'No tumour in the breast ultras'. Correct the prompt or add its pattern to the grammar "
        "of the dataset card."
    ):
        GRAMMARS["busi"].parse("No tumour in the breast ultrasound image.", prompt_type="p6")


def test_a_prompt_that_ends_too_soon_is_told_what_is_missing():
    with refused(
        "dataset 'kvasir_polyp': the prompt 'one small white round polyp' matches no template of "
        "p6. The nearest pattern is '{number} {size} {color} {shape} {class}, located in "
        "{location} of the image' (p6): at character 27 it wants ', located in ', the text ends. "
        "Correct the prompt or add its pattern to the grammar of the dataset card."
    ):
        load_kvasir().parse("one small white round polyp", prompt_type="p6")


def test_a_long_unmatched_prompt_is_quoted_in_part():
    text = "y" * 500
    with pytest.raises(PromptError, match=re.escape(f"the prompt '{'y' * 197}...' matches no")):
        load_kvasir().parse(text)


def test_an_unknown_prompt_type_is_answered_with_the_nearest():
    known = ", ".join(f"'p{n}'" for n in range(8))
    message = (
        "dataset 'camus': unknown prompt type 'p11'. Did you mean 'p1'? "
        f"Known prompt types: {known}."
    )
    with refused(message):
        GRAMMARS["camus"].parse("Myocardium of the heart.", prompt_type="p11")
    with refused(message.replace("p11", "x").replace(" Did you mean 'p1'?", "")):
        GRAMMARS["camus"].attributes("x")


def test_a_hostile_prompt_is_refused_for_its_length():
    with refused(
        "dataset 'kvasir_polyp': found a prompt of 10000 characters that begins 'small, small, "
        f"small, small, small, small'. At most {MAX_LENGTH} are read. Shorten the prompt."
    ):
        load_kvasir().parse(("small, " * 2000)[:10_000], prompt_type="p6")


@pytest.mark.parametrize(
    "text",
    [
        "one small white x polyp" + " which is polyp" * 200,
        "one small white x polyp which is" + " located in top, top left" * 200,
        "one " + "small, " * 400,
        "polyp" * 600,
    ],
    ids=["which", "located", "sizes", "class"],
)
def test_a_hostile_prompt_of_allowed_length_ends_soon(text):
    start = time.perf_counter()
    for grammar in GRAMMARS.values():
        try:
            prompt = grammar.parse(text[:MAX_LENGTH])
        except PromptError:
            continue
        assert grammar.render(prompt.prompt_type, prompt.values) == text[:MAX_LENGTH]
    assert time.perf_counter() - start < 2


def test_values_that_no_template_takes_are_refused():
    with refused(
        "dataset 'kvasir_polyp': no template of p2 takes the values {'shape': 'round'}. Its "
        "templates are '{class=no polyp}', '{shape} {class}'. Give each of its slots a value that "
        "the dataset card allows."
    ):
        load_kvasir().render("p2", {"shape": "round"})


def test_a_template_that_does_not_exist_is_refused():
    with refused(
        "dataset 'kvasir_polyp': p2 has no template 2. It has 2, counted from 0. Choose one of "
        "them."
    ):
        load_kvasir().render("p2", {"shape": "round", "class": "polyp"}, template=2)


def test_a_card_of_ones_own_is_compiled():
    grammar = load_grammar(card())

    assert grammar.parse("round cat").values == {"shape": "round", "class": "cat"}
    assert grammar.dataset == "mine"


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (
            {"p2": []},
            "dataset card 'mine': grammar.prompts.p2: found an empty list. A prompt type needs at "
            "least one template. Add one or remove the type.",
        ),
        (
            {"p1": ["{class}"], "p2": ["{shap} {class}"]},
            "dataset card 'mine': grammar.prompts.p2[0]: the slot '{shap}' names no attribute. Did "
            "you mean 'shape'? Known attributes: 'class', 'shape'. Correct the slot or add the "
            "attribute to the card.",
        ),
        (
            {"p1": ["{class}"]},
            "dataset card 'mine': grammar.attributes.shape: no template has a slot {shape}. Every "
            "attribute stands in one. Add the slot or remove the attribute.",
        ),
    ],
)
def test_a_wrong_grammar_is_explained(prompts, message):
    with pytest.raises(CardError, match="^" + re.escape(message) + "$"):
        load_grammar(card(prompts=prompts))

"""The contract of every perturbation, and what each of them does."""

import json
import re
from collections import Counter
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import PromptError, SuiteError
from harness.prompts import perturbations as module
from harness.prompts.grammar import load_grammar
from harness.prompts.lexicon import load_lexicon
from harness.prompts.perturbations import (
    PERTURBATIONS,
    Context,
    Enumerated,
    Sampled,
    apply_edits,
    invert_edits,
    load_outside,
    variants_of,
)
from harness.prompts.words import draw_words
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Variant

ROWS = json.loads((Path(__file__).parent / "rows.json").read_text(encoding="utf-8"))
LEXICON = load_lexicon("curated")
WORDS = draw_words(10, 0)


def prompts_of(dataset):
    grammar = load_grammar(dataset)
    return [
        grammar.parse(text, prompt_type=kind, index=index)
        for row in ROWS[dataset]
        for kind, texts in row.items()
        for index, text in enumerate(texts if isinstance(texts, list) else [texts])
    ]


def context_of(dataset, **changes):
    prompts = prompts_of(dataset)
    values = {}
    for prompt in prompts:
        for attribute, value in prompt.values.items():
            values.setdefault(attribute, set()).add(value)
    sets = {attribute: tuple(sorted(found)) for attribute, found in values.items()}
    return Context(
        **{"grammar": load_grammar(dataset), "lexicon": LEXICON, "value_sets": sets, "words": WORDS}
        | changes
    )


CONTEXTS = {dataset: context_of(dataset) for dataset in ROWS}
CASES = [(dataset, prompt) for dataset in ROWS for prompt in prompts_of(dataset)]


def made(name, prompt, context, attribute=None, *, seed=0, repeats=3):
    return list(
        variants_of(
            PERTURBATIONS[name],
            prompt,
            attribute=attribute,
            context=context,
            rng=np.random.default_rng(seed),
            repeats=repeats,
        )
    )


def outcomes(name):
    """Everything a perturbation makes of every prompt of the fixture."""
    for dataset, prompt in CASES:
        context = CONTEXTS[dataset]
        named = [None]
        if PERTURBATIONS[name].per_attribute:
            named = sorted(context.grammar.card.attributes)
        for attribute in named:
            yield prompt, context, attribute, made(name, prompt, context, attribute)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_every_perturbation_says_what_it_is(name):
    perturbation = PERTURBATIONS[name]

    assert perturbation.name == name
    assert isinstance(perturbation.meaning, Meaning)
    assert perturbation.meaning is not Meaning.ORIGINAL
    assert isinstance(perturbation.expected_mask, ExpectedMask)
    assert isinstance(perturbation, Enumerated) != isinstance(perturbation, Sampled)
    assert perturbation.per_attribute or not perturbation.crossed_words


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_every_prompt_has_an_outcome_and_the_same_seed_the_same(name):
    for prompt, context, attribute, found in outcomes(name):
        assert found
        assert found == made(name, prompt, context, attribute)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_edits_lead_there_and_back_and_touch_nothing_else(name):
    n_variants = 0
    for prompt, _, attribute, found in outcomes(name):
        variants = [variant for variant in found if isinstance(variant, Variant)]
        assert len({variant.text for variant in variants}) == len(variants)
        for variant in variants:
            n_variants += 1
            assert variant.text != prompt.text
            assert variant.attribute == attribute
            assert apply_edits(prompt.text, variant.edits) == variant.text
            assert apply_edits(variant.text, invert_edits(variant.edits)) == prompt.text
            (edit,) = variant.edits
            assert variant.text.startswith(prompt.text[: edit.start])
            assert variant.text.endswith(prompt.text[edit.end :])
            span = prompt.span(attribute) if attribute else None
            assert (edit.start, edit.end) == ((span.start, span.end) if span else (0, edit.end))
    assert n_variants > 50


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_what_does_not_apply_has_a_plain_reason(name):
    for prompt, _, attribute, found in outcomes(name):
        refusals = [outcome for outcome in found if isinstance(outcome, NotApplicable)]
        assert all(refusal.attribute == attribute and refusal.reason for refusal in refusals)
        if attribute and prompt.span(attribute) is None:
            assert found == [NotApplicable(f"the prompt names no {attribute}", attribute)]


@pytest.mark.parametrize("name", ["antonym", "swap_value"])
def test_changed_prompts_parse_with_all_other_values_as_before(name):
    for prompt, context, attribute, found in outcomes(name):
        for variant in found:
            if isinstance(variant, Variant):
                parsed = context.grammar.parse(variant.text, prompt_type=prompt.prompt_type)
                (edit,) = variant.edits
                assert parsed.values == prompt.values | {attribute: edit.new}
                assert LEXICON.canonical(attribute, edit.new) != LEXICON.canonical(
                    attribute, edit.old
                )


def photo(text="one small white round polyp, located in center of the image"):
    return load_grammar("kvasir_polyp").parse(text)


def test_empty_removes_everything():
    prompt = photo()

    (variant,) = made("empty", prompt, CONTEXTS["kvasir_polyp"])

    assert variant == Variant("", (Edit(0, len(prompt.text), prompt.text, ""),), "p0")
    assert made("empty", photo(""), CONTEXTS["kvasir_polyp"]) == [
        NotApplicable("the prompt is already empty")
    ]


def test_random_words_replace_the_whole_value_one_variant_a_word():
    context = CONTEXTS["kvasir_polyp"]
    prompt = photo("two small, medium white it is round polyp, located in top, left of the image")

    variants = made("random_word", prompt, context, "size")

    assert [variant.word for variant in variants] == list(WORDS)
    assert variants[0].text == (
        f"two {WORDS[0]} white it is round polyp, located in top, left of the image"
    )
    assert all(variant.prompt_type == "p6" for variant in variants)


def test_random_words_keep_the_capital_at_the_beginning():
    prompt = CONTEXTS["busi"].grammar.parse("Malignant tumor in the breast ultrasound image.")

    (variant,) = made("random_word", prompt, context_of("busi", words=("kazoo",)), "tumor_type")

    assert (variant.text, variant.word) == ("Kazoo tumor in the breast ultrasound image.", "kazoo")


def test_a_random_word_that_stands_there_already_is_counted():
    prompt = photo("kazoo polyp")

    assert made("random_word", prompt, context_of("kvasir_polyp", words=("kazoo",)), "shape") == [
        NotApplicable("the shape is already 'kazoo'", "shape")
    ]


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
            "Myocardium in two-chamber view of the heart at end of the systole cycle of a "
            "eighty-four-year-old male.",
            "age",
            "Myocardium in two-chamber view of the heart at end of the systole cycle of a "
            "twenty-five-year-old male.",
        ),
    ],
)
def test_antonyms(dataset, text, attribute, expected):
    context = CONTEXTS[dataset]

    (variant,) = made("antonym", context.grammar.parse(text), context, attribute)

    assert variant.text == expected


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
    ],
)
def test_values_without_an_antonym_are_counted(dataset, text, attribute, reason):
    context = CONTEXTS[dataset]

    assert made("antonym", context.grammar.parse(text), context, attribute) == [
        NotApplicable(reason, attribute)
    ]


def test_swaps_take_whole_values_of_the_value_set():
    sets = {"size": ("large", "small", "small, medium", "tiny")}

    found = made(
        "swap_value", photo(), context_of("kvasir_polyp", value_sets=sets), "size", repeats=9
    )

    assert {variant.edits[0].new for variant in found} == {"large", "small, medium", "tiny"}


def test_swaps_never_say_the_same_in_other_words():
    sets = {"shape": ("a circle", "circle", "circular", "it is round", "oval", "round")}

    found = made(
        "swap_value", photo(), context_of("kvasir_polyp", value_sets=sets), "shape", repeats=9
    )

    assert [variant.edits[0].new for variant in found] == ["oval"]


def test_swaps_that_no_longer_parse_are_left_out():
    """A class that is absent has a sentence of its own."""
    sets = {"class": ("No tumor", "tumor", "tumors")}
    context = context_of("busi", value_sets=sets)
    prompt = context.grammar.parse(ROWS["busi"][0]["p6"][0], prompt_type="p6")

    assert made("swap_value", prompt, context, "class") == [
        NotApplicable("no value but 'tumor' occurs in the dataset and fits the prompt", "class")
    ]


def test_swapped_classes_may_name_another_sample_of_the_image():
    context = CONTEXTS["camus"]
    prompt = context.grammar.parse(ROWS["camus"][0]["p6"][1], prompt_type="p6", index=1)

    (variant,) = made("swap_value", prompt, context, "class")

    assert PERTURBATIONS["swap_value"].expected_mask is ExpectedMask.NAMED
    assert variant.text == prompt.text.replace("Left ventricular cavity", "Myocardium")


def test_swaps_are_uniform_without_replacement():
    sets = {"color": ("black", "blue", "green", "red", "white")}
    context = context_of("kvasir_polyp", value_sets=sets)

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


def test_sampling_without_a_generator_is_refused():
    message = (
        "perturbation 'swap_value': found no random generator. It samples its variants and needs "
        "one. Pass rng=numpy.random.default_rng(seed)."
    )
    with pytest.raises(PromptError, match="^" + re.escape(message) + "$"):
        variants_of(
            PERTURBATIONS["swap_value"],
            photo(),
            attribute="size",
            context=CONTEXTS["kvasir_polyp"],
        )


cuts = st.lists(st.integers(0, 12), unique=True, max_size=6).map(sorted)


@given(
    st.text(min_size=12, max_size=12), cuts, st.lists(st.text(max_size=3), min_size=3), st.randoms()
)
def test_edits_are_undone_by_their_inverse_in_any_order(text, places, new, random):
    pairs = zip(places[::2], places[1::2], strict=False)
    edits = [Edit(a, b, text[a:b], n) for (a, b), n in zip(pairs, new, strict=False)]
    expected = "".join(_by_hand(text, edits))
    random.shuffle(edits)

    changed = apply_edits(text, edits)

    assert changed == expected
    assert apply_edits(changed, invert_edits(edits)) == text


def _by_hand(text, edits):
    """Slow definition: character by character."""
    for position, character in enumerate(text):
        inside = [edit for edit in edits if edit.start <= position < edit.end]
        if not inside:
            yield character
        elif inside[0].start == position:
            yield inside[0].new


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (
            [Edit(0, 5, "small", "tiny"), Edit(3, 7, "ll p", "x")],
            "edit 'll p' -> 'x': starts at character 3, inside the edit before it, which ends at "
            "5. Edits may not overlap. Join the two.",
        ),
        (
            [Edit(0, 5, "large", "tiny")],
            "edit 'large' -> 'tiny': characters 0 to 5 are 'small'. They must be what the edit "
            "replaces. Apply the edit to its own original.",
        ),
    ],
)
def test_edits_that_do_not_fit_are_refused(edits, message):
    with pytest.raises(PromptError, match="^" + re.escape(message) + "$"):
        apply_edits("small polyp", edits)


class Shout:
    """A perturbation of an outside package."""

    name = "shout"
    meaning = Meaning.PRESERVED
    expected_mask = ExpectedMask.OWN
    per_attribute = False
    crossed_words = False

    def enumerate(self, prompt, *, attribute, context):
        yield Variant(prompt.text.upper(), (), prompt.prompt_type)


class Whisper(Shout):
    """Another one."""


class Nothing:
    """No perturbation at all."""


@pytest.fixture
def installed(monkeypatch):
    """Pretends that outside packages are installed; the registry is put back afterwards."""
    monkeypatch.setattr(module, "PERTURBATIONS", dict(PERTURBATIONS))

    def install(*named):
        class Entry(EntryPoint):
            def load(self):
                return globals()[self.value]

        entries = [Entry(name, value, module.ENTRY_POINTS) for name, value in named]
        monkeypatch.setattr(module, "entry_points", lambda group: entries)

    return install


def test_outside_packages_are_loaded_on_request_and_twice_without_harm(installed):
    installed(("shout", "Shout"))
    assert "shout" not in module.PERTURBATIONS

    assert load_outside() == ["shout"]
    assert load_outside() == ["shout"]

    (variant,) = module.PERTURBATIONS["shout"].enumerate(
        photo(), attribute=None, context=CONTEXTS["kvasir_polyp"]
    )
    assert variant.text == photo().text.upper()


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            [("empty", "Shout")],
            "entry point 'empty' (Shout): the name 'empty' is taken. Every perturbation needs its "
            "own. Rename it in the outside package.",
        ),
        (
            [("loud", "Shout"), ("loud", "Whisper")],
            "entry point 'loud' (Whisper): the name 'loud' is taken. Every perturbation needs its "
            "own. Rename it in the outside package.",
        ),
        (
            [("void", "Nothing")],
            "entry point 'void' (Nothing): found Nothing. A perturbation has 'name', 'meaning', "
            "'expected_mask', 'per_attribute', 'crossed_words' and either 'enumerate' or 'sample'. "
            "Add what is missing.",
        ),
    ],
)
def test_outside_packages_that_break_the_contract_are_refused(installed, named, message):
    installed(*named)

    with pytest.raises(SuiteError, match="^" + re.escape(message) + "$"):
        load_outside()
    assert module.PERTURBATIONS == PERTURBATIONS

"""Every perturbation on sentences that no grammar describes."""

from pathlib import Path

import numpy as np
import pytest

from harness.cards import DatasetCard
from harness.prompts.context import Context
from harness.prompts.freetext.terms import suit
from harness.prompts.grammar import LEXICON, load_grammar
from harness.prompts.laws import Trial, breaches
from harness.prompts.lexicon import load_lexicon
from harness.prompts.perturbations import PERTURBATIONS, variants_of
from harness.prompts.population import Population
from harness.prompts.words import draw_words
from harness.prompts.worlds import Scene
from harness.records import Sample, Variant

CARD = DatasetCard(
    name="mine",
    title="",
    modality="",
    source="",
    licence="",
    splits=["test"],
    prompt_type="p6",
    clusters={"rule": "image"},
    classes=["glottis"],
)
GRAMMAR, WORDS = load_grammar(CARD), suit(load_lexicon(), CARD)
TEXTS = (
    "Two small nodules in the left lung",
    "one small, medium dark red oval-shaped polyp, located in top left, center of the image",
    "An orange round polyp on the left side of the image.",
    "the large glottis",
    "a 65-year-old woman with a kidney-shaped mass in the upper right lobe",
    "Axial CT view of the right kidney with a tiny cyst",
    "left ventricular cavity in four-chamber view, end diastole",
    "{odd} small [text]",
    "The lesion is small and red",
    "single large whitish ulcer at the bottom",
    "no polyp",
    "one strange thing",
    "words of no attribute",
    "",
)
PROMPTS = tuple(GRAMMAR.parse(text, prompt_type="p6") for text in TEXTS)
SAMPLES = [
    Sample("mine", "test", f"s{n}", Path("i"), Path("m"), f"i{n}", f"i{n}", {"p6": (prompt,)})
    for n, prompt in enumerate(PROMPTS)
]


def value_sets():
    found = {}
    for prompt in PROMPTS:
        for attribute, value in prompt.values.items():
            found.setdefault(attribute, set()).add(value)
    return {attribute: tuple(sorted(values)) for attribute, values in found.items()}


def context(sample):
    return Context(
        GRAMMAR, WORDS, value_sets(), draw_words(3, 0), sample, Population(SAMPLES, "p6")
    )


def trials(name):
    rule = PERTURBATIONS[name]
    for sample, prompt in zip(SAMPLES, PROMPTS, strict=True):
        for attribute in prompt.values if rule.per_attribute else [None]:
            yield Trial(rule, Scene(prompt, attribute, context(sample)))


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_every_perturbation_keeps_every_law(name):
    assert [breach for trial in trials(name) for breach in breaches(trial)] == []


# Without sentences of a grammar nothing is paraphrased, these rows have one rung, and nobody says
# that they name all targets of their pictures.
BESIDE = {"paraphrase", "prompt_type", "absent_target", "negation_named"}


@pytest.mark.parametrize("name", sorted(PERTURBATIONS.keys() - BESIDE))
def test_every_perturbation_finds_something_to_do(name):
    assert any(trial.variants for trial in trials(name)) or name in {"spelling", "article_number"}


def variants(name, text, attribute=None):
    number = TEXTS.index(text)
    found = variants_of(
        PERTURBATIONS[name],
        PROMPTS[number],
        attribute=attribute,
        context=context(SAMPLES[number]),
        rng=np.random.default_rng(0),
        repeats=1,
    )
    return [o.text if isinstance(o, Variant) else o.reason for o in found]


@pytest.mark.parametrize(
    ("name", "attribute", "place", "said"),
    [
        ("antonym", "number", 0, "One small nodule in the left lung"),
        ("antonym", "side", 0, "Two small nodules in the right lung"),
        ("antonym", "color", 2, "A blue round polyp on the left side of the image."),
        ("antonym", "location", 4, TEXTS[4].replace("upper right", "lower left")),
        ("antonym", "age", 4, TEXTS[4].replace("65", "25")),
        ("drop_attribute", "color", 2, "A round polyp on the left side of the image."),
        ("drop_attribute", "location", 2, "An orange round polyp."),
        ("drop_attribute", "location", 1, TEXTS[1].partition(", located")[0]),
        ("drop_attribute", "shape", 1, TEXTS[1].replace("oval-shaped ", "")),
        ("drop_attribute", "view", 6, "left ventricular cavity, end diastole"),
        ("negation", "color", 2, "A non-orange round polyp on the left side of the image."),
        ("negation", "location", 1, TEXTS[1].replace("located", "not located")),
        ("negation", "class", 2, "No orange round polyp on the left side of the image."),
        ("reorder_attributes", None, 2, "A round orange polyp on the left side of the image."),
        ("contradiction", "size", 8, "The lesion is small yet large and red"),
        # What would be no English is not written.
        ("antonym", "class", 2, "'no polyp' cannot stand in the middle of a sentence"),
        ("antonym", "number", 11, "the noun that 'one' counts is not known: name it under "
         "'classes' on the dataset's card"),
        ("drop_attribute", "size", 8, "the grammar knows no sentence of p6 without size"),
        ("negation", "class", 4, "'mass' is not what the sentence begins with, so that 'no' "
         "denies more"),
    ],
)  # fmt: skip
def test_what_is_made_of_free_text(name, attribute, place, said):
    assert variants(name, TEXTS[place], attribute) == [said]


def test_sentences_of_one_skeleton_lend_value_by_value():
    one, other = (GRAMMAR.parse(f"a {size} polyp", prompt_type="p6") for size in ("small", "large"))
    samples = [
        Sample("mine", "test", f"s{n}", Path("i"), Path("m"), f"i{n}", f"i{n}", {"p6": (p,)})
        for n, p in enumerate((one, other))
    ]
    around = Context(GRAMMAR, WORDS, {}, (), samples[0], Population(samples, "p6"))

    (lent,) = variants_of(
        PERTURBATIONS["other_sample"],
        one,
        attribute=None,
        context=around,
        rng=np.random.default_rng(0),
    )

    assert [(e.old, e.new, e.attribute) for e in lent.edits] == [("small", "large", "size")]


def test_any_text_on_any_rung_is_read_and_rungs_are_not_told_apart():
    assert [prompt.template for prompt in PROMPTS] == [LEXICON] * len(TEXTS)
    assert GRAMMAR.parse("small polyp").prompt_type == "p1"
    assert GRAMMAR.parse("").prompt_type == "p0"
    assert GRAMMAR.template_of(PROMPTS[7]).source == "{{odd}} {size} [text]"
    assert GRAMMAR.template_of(PROMPTS[7]).match(TEXTS[7]) == PROMPTS[7].spans

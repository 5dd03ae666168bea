"""Every perturbation keeps the laws on every grammar; and each law can be broken."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cards import load_dataset_card
from harness.prompts.context import Form, Scope
from harness.prompts.freetext.terms import suit
from harness.prompts.grammar import load_grammar
from harness.prompts.laws import LAWS, Trial, breaches, check_perturbation
from harness.prompts.lexicon import load_lexicon
from harness.prompts.perturbations import PERTURBATIONS, Rule, SampledPerturbation
from harness.prompts.worlds import scenes
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Variant

# One of each family of grammars; the others share theirs.
DATASETS = ("kvasir_polyp", "busi", "camus", "chexlocalize", "phantom_pairs", "qata_cov19")
LEXICON = load_lexicon("curated")
GRAMMARS = {name: load_grammar(name) for name in DATASETS}
LEXICONS = {name: suit(LEXICON, load_dataset_card(name)) for name in DATASETS}


def any_scene(per_attribute):
    return st.sampled_from(DATASETS).flatmap(
        lambda name: scenes(GRAMMARS[name], LEXICONS[name], per_attribute=per_attribute)
    )


@pytest.mark.parametrize("name", PERTURBATIONS)
@settings(max_examples=15)
@given(data=st.data())
def test_every_perturbation_keeps_every_law(name, data):
    rule = PERTURBATIONS[name]

    trial = Trial(rule, data.draw(any_scene(rule.per_attribute)), data.draw(st.integers(0, 9)))

    assert breaches(trial) == []


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_every_perturbation_says_what_it_is(name):
    rule = PERTURBATIONS[name]

    assert rule.name == name
    assert rule.meaning in set(Meaning) - {Meaning.ORIGINAL}
    assert isinstance(rule.form, Form)
    assert isinstance(rule.scope, Scope)
    assert hasattr(rule, "enumerate") != hasattr(rule, "sample")


def test_the_families_of_each_meaning():
    found = {}
    for name, rule in PERTURBATIONS.items():
        found.setdefault(rule.meaning.value, set()).add(name)

    assert found == {
        "removed": {"empty", "drop_attribute", "prompt_type", "class_only", "truncate"},
        "destroyed": {
            *("random_word", "random_words", "random_prompt", "irrelevant", "shuffle_words"),
        },
        "changed": {
            *("antonym", "swap_value", "other_sample", "wrong_class", "contradiction"),
            *(
                "negation",
                "negation_named",
                "absent",
                "absent_near",
                "absent_far",
                "absent_modality",
            ),
            *("absent_target", "absent_nonsense"),
        },
        "preserved": {
            *("synonym", "paraphrase", "reorder_attributes", "typo", "case", "punctuation"),
            *("whitespace", "article_number", "spelling"),
        },
    }
    masks = {name: rule.expected_mask for name, rule in PERTURBATIONS.items()}
    empty = [name for name, mask in masks.items() if mask is ExpectedMask.EMPTY]
    assert all(name.startswith("absent") for name in empty)
    assert len(empty) == 6


SHOUT = Rule(
    name="shout",
    meaning=Meaning.PRESERVED,
    expected_mask=ExpectedMask.OWN,
    form=Form.READ,
    variants=lambda prompt, attribute, context: [
        Variant(
            prompt.text + "!",
            (Edit(len(prompt.text), len(prompt.text), "", "!"),),
            prompt.prompt_type,
        )
    ],
)


def shouting(make):
    """A rule that does something else than shouting."""
    return replace(SHOUT, variants=lambda prompt, attribute, context: make(prompt))


def end(prompt, new):
    return Edit(len(prompt.text), len(prompt.text), "", new)


def variant(prompt, text, *edits, **more):
    return Variant(text, edits, prompt.prompt_type, **more)


class Forgetful:
    """Makes something else every time."""

    def __init__(self):
        self.calls = 0

    def __call__(self, prompt):
        self.calls += 1
        mark = "!" * (1 + self.calls % 2)
        return [variant(prompt, prompt.text + mark, end(prompt, mark))]


def greedy(prompt, attribute, context, draw):
    for n in range(1, draw.repeats + 2):
        yield variant(prompt, prompt.text + "!" * n, end(prompt, "!" * n))


def fickle(prompt, attribute, context, draw):
    for n in range(1, draw.repeats + 1):
        mark = "!" * (n + draw.repeats)
        yield variant(prompt, prompt.text + mark, end(prompt, mark))


@dataclass(frozen=True)
class Fault:
    rule: object
    law: str
    what: str
    prompt: str = "polyp"


CHANGE = replace(
    SHOUT,
    meaning=Meaning.CHANGED,
    expected_mask=ExpectedMask.NAMED,
    form=Form.PARSED,
    per_attribute=True,
)
SAMPLED = SampledPerturbation(
    name="shout",
    meaning=Meaning.PRESERVED,
    expected_mask=ExpectedMask.OWN,
    form=Form.READ,
    draw=greedy,
)
FAULTS = {
    "nothing": Fault(shouting(lambda p: []), "answers", "makes neither a variant nor a reason"),
    "a text": Fault(
        shouting(lambda p: [p.text]),
        "answers",
        "makes a str, which is neither a variant nor a reason",
    ),
    "no reason": Fault(
        shouting(lambda p: [NotApplicable("no")]),
        "gives reasons",
        "says 'no' where it does not apply, which explains nothing",
    ),
    "wrong mask": Fault(
        replace(SHOUT, expected_mask=ExpectedMask.EMPTY),
        "declares a mask that can be right",
        "declares the meaning 'preserved' with the expected mask 'empty'",
        prompt="",
    ),
    "other attribute": Fault(
        shouting(lambda p: [NotApplicable("not asked about it", "size")]),
        "keeps to its attribute",
        "was asked about None and answers 'size'",
    ),
    "invented attribute": Fault(
        shouting(lambda p: [variant(p, p.text + "!", Edit(*(len(p.text),) * 2, "", "!", "mood"))]),
        "keeps to its attribute",
        "edits 'mood', which is no attribute of the dataset",
    ),
    "edits that lead elsewhere": Fault(
        shouting(lambda p: [variant(p, p.text + "?", end(p, "!"))]),
        "its edits lead there and back",
        "says 'polyp?', where its edits make 'polyp!'",
    ),
    "edits that do not fit": Fault(
        shouting(lambda p: [variant(p, "x", Edit(0, 2, "??", "x"))]),
        "its edits lead there and back",
        "makes an edit that does not fit: edit '??' -> 'x': characters 0 to 2 are 'po'. They must "
        "be what the edit replaces. Apply the edit to its own original.",
    ),
    "edits that overlap": Fault(
        shouting(lambda p: [variant(p, "x", Edit(0, 2, p.text[:2], "x"), Edit(1, 2, "o", ""))]),
        "its edits lead there and back",
        "makes edits that overlap: (Edit(start=0, end=2, old='po', new='x', attribute=None), "
        "Edit(start=1, end=2, old='o', new='', attribute=None))",
    ),
    "the original": Fault(
        shouting(lambda p: [variant(p, p.text)]),
        "differs from the original and from each other",
        "makes 'polyp', which is the original or another variant",
    ),
    "the same twice": Fault(
        shouting(lambda p: [variant(p, p.text + "!", end(p, "!"))] * 2),
        "differs from the original and from each other",
        "makes 'polyp!', which is the original or another variant",
    ),
    "a memory": Fault(
        shouting(Forgetful()),
        "repeats itself",
        "makes something else the second time, with the same seed",
    ),
    "too many": Fault(SAMPLED, "draws what is asked for", "draws 4 variants where 3 are asked for"),
    "other ones": Fault(
        replace(SAMPLED, draw=fickle),
        "draws what is asked for",
        "draws other variants where fewer are asked for",
    ),
    "another meaning": Fault(
        shouting(lambda p: [variant(p, "no " + p.text, Edit(0, 0, "", "no "))]),
        "keeps the meaning it says it keeps",
        "makes 'no polyp', which cannot be read with the same meaning",
    ),
    "no grammar": Fault(
        replace(SHOUT, form=Form.PARSED),
        "fits the grammar where it says so",
        "makes 'polyp!', which does not parse as p1",
    ),
    "two changes": Fault(
        replace(
            CHANGE,
            variants=lambda prompt, attribute, context: [
                variant(
                    prompt, "round " + prompt.text, Edit(0, 0, "", "round "), attribute=attribute
                )
            ],
        ),
        "changes one thing where it says so",
        "makes 'round polyp', which changes []",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_explained(name):
    fault = FAULTS[name]

    found = check_perturbation(fault.rule, datasets=["kvasir_polyp"], examples=25)

    wanted = [breach for breach in found if breach.law == fault.law]
    assert len(wanted) == 1
    (breach,) = wanted
    if fault.rule.per_attribute is False:
        assert (breach.prompt, breach.what) == (fault.prompt, fault.what)
        assert str(breach) == (
            f"perturbation 'shout': kvasir_polyp: {fault.prompt!r}: it {fault.what}. The law is: "
            f"{fault.law}. Correct the perturbation or what it declares."
        )


def test_every_law_has_a_planted_fault():
    assert {fault.law for fault in FAULTS.values()} == set(LAWS)


def test_what_keeps_all_laws_is_passed():
    assert check_perturbation(PERTURBATIONS["case"], datasets=["busi"], examples=20) == []
    assert check_perturbation(PERTURBATIONS["antonym"], datasets=["camus"], examples=20) == []

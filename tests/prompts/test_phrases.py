"""What a card says about changing its sentences."""

import re

import pytest

from harness.cards import DatasetCard, dataset_names, load_dataset_card
from harness.errors import CardError
from harness.prompts.grammar import load_grammar
from harness.prompts.phrases import arrangements, write_as
from harness.prompts.templates import Slot


def card(**grammar):
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
                "attributes": {
                    "class": {"values": ["cat", "Cat"]},
                    "size": {"values": ["big", "small"]},
                    "mood": {"values": ["calm", "Calm"]},
                },
                "prompts": {
                    "p1": ["{class}"],
                    "p2": ["{mood} {size} {class}"],
                },
            }
            | grammar,
        }
    )


def prompt_of(text, **grammar):
    compiled = load_grammar(card(**grammar))
    return compiled, compiled.parse(text)


@pytest.mark.parametrize(
    ("drops", "text", "expected"),
    [
        ({"size": {"{size} ": ""}}, "calm big cat", "calm cat"),
        ({"mood": {"{mood} ": ""}}, "Calm big cat", "Big cat"),
        ({"mood": {" {mood} ": "", "{mood} big ": "large "}}, "calm big cat", "large cat"),
        ({"size": {" {size} cat": "est cat"}}, "calm big cat", "calmest cat"),
    ],
)
def test_a_phrase_leaves_with_its_attribute(drops, text, expected):
    grammar, prompt = prompt_of(text, drops=drops)
    (attribute,) = drops

    texts = [phrase.apply(prompt) for phrase in grammar.drops[attribute]]

    assert [found for found in texts if found is not None] == [expected]


def test_a_phrase_may_be_denied_and_keeps_the_capital():
    grammar, prompt = prompt_of("Calm big cat", negations={"mood": {"{mood}": "non-{mood}"}})

    assert grammar.negations["mood"][0].apply(prompt) == "Non-calm big cat"


def test_a_phrase_that_does_not_stand_there_does_nothing():
    grammar, prompt = prompt_of("calm big cat", drops={"size": {"a {size} ": ""}})

    assert grammar.drops["size"][0].apply(prompt) is None
    assert grammar.drops["size"][0].apply(grammar.parse("cat")) is None


@pytest.mark.parametrize(
    ("source", "movable", "expected"),
    [
        ("{a} {b} {c}", [["{a} ", "{b} "]], ["{b} {a} {c}"]),
        ("{a} {b} {c}", [["{b} ", "{a} "]], ["{b} {a} {c}"]),
        ("{a} and {b} {c}", [["{a} ", "{b} "]], []),
        ("{c} by {a} of {b}", [[" by {a}", " of {b}"]], ["{c} of {b} by {a}"]),
        ("{a} {c}", [["{a} "]], []),
        ("{a} {a} {b} ", [["{a} ", "{b} "]], []),
        (
            "{a} {b} x {c} {d} ",
            [["{a} ", "{b} ", "{c} ", "{d} "]],
            ["{b} {a} x {c} {d} ", "{a} {b} x {d} {c} "],
        ),
    ],
)
def test_movable_phrases_take_every_other_order(source, movable, expected):
    assert list(arrangements(source, movable)) == expected


def test_three_phrases_have_five_other_orders():
    found = list(arrangements("{a} {b} {c} x", [["{a} ", "{b} ", "{c} "]]))

    assert len(found) == len(set(found)) == 5
    assert "{a} {b} {c} x" not in found


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        ("{class} of {size} size, {mood}", "calm big cat", "cat of big size, calm"),
        ("{class} of {size} size, {mood}", "Calm big cat", "Cat of big size, calm"),
        ("{size} {class}. {mood} it is", "Calm big cat", "Big cat. Calm it is"),
        ("{class} of {size} size", "calm big cat", None),
        ("{mood=Calm} {size} {class} it is", "calm big cat", None),
    ],
)
def test_another_template_writes_the_same(template, text, expected):
    grammar, prompt = prompt_of(text, paraphrases={"p2": [template]})

    assert write_as(grammar.paraphrases["p2"][0], prompt, prompt.values) == expected


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        (
            {"drops": {"size": {"big": ""}}},
            "dataset card 'mine': grammar.drops.size: found 'big' -> ''. The phrase holds the slot "
            "{size} once, what is written for it holds it once or not at all. Correct the two "
            "texts.",
        ),
        (
            {"negations": {"size": {"{size}": "not {mood}"}}},
            "dataset card 'mine': grammar.negations.size: found '{size}' -> 'not {mood}'. The "
            "phrase holds the slot {size} once, what is written for it holds it once or not at "
            "all. Correct the two texts.",
        ),
        (
            {"drops": {"siez": {"{size}": ""}}},
            "dataset card 'mine': grammar.drops: unknown attribute 'siez'. Did you mean 'size'? "
            "Known attributes: 'class', 'mood', 'size'.",
        ),
        (
            {"paraphrases": {"p3": ["{class}"]}},
            "dataset card 'mine': grammar.paraphrases: unknown prompt type 'p3'. Known prompt "
            "types: 'p1', 'p2'.",
        ),
        (
            {"paraphrases": {"p1": ["{clas}"]}},
            "dataset card 'mine': grammar.paraphrases.p1[0]: the slot '{clas}' names no attribute. "
            "Did you mean 'class'? Known attributes: 'class', 'mood', 'size'. Correct the slot or "
            "add the attribute to the card.",
        ),
    ],
)
def test_a_wrong_card_is_explained(grammar, message):
    with pytest.raises(CardError, match="^" + re.escape(message) + "$"):
        load_grammar(card(**grammar))


REAL = [name for name in dataset_names() if not name.startswith("phantom")]


@pytest.mark.parametrize("dataset", dataset_names())
def test_every_rung_but_the_empty_one_can_be_said_otherwise(dataset):
    grammar = load_grammar(dataset)

    for rung in grammar.prompt_types[1:]:
        said = grammar.paraphrases[rung]
        for template in grammar.templates[rung]:
            fixed = [p for p in template.pieces if isinstance(p, Slot)]
            alike = [t for t in said if {*t.attributes} == {p.attribute for p in fixed}]
            assert alike, (rung, template.source)


@pytest.mark.parametrize("dataset", dataset_names())
def test_every_attribute_but_the_class_can_be_left_out(dataset):
    card = load_dataset_card(dataset)

    assert card.grammar.attributes.keys() - card.grammar.drops.keys() == {"class"}
    assert card.grammar.attributes.keys() - card.grammar.negations.keys() <= {
        *("class", "number", "age")
    }


@pytest.mark.parametrize("dataset", [name for name in REAL if name.endswith("polyp")])
def test_the_polyp_sets_change_alike(dataset):
    """One grammar on six cards; one of them says more where it corrects."""
    ours, theirs = (load_dataset_card(n).grammar for n in (dataset, "kvasir_polyp"))

    assert (ours.movable, ours.drops, ours.negations) == (
        theirs.movable,
        theirs.drops,
        theirs.negations,
    )
    for rung, said in theirs.paraphrases.items():
        assert set(said) <= set(ours.paraphrases[rung])

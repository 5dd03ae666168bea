"""The registry, and how outside packages add to it."""

import re
from importlib.metadata import EntryPoint

import pytest

from harness.errors import PromptError, SuiteError
from harness.prompts import perturbations as module
from harness.prompts.context import Form, Scope
from harness.prompts.grammar import load_grammar
from harness.prompts.perturbations import PERTURBATIONS, load_outside, variants_of
from harness.prompts.perturbations.base import named
from harness.records import ExpectedMask, Meaning, NotApplicable, Variant


def photo(text="one small white round polyp, located in center of the image"):
    return load_grammar("kvasir_polyp").parse(text)


def test_names_are_those_suites_rely_on():
    assert {"empty", "random_word", "antonym", "swap_value"} <= set(PERTURBATIONS)
    assert len(PERTURBATIONS) == 32


def test_sampling_without_a_generator_is_refused(contexts):
    message = (
        "perturbation 'swap_value': found no random generator. It samples its variants and needs "
        "one. Pass rng=numpy.random.default_rng(seed)."
    )
    with pytest.raises(PromptError, match="^" + re.escape(message) + "$"):
        variants_of(
            PERTURBATIONS["swap_value"],
            photo(),
            attribute="size",
            context=contexts("kvasir_polyp"),
        )


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_nothing_is_made_of_an_empty_prompt_or_an_attribute_it_does_not_name(contexts, made, name):
    context = contexts("kvasir_polyp")
    if PERTURBATIONS[name].per_attribute:
        expected = NotApplicable("the prompt names no size", "size")
        assert made(name, photo("polyp"), context, "size") == [expected]
        assert made(name, photo(""), context, "size") == [expected]
    else:
        assert made(name, photo(""), context) == [NotApplicable("the prompt is already empty")]


def test_an_attribute_that_is_not_named_is_an_error_where_nobody_asked():
    message = (
        "perturbation: the prompt 'round polyp' names no size. One of its attributes ['shape', "
        "'class'] is needed. Apply perturbations with variants_of, which says what does not apply."
    )
    with pytest.raises(PromptError, match="^" + re.escape(message) + "$"):
        named(photo("round polyp"), "size")


class Shout:
    """A perturbation of an outside package."""

    name = "shout"
    meaning = Meaning.PRESERVED
    expected_mask = ExpectedMask.OWN
    per_attribute = False
    crossed_words = False
    scope = Scope.PROMPT
    form = Form.FREE

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

    def install(*entries):
        class Entry(EntryPoint):
            def load(self):
                return globals()[self.value]

        found = [Entry(name, value, module.ENTRY_POINTS) for name, value in entries]
        monkeypatch.setattr(module, "entry_points", lambda group: found)

    return install


def test_outside_packages_are_loaded_on_request_and_twice_without_harm(installed, contexts):
    installed(("shout", "Shout"))
    assert "shout" not in module.PERTURBATIONS

    assert load_outside() == ["shout"]
    assert load_outside() == ["shout"]

    (variant,) = variants_of(
        module.PERTURBATIONS["shout"], photo(), attribute=None, context=contexts("kvasir_polyp")
    )
    assert variant.text == photo().text.upper()


@pytest.mark.parametrize(
    ("entries", "message"),
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
            "'expected_mask', 'per_attribute', 'crossed_words', 'scope', 'form' and either "
            "'enumerate' or 'sample'. Add what is missing.",
        ),
    ],
)
def test_outside_packages_that_break_the_contract_are_refused(installed, entries, message):
    installed(*entries)

    with pytest.raises(SuiteError, match="^" + re.escape(message) + "$"):
        load_outside()
    assert module.PERTURBATIONS == PERTURBATIONS

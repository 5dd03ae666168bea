"""Edits are composed, verified, shrunk towards none, and drawn once."""

import subprocess
import sys

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from harness.prompts.edits import apply_edits, are_apart
from harness.prompts.grammar import load_grammar
from harness.prompts.perturbations import PERTURBATIONS
from harness.prompts.strategies import (
    SEARCHING,
    Atom,
    Composition,
    Family,
    atoms_of,
    composed,
    compositions,
    draw_once,
    is_sound,
    one_of_few,
    size_of,
)
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Variant

PRESERVED = [
    Family(PERTURBATIONS[name])
    for name in ("synonym", "paraphrase", "reorder_attributes", "spelling", "case", "punctuation")
]
CHANGED = [Family(PERTURBATIONS["antonym"]), Family(PERTURBATIONS["negation"], ("color",))]
TEXT = "one small white round polyp, located in top of the image"
QUICK = settings(max_examples=30)
SETTINGS = settings(database=None, max_examples=500, phases=SEARCHING)


@pytest.fixture(scope="module")
def prompt():
    return load_grammar("kvasir_polyp").parse(TEXT)


@pytest.fixture(scope="module")
def context(contexts):
    return contexts("kvasir_polyp")


@pytest.fixture(scope="module")
def several(prompt, context):
    return compositions(prompt, context, PRESERVED)


def smallest(strategy, condition):
    return find(strategy, condition, settings=SETTINGS)


def test_what_is_composed_shrinks_towards_no_edit(several):
    found = smallest(several, lambda c: True)

    assert (found.atoms, found.edits, found.text) == ((), (), TEXT)


def test_what_is_needed_stays_and_the_rest_goes(several):
    found = smallest(several, lambda c: any("synonym" in name for name in c.names))

    assert found.names in {("synonym(size)",), ("synonym(number)",), ("synonym(shape)",)}
    assert len(found.edits) == 1


def test_two_are_found_where_two_are_needed(several):
    found = smallest(several, lambda c: len(c.atoms) > 1)

    assert len(found.atoms) == 2


def test_no_more_are_made_than_are_asked_for(prompt, context):
    with pytest.raises(NoSuchExample):
        smallest(compositions(prompt, context, PRESERVED, most=1), lambda c: len(c.atoms) > 1)


def test_every_composition_keeps_what_its_parts_promise(several, context):
    @QUICK
    @given(several)
    def check(composition):
        assert are_apart(composition.edits)
        assert composition.text == apply_edits(TEXT, composition.edits)
        assert composition.meaning is Meaning.PRESERVED
        if composition.atoms:
            assert composition.text != TEXT
            assert context.reader.says_the_same(composition.text, composition.prompt)

    check()


def test_changes_of_several_attributes_are_read_together(prompt, context):
    strategy = compositions(prompt, context, CHANGED[:1])

    found = smallest(strategy, lambda c: {"antonym(size)", "antonym(location)"} <= {*c.names})

    assert found.text == "one large white round polyp, located in bottom of the image"
    assert found.meaning is Meaning.CHANGED


def test_a_family_may_be_kept_to_some_attributes(prompt, context):
    names = {
        f"{atom.rule.name} {atom.variant.attribute}" for atom in atoms_of(prompt, context, CHANGED)
    }

    assert "negation color" in names
    assert "negation size" not in names
    assert "antonym size" in names


def test_the_smallest_changes_come_first(prompt, context):
    atoms = atoms_of(prompt, context, PRESERVED)
    sizes = [len(atom.variant.edits) for atom in atoms]

    assert sizes == sorted(sizes)
    assert len({atom.variant.text for atom in atoms}) > 20


def test_where_nothing_applies_there_is_no_edit(context):
    empty = load_grammar("kvasir_polyp").parse("")

    assert smallest(compositions(empty, context, PRESERVED), lambda c: True) == Composition(empty)


def atom(name, text, *edits, **more):
    return Atom(PERTURBATIONS[name], Variant(text, edits, "p6", **more))


def test_what_contradicts_itself_together_is_left_out(prompt, context):
    """A synonym of the new number and the number itself: each is fine alone."""
    size = atom("synonym", "", Edit(4, 9, "small", "little", "size"), attribute="size")
    odd = atom("synonym", "", Edit(10, 15, "white", "whitish", "color"), attribute="color")

    assert is_sound(Composition(prompt, (size,)), context)
    assert not is_sound(Composition(prompt, (size, odd)), context)
    back = atom("spelling", "", Edit(4, 4, "", "")), atom("spelling", "", Edit(5, 5, "", ""))
    assert not is_sound(Composition(prompt, back), context)


def test_the_strongest_part_decides_what_a_composition_means(prompt):
    parts = {name: atom(name, "") for name in ("synonym", "empty", "antonym", "random_word")}

    def meaning(*names):
        return Composition(prompt, tuple(parts[name] for name in names)).meaning

    assert meaning() is Meaning.PRESERVED
    assert meaning("synonym", "empty") is Meaning.REMOVED
    assert meaning("antonym", "empty") is Meaning.CHANGED
    assert meaning("antonym", "random_word", "synonym") is Meaning.DESTROYED
    own = atom("prompt_type", "", meaning=Meaning.PRESERVED)
    assert Composition(prompt, (own,)).meaning is Meaning.PRESERVED


@pytest.mark.parametrize(
    ("edits", "size"),
    [
        ([], (0, 0)),
        ([Edit(4, 9, "small", "smal", None)], (1, 1)),
        ([Edit(4, 9, "small", "large", None), Edit(0, 3, "one", "two", None)], (2, 8)),
    ],
)
def test_size_is_edits_then_characters(edits, size):
    assert size_of(TEXT, edits) == size


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), one_of_few(range(n)))))
def test_one_of_few_is_one_of_them(pair):
    n, item = pair

    assert item in range(n)


def test_one_of_few_shrinks_towards_the_first_and_reaches_the_last():
    assert smallest(one_of_few("abcdefg"), lambda item: True) == "a"
    assert smallest(one_of_few("abcdefg"), lambda item: item == "g") == "g"
    assert smallest(one_of_few(range(100)), lambda item: item > 50) == 51


def test_draws_are_distinct_and_repeat_under_their_seed(several):
    first = draw_once(several, 6, fixed_seed=1)

    assert len({c.text for c in first}) == len(first) == 6
    assert all(c.atoms for c in first)
    assert [c.text for c in draw_once(several, 6, fixed_seed=1)] == [c.text for c in first]
    assert [c.text for c in draw_once(several, 6, fixed_seed=2)] != [c.text for c in first]


PROGRAM = """
import sys
{imports}
from harness.prompts.strategies import draw_once, one_of_few
from hypothesis import strategies as st
from harness.prompts.strategies import Composition
from harness.records import Prompt
texts = [str(n) for n in range(500)]
made = st.lists(one_of_few(texts), min_size=1, max_size=3).map(
    lambda found: Composition(Prompt(" ".join(found), "p1"), (None,)))
Composition.text = property(lambda self: self.prompt.text)
print([c.prompt.text for c in draw_once(made, 20, fixed_seed=5)])
"""


def test_draws_do_not_depend_on_what_else_is_loaded(tmp_path):
    """Hypothesis draws numbers from constants of loaded modules; a plan may not."""
    (tmp_path / "constants_of_mine.py").write_text(
        "\n".join(f"A{n} = {n}" for n in range(100, 500, 3)), encoding="utf-8"
    )
    plain = PROGRAM.format(imports="")
    loaded = PROGRAM.format(
        imports=f"sys.path.insert(0, {str(tmp_path)!r}); import constants_of_mine; "
        "import harness.suite.schema"
    )

    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
        for program in (plain, loaded)
    }

    assert len(outputs) == 1
    assert len(outputs.pop()) > 100


def test_composed_edits_are_a_perturbation_like_any_other(prompt, context, made, monkeypatch):
    rule = composed(Meaning.CHANGED, PRESERVED + CHANGED)
    monkeypatch.setitem(PERTURBATIONS, "composed", rule)

    found = made("composed", prompt, context, repeats=5)

    assert (rule.meaning, rule.expected_mask) == (Meaning.CHANGED, ExpectedMask.NAMED)
    assert composed(Meaning.PRESERVED, PRESERVED).expected_mask is ExpectedMask.OWN
    assert len(found) == 5
    assert found == made("composed", prompt, context, repeats=5)
    assert all(apply_edits(TEXT, variant.edits) == variant.text != TEXT for variant in found)
    assert found != made("composed", prompt, context, repeats=5, seed=1)


def test_composed_edits_say_where_nothing_applies(context, made, monkeypatch):
    monkeypatch.setitem(PERTURBATIONS, "composed", composed(Meaning.CHANGED, CHANGED))
    prompt = load_grammar("kvasir_polyp").parse("kidney polyp")

    assert made("composed", prompt, context) == [
        NotApplicable("none of its perturbations applies (antonym, negation)")
    ]

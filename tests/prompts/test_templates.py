"""The matcher against its definition: the same template as a regular expression."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cards import AttributeRule
from harness.errors import CardError
from harness.prompts.templates import Mismatch, Slot, compile_template

RULES = {
    "size": AttributeRule(values=["small", "smaller", "large"], separator=", "),
    "place": AttributeRule(values=["top", "top left", "left"], separator=", "),
    "shape": AttributeRule(free=True),
    "story": AttributeRule(free=True),
}
SOURCES = (
    "{shape} polyp",
    "{size} {shape} polyp",
    "{size} {shape} polyp, in {place} of it",
    "{shape} polyp is {story} in {place} of it",
    "{place} {size}",
    "{shape=no} polyp",
    "{{{size}}} polyp",
)
WORDS = ("small", "smaller", "large", "top", "left", "polyp", "is", "in", "of", "it", "no", "a")
texts = st.lists(st.sampled_from([*WORDS, ",", "{", "}", "small,", "top,", "polyp,", ""])).map(
    " ".join
)


def compiled(source):
    return compile_template(source, RULES, where="card")


def as_regex(template):
    """Slow definition: one named group a slot, backtracking allowed."""
    parts = []
    for piece in template.pieces:
        if not isinstance(piece, Slot):
            parts.append(re.escape(piece))
        elif not piece.values:
            parts.append(rf"(?P<{piece.attribute}>\S(?:.*?\S)??)")
        else:
            one = "|".join(re.escape(value) for value in piece.values)
            more = f"(?:{re.escape(piece.separator)}(?:{one}))*" if piece.separator else ""
            parts.append(f"(?P<{piece.attribute}>(?:{one}){more})")
    return re.compile("".join(parts), re.DOTALL)


@given(st.sampled_from(SOURCES), texts)
def test_matching_agrees_with_a_regular_expression(source, text):
    template = compiled(source)

    spans = template.match(text)

    expected = as_regex(template).fullmatch(text)
    if expected is None:
        assert isinstance(spans, Mismatch)
        assert 0 <= spans.position <= len(text)
    else:
        assert {s.attribute: (s.start, s.end, s.value) for s in spans} == {
            name: (*expected.span(name), expected[name]) for name in template.attributes
        }


values = st.fixed_dictionaries(
    {
        "size": st.lists(st.sampled_from(RULES["size"].values), min_size=1).map(", ".join),
        "place": st.lists(st.sampled_from(RULES["place"].values), min_size=1).map(", ".join),
        "shape": st.sampled_from(["round", "a large, oval bump", "polyp", "small"]),
        "story": st.sampled_from(["soft", "in top of it", "polyp is red"]),
    }
)


@given(st.sampled_from(SOURCES[:5]), values)
def test_what_is_rendered_renders_again_after_matching(source, values):
    template = compiled(source)
    text = template.render(values)

    spans = template.match(text)

    assert not isinstance(spans, Mismatch)
    assert template.render({s.attribute: s.value for s in spans}) == text
    assert all(text[s.start : s.end] == s.value for s in spans)


def test_a_value_that_may_not_stand_is_not_rendered():
    template = compiled("{size} {shape} polyp")

    assert template.render({"size": "huge", "shape": "round"}) is None
    assert template.render({"size": "small, small", "shape": " round"}) is None
    assert template.render({"size": "small"}) is None
    assert compiled("{shape=no} polyp").render({"shape": "a"}) is None
    assert compiled("{{{size}}}").render({"size": "small"}) == "{small}"


def test_a_mismatch_says_where_and_what():
    template = compiled("{size} {shape} polyp, in {place} of it")

    assert template.match("small round polyp, in middle of it") == Mismatch(4, 22, "{place}")
    assert template.match("small round poly") == Mismatch(3, 16, "' polyp, in '")
    assert compiled("{shape=no} polyp").match("x") == Mismatch(0, 0, "'no'")
    assert compiled("{size} {shape}").match("small ") == Mismatch(2, 6, "{shape}")
    assert compiled("{size}").match("small one") == Mismatch(1, 5, "the end")


@pytest.mark.parametrize(
    "text",
    [
        "small " + "x polyp is " * 900,
        "x polyp is " + " in top, left" * 750,
        "small, " * 1400,
        " " * 10_000,
        "polyp" * 2000,
        "x polyp, in " + "top, " * 1900,
    ],
    ids=lambda text: text[:12],
)
@pytest.mark.parametrize("source", SOURCES)
def test_hostile_texts_of_ten_thousand_characters_end_soon(source, text):
    template = compiled(source)
    start = time.perf_counter()

    assert isinstance(template.match(text), Mismatch)

    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{sise} polyp",
            "card: the slot '{sise}' names no attribute. Did you mean 'size'? Known attributes: "
            "'place', 'shape', 'size', 'story'. Correct the slot or add the attribute to the card.",
        ),
        (
            "{size polyp",
            "card: a single '{' at character 0 of '{size polyp'. Slots are written {size}, braces "
            "{{ and }}. Close the slot or double the brace.",
        ),
        (
            "size} polyp",
            "card: a single '}' at character 4 of 'size} polyp'. Slots are written {size}, braces "
            "{{ and }}. Close the slot or double the brace.",
        ),
        (
            "{size} {size}",
            "card: the attribute 'size' has two slots in '{size} {size}'. It may have one. Remove "
            "the other or give it a name of its own.",
        ),
        (
            "{shape}{story}",
            "card: the free slot {shape} touches {story}. Where it ends cannot be told. Put text "
            "between them.",
        ),
    ],
)
def test_wrong_templates_are_explained(source, message):
    with pytest.raises(CardError, match="^" + re.escape(message) + "$"):
        compiled(source)

"""Invented samples of a dataset: strategies for trying rules on any grammar.

Conventions: what is drawn keeps the dataset's card (closed values, lists, templates) and
is otherwise arbitrary; free values are words the lexicon knows or any text at all. A
world has a few samples, some of the same image, with prompts on every rung.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from harness.cards import AttributeRule
from harness.prompts.context import Context
from harness.prompts.grammar import PromptGrammar
from harness.prompts.lexicon import Lexicon
from harness.prompts.population import Population
from harness.prompts.templates import Slot, Template
from harness.prompts.words import draw_words
from harness.records import Prompt, Sample

_ANY_TEXT = st.text(min_size=1, max_size=12).map(str.strip).filter(bool)
MOST_SAMPLES = 4


@dataclass(frozen=True)
class Scene:
    """One prompt of an invented world, and all that a perturbation may look at."""

    prompt: Prompt
    attribute: str | None
    context: Context

    def __repr__(self) -> str:
        asked = f" ({self.attribute})" if self.attribute else ""
        return f"{self.context.grammar.dataset}: {self.prompt.text!r}{asked}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """As Hypothesis prints it; it would print every field, with the whole lexicon."""
        printer.text(repr(self))


def values_of(rule: AttributeRule, attribute: str, lexicon: Lexicon) -> st.SearchStrategy[str]:
    """Any value that an attribute may have."""
    if rule.free:
        entries = lexicon.entries.get(attribute)
        known = sorted({*entries.said, *entries.opposites} if entries else ())
        return st.sampled_from(known) | _ANY_TEXT if known else _ANY_TEXT
    one = st.sampled_from(rule.values)
    if rule.separator is None:
        return one
    return st.lists(one, min_size=1, max_size=3).map(rule.separator.join)


def _is_fixed(template: Template, rules: Mapping[str, AttributeRule]) -> bool:
    """Whether a slot holds one text that is none of its attribute's values: "no polyp"."""
    slots = [piece for piece in template.pieces if isinstance(piece, Slot)]
    return any(
        len(slot.values) == 1 and slot.values[0] not in rules[slot.attribute].values
        for slot in slots
    )


@st.composite
def ladders(
    draw: st.DrawFn, grammar: PromptGrammar, lexicon: Lexicon, rungs: Sequence[str]
) -> dict[str, tuple[Prompt, ...]]:
    """The prompts of one sample on some rungs, all about the same values."""
    rules = grammar.card.attributes
    values = {name: draw(values_of(rule, name, lexicon)) for name, rule in rules.items()}
    denies = draw(st.booleans()) and draw(st.booleans())
    return {rung: _prompts(grammar, rung, values, denies) for rung in rungs}


def _prompts(
    grammar: PromptGrammar, rung: str, values: Mapping[str, str], denies: bool
) -> tuple[Prompt, ...]:
    rules = grammar.card.attributes
    templates: Sequence[Template] = grammar.templates[rung]
    fixed = [template for template in templates if _is_fixed(template, rules)]
    chosen = fixed if denies and fixed else [t for t in templates if t not in fixed]
    texts = [template.render({**values, **_fixed_values(template)}) for template in chosen]
    found = [
        grammar.recognise(text, prompt_type=rung, index=index)
        for index, text in enumerate(text for text in texts if text is not None)
    ]
    return tuple(prompt for prompt in found if prompt is not None)


def _fixed_values(template: Template) -> dict[str, str]:
    slots = [piece for piece in template.pieces if isinstance(piece, Slot)]
    return {slot.attribute: slot.values[0] for slot in slots if len(slot.values) == 1}


@st.composite
def scenes(
    draw: st.DrawFn, grammar: PromptGrammar, lexicon: Lexicon, *, per_attribute: bool
) -> Scene:
    """A prompt of an invented world.

    Args:
        draw: Hypothesis's own.
        grammar: The dataset's grammar.
        lexicon: What its words mean.
        per_attribute: Whether an attribute is asked about, named by the prompt or not.
    """
    rung = draw(st.sampled_from(grammar.prompt_types))
    own = draw(ladders(grammar, lexicon, grammar.prompt_types))
    others = draw(st.lists(ladders(grammar, lexicon, [rung]), max_size=MOST_SAMPLES - 1))
    samples = [
        Sample("world", "test", f"s{n}", Path("i"), Path("m"), f"i{n // 2}", f"i{n // 2}", prompts)
        for n, prompts in enumerate([own, *others])
    ]
    prompt = draw(st.sampled_from(own[rung] or own["p0"]))
    named = sorted(grammar.card.attributes)
    context = Context(
        grammar,
        lexicon,
        _value_sets(samples, rung),
        draw_words(3, 0),
        samples[0],
        Population(samples, rung, complete=draw(st.booleans())),
    )
    return Scene(prompt, draw(st.sampled_from(named)) if per_attribute else None, context)


def _value_sets(samples: Sequence[Sample], rung: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for sample in samples:
        for prompt in sample.prompts[rung]:
            for attribute, value in prompt.values.items():
                found.setdefault(attribute, set()).add(value)
    return {attribute: tuple(sorted(values)) for attribute, values in found.items()}

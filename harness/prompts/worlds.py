"""Invented samples of a dataset: strategies for trying rules on any grammar.

Conventions: what is drawn keeps the dataset's card (closed values, lists, templates) and
is otherwise arbitrary; free values are words the lexicon knows or any text at all. A
world has a few samples, some of the same image, with prompts on every rung.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
        # Hypothesis prints dataclasses field by field; a lexicon would fill the screen.
        printer.text(repr(self))


class Spoken(NamedTuple):
    """What the prompts of one sample say."""

    values: Mapping[str, str]
    denies: bool


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


def spoken(grammar: PromptGrammar, lexicon: Lexicon) -> st.SearchStrategy[Spoken]:
    """What one sample's prompts are about: a value for each attribute, or a denial."""
    rules = grammar.card.attributes
    values = {name: values_of(rule, name, lexicon) for name, rule in rules.items()}
    return st.builds(Spoken, st.fixed_dictionaries(values), st.sampled_from([False] * 3 + [True]))


def _ladder(
    grammar: PromptGrammar, said: Spoken, rungs: Sequence[str]
) -> dict[str, tuple[Prompt, ...]]:
    """The prompts of one sample on some rungs, all about the same values."""
    return {rung: _prompts(grammar, rung, said.values, said.denies) for rung in rungs}


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


def scenes(
    grammar: PromptGrammar, lexicon: Lexicon, *, per_attribute: bool
) -> st.SearchStrategy[Scene]:
    """Prompts of invented worlds; if `per_attribute`, an attribute is asked about, named or not."""
    one = spoken(grammar, lexicon)
    others = st.lists(one, max_size=MOST_SAMPLES - 1)
    rungs = st.sampled_from(grammar.prompt_types)
    asked = st.sampled_from(sorted(grammar.card.attributes)) if per_attribute else st.none()

    @st.composite
    def scene(draw: st.DrawFn) -> Scene:
        rung, own = draw(rungs), _ladder(grammar, draw(one), grammar.prompt_types)
        ladders = [own, *(_ladder(grammar, said, [rung]) for said in draw(others))]
        samples = [
            Sample("world", "test", f"s{n}", Path("i"), Path("m"), f"i{n // 2}", "c", prompts)
            for n, prompts in enumerate(ladders)
        ]
        context = Context(
            grammar,
            lexicon,
            _value_sets(samples, rung),
            draw_words(3, 0),
            samples[0],
            Population(samples, rung, complete=draw(st.booleans())),
        )
        return Scene(draw(st.sampled_from(own[rung] or own["p0"])), draw(asked), context)

    return scene()


def _value_sets(samples: Sequence[Sample], rung: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for sample in samples:
        for prompt in sample.prompts[rung]:
            for attribute, value in prompt.values.items():
                found.setdefault(attribute, set()).add(value)
    return {attribute: tuple(sorted(values)) for attribute, values in found.items()}

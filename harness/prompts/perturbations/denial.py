"""Perturbations that contradict, deny, or ask for what is not there.

Conventions: as in `base`. After `absent` the right mask is empty; of what contradicts
itself or is only denied nothing says which mask is right.
"""

import re
from collections.abc import Iterable

import numpy as np

from harness.prompts.context import Context, Form, Scope
from harness.prompts.dressing import undress
from harness.prompts.edits import begin_like, lowered
from harness.prompts.entries import SEPARATOR
from harness.prompts.perturbations.base import (
    Lottery,
    Outcome,
    Rule,
    drawn,
    edited,
    is_denial,
    named,
    rewritten,
    with_class,
)
from harness.prompts.perturbations.change import as_nouns, no_class, other_values
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Prompt, Span

# What is joined to a value by a hyphen: "-year-old", "-chamber", "-shaped".
_JOINED = re.compile(r"(?:-\w+)*")


def _contradiction(prompt: Prompt, attribute: str | None, context: Context) -> Iterable[Outcome]:
    """The value and its opposite of the same thing: "small yet large"."""
    span = named(prompt, attribute)
    if SEPARATOR in span.value:
        reason = f"{span.value!r} lists several values, which do not exclude each other"
        yield NotApplicable(reason, attribute)
        return
    opposite = context.lexicon.opposite(span.attribute, span.value)
    if opposite is None:
        reason = f"no value excludes {span.value!r} in the {context.lexicon.source} lexicon"
        yield NotApplicable(reason, attribute)
        return
    joined = _JOINED.match(prompt.text, span.end)
    end = joined.end() if joined else span.end
    words = lowered(opposite.removeprefix("it is ")) + prompt.text[span.end : end]
    yield edited(prompt, [Edit(end, end, "", f" yet {words}", attribute)], attribute=attribute)


def _negation(prompt: Prompt, attribute: str | None, context: Context) -> Iterable[Outcome]:
    """The class is denied by "no" before the sentence, other attributes by their phrases."""
    span = named(prompt, attribute)
    if attribute == "class":
        if is_denial(span.value):
            yield NotApplicable(f"{span.value!r} already says that there is none", attribute)
        else:
            yield rewritten(prompt, _denied(prompt), attribute=attribute)
        return
    for phrase in context.grammar.negations.get(span.attribute, ()):
        text = phrase.apply(prompt)
        if text is not None and phrase.instead[0].endswith("-") and not _is_one_word(span.value):
            yield NotApplicable(f"{span.value!r} is no single word to be denied", attribute)
            return
        if text is not None:
            yield rewritten(prompt, text, attribute=attribute)
            return
    reason = f"the grammar knows no sentence of {prompt.prompt_type} that denies {attribute}"
    yield NotApplicable(reason, attribute)


def _denied(prompt: Prompt) -> str:
    number = prompt.span("number")
    if number is not None and number.start == 0:
        return begin_like("no" + prompt.text[number.end :], prompt.text)
    first = prompt.spans[0].value if prompt.spans and prompt.spans[0].start == 0 else ""
    return begin_like(f"no {lowered(first)}{prompt.text[len(first) :]}", prompt.text)


def _is_one_word(value: str) -> bool:
    return undress(value).before == "" and " " not in value


def _absent(
    prompt: Prompt,
    attribute: str | None,
    context: Context,
    rng: np.random.Generator,
    repeats: int,
) -> Iterable[Outcome]:
    """A class that none of the image's samples has, or a thing no such image shows."""
    span = prompt.span("class")
    if span is None or is_denial(span.value):
        return [no_class(span)]
    pool = _unseen_classes(span, context) or as_nouns(
        context.lexicon.strangers.things, span, context
    )
    return drawn(
        pool,
        lambda value: with_class(prompt, span, value),
        rng=rng,
        repeats=repeats,
        otherwise=NotApplicable("nothing is known that the image does not show"),
    )


def _unseen_classes(span: Span, context: Context) -> list[str]:
    """Classes of the dataset that nothing said of the image names, where all is known of it."""
    if not context.population.complete or context.sample is None:
        return []
    mean = context.lexicon.canonical
    spoken = {
        item
        for sample in context.population.of_image(context.sample.image_id)
        for prompts in sample.prompts.values()
        for other in prompts
        for value in other.values.values()
        for item in value.split(SEPARATOR)
    }
    shown = {mean("class", item) for item in spoken}
    return [v for v in other_values(span, context) if mean("class", v) not in shown]


CONTRADICTION = Rule(
    name="contradiction",
    meaning=Meaning.CHANGED,
    expected_mask=ExpectedMask.UNDEFINED,
    form=Form.FREE,
    variants=_contradiction,
    per_attribute=True,
)
NEGATION = Rule(
    name="negation",
    meaning=Meaning.CHANGED,
    expected_mask=ExpectedMask.UNDEFINED,
    form=Form.FREE,
    variants=_negation,
    per_attribute=True,
)
ABSENT = Lottery(
    name="absent",
    meaning=Meaning.CHANGED,
    expected_mask=ExpectedMask.EMPTY,
    form=Form.FREE,
    draw=_absent,
    scope=Scope.SAMPLE,
)

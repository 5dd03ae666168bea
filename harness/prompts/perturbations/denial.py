"""Perturbations that contradict, deny, or ask for what is not there.

Conventions: as in `base`. After `absent` the right mask is empty; of what contradicts
itself or is only denied nothing says which mask is right.
"""

import re
from dataclasses import replace

from harness.prompts.context import Context, Form, Scope
from harness.prompts.dressing import undress
from harness.prompts.edits import apply_edits, begin_like, lowered
from harness.prompts.entries import SEPARATOR
from harness.prompts.lexicon import is_denial
from harness.prompts.perturbations.base import (
    Draw,
    Outcome,
    Outcomes,
    agreeing_verb,
    edited,
    named,
    rewritten,
    rule,
    sampled,
    with_class,
)
from harness.prompts.perturbations.change import as_nouns, no_class, other_values
from harness.prompts.phrases import Rewriting
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Prompt, Span

# What is joined to a value by a hyphen: "-year-old", "-chamber", "-shaped".
_JOINED = re.compile(r"(?:-\w+)*")


@rule(Meaning.CHANGED, ExpectedMask.UNDEFINED, Form.FREE, per_attribute=True)
def contradiction(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
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


@rule(Meaning.CHANGED, ExpectedMask.UNDEFINED, Form.FREE, per_attribute=True)
def negation(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """The class is denied by "no" before the sentence, other attributes by their phrases.

    No other sentence of the prompt may go on to affirm what is denied, or deny what it affirms.
    """
    span = named(prompt, attribute)
    if attribute == "class":
        yield _no_class_there(prompt, span, context)
        return
    for phrase in context.grammar.negations.get(span.attribute, ()):
        if phrase.edit(prompt) is None:
            continue
        if phrase.instead[0].endswith("-") and not _is_one_word(span.value):
            yield NotApplicable(f"{span.value!r} is no single word to be denied", attribute)
            return
        yield _denied_by(phrase, prompt, span, context)
        return
    reason = f"the grammar knows no sentence of {prompt.prompt_type} that denies {attribute}"
    yield NotApplicable(reason, attribute)


def _denied_by(phrase: Rewriting, prompt: Prompt, span: Span, context: Context) -> Outcome:
    """Denies all of a list but what the class implies: an edema is denied by neither name."""
    implies, noun = context.lexicon.implies, prompt.span("class")
    items = span.value.split(SEPARATOR)
    kept = [i for i in items if noun is None or not implies("class", noun.value, i)]
    edit = phrase.edit(prompt, SEPARATOR.join(kept))
    if not kept or edit is None:
        reason = f"denying {span.value!r} would deny the class"
        return NotApplicable(reason, span.attribute)
    if kept != items:
        for verb in agreeing_verb(prompt, span, SEPARATOR.join(kept), context):
            edit = replace(edit, new=edit.new.replace(f"{verb.old} not", f"{verb.new} not"))
    text = begin_like(apply_edits(prompt.text, [edit]), prompt.text)
    return rewritten(prompt, text, attribute=span.attribute)


def _no_class_there(prompt: Prompt, noun: Span, context: Context) -> Outcome:
    if is_denial(noun.value):
        return NotApplicable(f"{noun.value!r} already says that there is none", noun.attribute)
    edits = [_denial(prompt)]
    for span in prompt.spans:
        if context.grammar.card.attributes[span.attribute].separator == SEPARATOR:
            edits += _unsaid(prompt, span, noun, context)
    text = begin_like(apply_edits(prompt.text, edits), prompt.text)
    return rewritten(prompt, text, attribute=noun.attribute)


def _denial(prompt: Prompt) -> Edit:
    first = prompt.spans[0] if prompt.spans and prompt.spans[0].start == 0 else None
    if first is None:
        return Edit(0, 0, "", "no ")
    new = "no" if first.attribute == "number" else f"no {lowered(first.value)}"
    return Edit(0, first.end, first.value, new)


def _unsaid(prompt: Prompt, span: Span, noun: Span, context: Context) -> list[Edit]:
    """What takes the class, and kinds of it, out of a list that the prompt affirms elsewhere."""
    items = span.value.split(SEPARATOR)
    kept = [i for i in items if not context.lexicon.implies("class", i, noun.value)]
    if kept == items:
        return []
    if kept:
        value = SEPARATOR.join(kept)
        edit = Edit(span.start, span.end, span.value, value, span.attribute)
        return [edit, *agreeing_verb(prompt, span, value, context)]
    phrases = (phrase.edit(prompt) for phrase in context.grammar.drops.get(span.attribute, ()))
    return [edit for edit in phrases if edit is not None][:1]


def _is_one_word(value: str) -> bool:
    return undress(value).before == "" and " " not in value


@sampled(Meaning.CHANGED, ExpectedMask.EMPTY, Form.FREE, scope=Scope.SAMPLE)
def absent(prompt: Prompt, attribute: str | None, context: Context, draw: Draw) -> Outcomes:
    """A class that none of the image's samples has, or a thing no such image shows."""
    span = prompt.span("class")
    if span is None or is_denial(span.value):
        return [no_class(span)]
    pool = _unseen_classes(span, context) or as_nouns(
        context.lexicon.strangers.things, span, context
    )
    return draw.from_pool(
        pool,
        lambda value: with_class(prompt, span, value),
        otherwise=NotApplicable("nothing is known that the image does not show"),
    )


def _unseen_classes(span: Span, context: Context) -> list[str]:
    """Classes of the dataset that nothing said of the image names, where all is known of it."""
    if not context.population.complete or context.sample is None:
        return []
    excludes = context.lexicon.excludes
    spoken = {
        item
        for sample in context.population.of_image(context.sample.image_id)
        for prompts in sample.prompts.values()
        for other in prompts
        for value in other.values.values()
        for item in value.split(SEPARATOR)
    }
    known = other_values(span, context)
    return [v for v in known if all(excludes("class", v, item) for item in spoken)]

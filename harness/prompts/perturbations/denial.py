"""Perturbations that contradict or deny.

Conventions: as in `base`. Of what contradicts itself or is only denied nothing says which mask
is right; where an image shows several targets and all are known, `negation_named` denies what all
but one of them are, and so names that one.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from harness.prompts.context import Context, Form, Scope
from harness.prompts.dressing import article_of, undress
from harness.prompts.edits import apply_edits, begin_like, lowered
from harness.prompts.entries import SEPARATOR
from harness.prompts.freetext.sentences import is_subject
from harness.prompts.lexicon import is_denial
from harness.prompts.perturbations.base import (
    Outcome,
    Outcomes,
    agreeing_verb,
    edited,
    named,
    rewritten,
    rule,
)
from harness.prompts.phrases import Rewriting
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Prompt, Span

# What is joined to a value by a hyphen: "-year-old", "-chamber", "-shaped".
_ARTICLE = re.compile(r"(?:an?|the) ", re.IGNORECASE)
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
    for phrase in context.grammar.negations_of(prompt, span.attribute):
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
    if context.grammar.is_free and not is_subject(prompt, noun):
        reason = f"{noun.value!r} is not what the sentence begins with, so that 'no' denies more"
        return NotApplicable(reason, noun.attribute)
    edits = [_denial(prompt)]
    for span in prompt.spans:
        if context.grammar.card.attributes[span.attribute].separator == SEPARATOR:
            edits += _unsaid(prompt, span, noun, context)
    text = begin_like(apply_edits(prompt.text, edits), prompt.text)
    return rewritten(prompt, text, attribute=noun.attribute)


def _denial(prompt: Prompt) -> Edit:
    article = _ARTICLE.match(prompt.text)
    if article is not None:
        return Edit(0, article.end(), article.group(), "no ")
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
    phrases = (phrase.edit(prompt) for phrase in context.grammar.drops_of(prompt, span.attribute))
    return [edit for edit in phrases if edit is not None][:1]


def _is_one_word(value: str) -> bool:
    return undress(value).before == "" and " " not in value


_THE_ONE: Mapping[str, str] = {
    "class": "the one that is not {article}{value}",
    "location": "the one that is not located in {value} of the image",
}
_IS_NOT = "the one that is not {value}"
_UNSAYABLE = ("number",)


@rule(Meaning.CHANGED, ExpectedMask.NAMED, Form.FREE, per_attribute=True, scope=Scope.SAMPLE)
def negation_named(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """The one target of the image that lacks a value which all the others share."""
    span = named(prompt, attribute)
    population, sample = context.population, context.sample
    if not population.complete or sample is None:
        yield NotApplicable("the data set does not say what else its pictures show", attribute)
        return
    if span.attribute in _UNSAYABLE or is_denial(span.value):
        yield NotApplicable(f"one target cannot be told by not being {span.value!r}", attribute)
        return
    others = _those_without(span, context)
    if len(others) != 1:
        reason = f"not exactly one target of the image is certainly not {span.value!r}"
        yield NotApplicable(reason, attribute)
        return
    pattern = _THE_ONE.get(span.attribute, _IS_NOT)
    value = lowered(span.value)
    text = pattern.format(value=value, article=article_of(value))
    yield replace(rewritten(prompt, text, attribute=attribute), target=others[0])


def _those_without(span: Span, context: Context) -> list[str]:
    """Samples of the image with another value; none where one of them may or may not have it."""
    sample, population, lexicon = context.sample, context.population, context.lexicon
    assert sample is not None, "the caller has looked"
    found = []
    for other in population.of_image(sample.image_id):
        for prompt in other.prompts.get(population.prompt_type, ()):
            own = prompt.span(span.attribute)
            if own is None:
                return []
            if lexicon.excludes(span.attribute, own.value, span.value):
                found.append(other.sample_id)
            elif lexicon.canonical(span.attribute, own.value) != lexicon.canonical(
                span.attribute, span.value
            ):
                return []
    return found

"""Perturbations after which the prompt says something else.

Conventions: as in `base`. The right mask is that of the sample the text now names,
where the dataset knows one (the plan looks it up). Where a dataset writes nouns in the
plural, the noun follows a changed number; no other attribute changes.
"""

from collections.abc import Iterable
from dataclasses import replace

from harness.prompts.coherence import follow, places
from harness.prompts.context import Context, Form, Scope
from harness.prompts.entries import SEPARATOR
from harness.prompts.grammar import LEXICON
from harness.prompts.lexicon import is_denial, like
from harness.prompts.perturbations.base import (
    MAX_FAILED_DRAWS,
    Draw,
    Outcomes,
    contradicts_itself,
    edited,
    named,
    replaced,
    rewritten,
    rule,
    sampled,
    still_fits,
    value_edits,
    with_class,
)
from harness.prompts.word_diff import word_edits
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Prompt, Span, Variant


@rule(Meaning.CHANGED, ExpectedMask.NAMED, Form.PARSED, per_attribute=True)
def antonym(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """The opposite of the value, where the lexicon has one and the prompt may say it."""
    span = named(prompt, attribute)
    opposite = context.lexicon.opposite(span.attribute, span.value)
    if opposite is None:
        yield NotApplicable(
            f"no opposite of {span.value!r} in the {context.lexicon.source} lexicon", attribute
        )
        return
    variant = with_value(prompt, span, opposite, context)
    unwritable = _unwritable(prompt, span, opposite, context)
    if unwritable is not None:
        yield NotApplicable(unwritable, attribute)
        return
    contradicted = contradicts_itself(variant, prompt, context)
    if contradicted is not None:
        yield NotApplicable(contradicted, attribute)
    elif still_fits(variant, prompt, context):
        yield variant
    else:
        yield NotApplicable(
            f"{opposite!r}, the opposite of {span.value!r}, does not fit the grammar of "
            f"{prompt.prompt_type}",
            attribute,
        )


@sampled(Meaning.CHANGED, ExpectedMask.NAMED, Form.PARSED, per_attribute=True)
def swap_value(prompt: Prompt, attribute: str | None, context: Context, draw: Draw) -> Outcomes:
    """Whole values are swapped, lists included, as the paper's preprint shows.

    A value that the old one does not exclude is never drawn: one that means the same in other
    words (``circle``, ``a circle``), holds it (``small, medium``) or is a kind of it.
    """
    span = named(prompt, attribute)

    def make(value: str) -> Variant | None:
        if _unwritable(prompt, span, value, context) is not None:
            return None
        variant = with_value(prompt, span, value, context)
        sound = contradicts_itself(variant, prompt, context) is None
        return variant if sound and still_fits(variant, prompt, context) else None

    return draw.from_pool(
        other_values(span, context),
        make,
        otherwise=NotApplicable(
            f"no value of the dataset excludes {span.value!r} and fits the prompt", attribute
        ),
    )


def _unwritable(prompt: Prompt, span: Span, new: str, context: Context) -> str | None:
    """Why nothing sensible is said with another value; None where it is."""
    if prompt.template != LEXICON:
        return _unmoved(prompt, span, new, context)
    if is_denial(new) and span.start:
        return f"{new!r} cannot stand in the middle of a sentence"
    if span.attribute != "number" or _is_one(span.value, context) == _is_one(new, context):
        return None
    noun, forms = prompt.span("class"), context.lexicon
    if noun is not None and (forms.plural(noun.value) or forms.singular(noun.value)):
        return None
    return (
        f"the noun that {span.value!r} counts is not known: name it under 'classes' on the "
        "dataset's card"
    )


def _unmoved(prompt: Prompt, span: Span, new: str, context: Context) -> str | None:
    """Why another side would say the same: a second one follows the first, equal zones exchange."""
    if span.attribute == "second_side":
        return "the second side changes with the first"
    if span.attribute != "side":
        return None
    after = follow(prompt.values, "side", new, context.lexicon) or {}
    if {*places(prompt.values, context.lexicon)} == {*places(after, context.lexicon)}:
        return "both sides show the same zones, so that exchanging them changes nothing"
    return None


def _is_one(number: str, context: Context) -> bool:
    canonical = context.lexicon.canonical
    return canonical("number", number) == canonical("number", "one")


def other_values(span: Span, context: Context) -> list[str]:
    """The dataset's values of an attribute that exclude the own one, in alphabetical order."""

    def find() -> list[str]:
        known = context.value_sets.get(span.attribute, ())
        excludes = context.lexicon.excludes
        return sorted(
            {like(v, span.value) for v in known if excludes(span.attribute, v, span.value)}
        )

    return context.remember(("other values", span.attribute, span.value), find)


def with_value(prompt: Prompt, span: Span, new: str, context: Context) -> Variant:
    """One attribute's value replaced, and what follows it where the grammar does: nouns, places."""
    if prompt.template != LEXICON:
        after = follow(prompt.values, span.attribute, new, context.lexicon)
        text = None if after is None else context.grammar.rewrite(prompt, after)
        if text is not None:
            return _followed(prompt, span, new, text)
    noun = prompt.span("class") if span.attribute == "number" else None
    if noun is None:
        return replaced(prompt, span, new)
    lexicon = context.lexicon
    right = (lexicon.singular if _is_one(new, context) else lexicon.plural)(noun.value)
    if right is None or right not in context.grammar.card.attributes["class"].values:
        return replaced(prompt, span, new)
    edits = [*value_edits(prompt, span, new), *value_edits(prompt, noun, right)]
    return edited(prompt, edits, attribute=span.attribute)


def _followed(prompt: Prompt, span: Span, new: str, text: str) -> Variant:
    """The variant whose edit of the attribute is marked among those of what follows it."""
    edits = [
        replace(edit, attribute=span.attribute)
        if (edit.start, edit.end, edit.new) == (span.start, span.end, new)
        else edit
        for edit in word_edits(prompt.text, text)
    ]
    return Variant(text, tuple(edits), prompt.prompt_type, span.attribute)


@sampled(Meaning.CHANGED, ExpectedMask.NAMED, Form.PARSED, scope=Scope.DATASET)
def other_sample(prompt: Prompt, attribute: str | None, context: Context, draw: Draw) -> Outcomes:
    """One derangement of the split per repeat: each prompt is used once as a replacement."""
    seen = {prompt.text}
    for seed in draw.rng.integers(2**63, size=MAX_FAILED_DRAWS + draw.repeats).tolist():
        if len(seen) > draw.repeats or context.sample is None:
            break
        partner = context.population.partner(
            context.sample, prompt, seed=seed, excludes=context.reader.exclude
        )
        if partner is not None and partner.text not in seen:
            seen.add(partner.text)
            yield lent(prompt, partner, context)
    if len(seen) == 1:
        yield NotApplicable("too few prompts of other images say something else")


def lent(prompt: Prompt, partner: Prompt, context: Context) -> Variant:
    """The partner's text; in the same sentence, value by value."""
    own, other = (context.grammar.template_of(one) for one in (prompt, partner))
    if own.source != other.source:
        return rewritten(prompt, partner.text)
    edits = [
        Edit(own.start, own.end, own.value, other.value, own.attribute)
        for own, other in zip(prompt.spans, partner.spans, strict=True)
        if own.value != other.value
    ]
    return edited(prompt, edits)


@sampled(Meaning.CHANGED, ExpectedMask.NAMED, Form.FREE, scope=Scope.SAMPLE)
def wrong_class(prompt: Prompt, attribute: str | None, context: Context, draw: Draw) -> Outcomes:
    """Another class of the dataset; where it has none, one of another part of the body."""
    span = prompt.span("class")
    if span is None or is_denial(span.value):
        return [no_class(span)]
    own = [value for value in other_values(span, context) if not is_denial(value)]
    absent = set(unseen_classes(span, context) if own else strangers(span, context))

    def make(value: str) -> Variant | None:
        variant = with_class(prompt, span, value)
        if value in absent:
            variant = replace(variant, expected_mask=ExpectedMask.EMPTY)
        return variant if not own or still_fits(variant, prompt, context) else None

    return draw.from_pool(
        own or strangers(span, context),
        make,
        otherwise=NotApplicable(f"no class but {span.value!r} fits the prompt"),
    )


def strangers(span: Span, context: Context) -> list[str]:
    """Classes of other datasets that share no word with those of this one."""
    own = set(" ".join([span.value, *context.grammar.card.attributes["class"].values]).split())
    kin = {word.lower().rstrip("s") for word in own}
    known = [pair for pair in context.lexicon.strangers.classes if not kin & set(pair[0].split())]
    return as_nouns(known, span, context)


def unseen_classes(span: Span, context: Context) -> list[str]:
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


def as_nouns(pairs: Iterable[tuple[str, str]], span: Span, context: Context) -> list[str]:
    """Nouns as they stand in place of a class word: its number, its capital."""
    plural = context.lexicon.singular(span.value) is not None
    return [like(many if plural else one, span.value) for one, many in pairs]


def no_class(span: Span | None) -> NotApplicable:
    """The reason given where there is no class word to be changed."""
    if span is None:
        return NotApplicable("the prompt names no class")
    return NotApplicable(f"{span.value!r} already says that there is none")

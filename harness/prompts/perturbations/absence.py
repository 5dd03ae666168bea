"""Perturbations that ask for what is not in the picture: the right mask is empty.

Conventions: as in `base`. The class word alone is replaced, so that the rest of the prompt still
describes the target; `absent_target` borrows the whole prompt of another picture's target. What a
picture shows is known for certain only where all its targets are samples (`Population.complete`).
"""

from collections.abc import Callable, Sequence
from functools import cache

from harness.prompts.context import Context, Form, Scope
from harness.prompts.entries import read_kin
from harness.prompts.lexicon import is_denial
from harness.prompts.perturbations.base import (
    Draw,
    Outcomes,
    sampled,
    with_class,
)
from harness.prompts.perturbations.change import (
    as_nouns,
    lent,
    no_class,
    strangers,
    unseen_classes,
)
from harness.records import ExpectedMask, Meaning, NotApplicable, Prompt, Span, Variant

_kin = cache(read_kin)
_asks = sampled(Meaning.CHANGED, ExpectedMask.EMPTY, Form.FREE, scope=Scope.SAMPLE)


@_asks
def absent(prompt: Prompt, attribute: str | None, context: Context, draw: Draw) -> Outcomes:
    """A class that none of the image's samples has, or a thing no such image shows."""
    nothing = "nothing is known that the image does not show"
    return _another_noun(prompt, context, draw, _unseen, nothing)


def _unseen(span: Span, context: Context) -> Sequence[str]:
    return unseen_classes(span, context) or _far(span, context)


def _near(span: Span, context: Context) -> Sequence[str]:
    """Another class of the picture's organ: the data set's own, where it knows all targets."""
    own = unseen_classes(span, context)
    if own:
        return own
    value = span.value.lower()
    words = [*value.split(), context.lexicon.singular(value) or ""]
    known = [g.nouns for g in _kin().near if any(w in word for w in g.of for word in words)]
    return as_nouns(known[0], span, context) if known else []


def _far(span: Span, context: Context) -> Sequence[str]:
    return as_nouns(context.lexicon.strangers.things, span, context)


def _nonsense(span: Span, context: Context) -> Sequence[str]:
    return as_nouns(_kin().nonsense, span, context)


def _another_noun(
    prompt: Prompt,
    context: Context,
    draw: Draw,
    pool: Callable[[Span, Context], Sequence[str]],
    nothing: str,
) -> Outcomes:
    """A noun from the pool in the place of the class word."""
    span = prompt.span("class")
    if span is None or is_denial(span.value):
        return [no_class(span)]
    return draw.from_pool(
        pool(span, context),
        lambda value: with_class(prompt, span, value),
        otherwise=NotApplicable(nothing.format(span.value)),
    )


@_asks
def absent_near(prompt: Prompt, attribute: str | None, context: Context, draw: Draw) -> Outcomes:
    """Another lesion or class of the same organ."""
    nothing = "nothing near {!r} is known to be absent"
    return _another_noun(prompt, context, draw, _near, nothing)


@_asks
def absent_far(prompt: Prompt, attribute: str | None, context: Context, draw: Draw) -> Outcomes:
    """An everyday thing."""
    return _another_noun(prompt, context, draw, _far, "no everyday thing is known")


@_asks
def absent_modality(
    prompt: Prompt, attribute: str | None, context: Context, draw: Draw
) -> Outcomes:
    """A finding or organ of another part of the body, which other pictures show."""
    nothing = "no finding of another part of the body is known"
    return _another_noun(prompt, context, draw, strangers, nothing)


@_asks
def absent_nonsense(
    prompt: Prompt, attribute: str | None, context: Context, draw: Draw
) -> Outcomes:
    """A word that means nothing."""
    return _another_noun(prompt, context, draw, _nonsense, "no nonsense is known")


@_asks
def absent_target(prompt: Prompt, attribute: str | None, context: Context, draw: Draw) -> Outcomes:
    """The prompt of another picture's target that describes none of this picture's."""
    population, sample = context.population, context.sample
    if not population.complete or sample is None:
        return [NotApplicable("the data set does not say what else its pictures show")]
    shown = [
        other
        for one in population.of_image(sample.image_id)
        for other in one.prompts.get(population.prompt_type, ())
    ]
    others = [
        other
        for one in population.samples
        if one.image_id != sample.image_id
        for other in one.prompts.get(population.prompt_type, ())
        if other.index == prompt.index
    ]

    def make(other: Prompt) -> Variant | None:
        absent = all(context.reader.exclude(own, other) for own in shown)
        return lent(prompt, other, context) if absent else None

    nothing = "no target of another picture is certainly absent from this one"
    return draw.from_pool(others, make, otherwise=NotApplicable(nothing))


KINDS = {
    "absent_near": "near",
    "absent_far": "far",
    "absent_modality": "other modality",
    "absent_target": "another image's target",
    "absent_nonsense": "nonsense",
}
"""Perturbation -> what kind of thing that is not there it asks for; `absent` mixes two."""

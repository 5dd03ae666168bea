"""Perturbations that ask for what is not in the picture: the right mask is empty.

Conventions: as in `base`. The class word alone is replaced, so that the rest of the prompt still
describes the target; `absent_target` borrows the whole prompt of another picture's target. What a
picture shows is known for certain only where all its targets are samples (`Population.complete`).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np

from harness.prompts.context import Context, Form, Scope
from harness.prompts.entries import read_kin
from harness.prompts.lexicon import is_denial
from harness.prompts.perturbations.base import Lottery, Outcome, drawn, with_class
from harness.prompts.perturbations.change import (
    as_nouns,
    lent,
    no_class,
    strangers,
    unseen_classes,
)
from harness.records import ExpectedMask, Meaning, NotApplicable, Prompt, Span, Variant

Draw = Callable[[Prompt, str | None, Context, np.random.Generator, int], Iterable[Outcome]]

_kin = cache(read_kin)


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
    pool = unseen_classes(span, context) or as_nouns(
        context.lexicon.strangers.things, span, context
    )
    return drawn(
        pool,
        lambda value: with_class(prompt, span, value),
        rng=rng,
        repeats=repeats,
        otherwise=NotApplicable("nothing is known that the image does not show"),
    )


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


def _from_pool(pool: Callable[[Span, Context], Sequence[str]], nothing: str) -> Draw:
    """Draws the noun that takes the place of the class word."""

    def draw(
        prompt: Prompt,
        attribute: str | None,
        context: Context,
        rng: np.random.Generator,
        repeats: int,
    ) -> Iterable[Outcome]:
        span = prompt.span("class")
        if span is None or is_denial(span.value):
            return [no_class(span)]
        return drawn(
            pool(span, context),
            lambda value: with_class(prompt, span, value),
            rng=rng,
            repeats=repeats,
            otherwise=NotApplicable(nothing.format(span.value)),
        )

    return draw


def _target(
    prompt: Prompt,
    attribute: str | None,
    context: Context,
    rng: np.random.Generator,
    repeats: int,
) -> Iterable[Outcome]:
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
        return lent(prompt, other) if absent else None

    return drawn(
        others,
        make,
        rng=rng,
        repeats=repeats,
        otherwise=NotApplicable("no target of another picture is certainly absent from this one"),
    )


def _kind(name: str, draw: Draw) -> Lottery:
    return Lottery(
        name=name,
        meaning=Meaning.CHANGED,
        expected_mask=ExpectedMask.EMPTY,
        form=Form.FREE,
        draw=draw,
        scope=Scope.SAMPLE,
    )


ABSENT = _kind("absent", _absent)
ABSENT_NEAR = _kind("absent_near", _from_pool(_near, "nothing near {!r} is known to be absent"))
ABSENT_FAR = _kind("absent_far", _from_pool(_far, "no everyday thing is known"))
ABSENT_MODALITY = _kind(
    "absent_modality", _from_pool(strangers, "no finding of another part of the body is known")
)
ABSENT_TARGET = _kind("absent_target", _target)
ABSENT_NONSENSE = _kind("absent_nonsense", _from_pool(_nonsense, "no nonsense is known"))

KINDS = {
    "absent_near": "near",
    "absent_far": "far",
    "absent_modality": "other modality",
    "absent_target": "another image's target",
    "absent_nonsense": "nonsense",
}
"""Perturbation -> what kind of thing that is not there it asks for; `absent` mixes two."""

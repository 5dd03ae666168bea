"""Perturbations after which the prompt says something else.

Conventions: as in `base`. The changed text parses under the same grammar, with
every other attribute as before. The right mask is that of the sample the text now
names, where the dataset knows one (the plan looks it up).
"""

from collections.abc import Iterable, Iterator

import numpy as np

from harness.prompts.lexicon import like
from harness.prompts.perturbations.base import (
    Context,
    Outcome,
    replaced,
    still_fits,
    unnamed,
)
from harness.records import ExpectedMask, Meaning, NotApplicable, Prompt, Span, Variant


class Antonym:
    """One attribute's value replaced by its semantic opposite from the lexicon."""

    name = "antonym"
    meaning = Meaning.CHANGED
    expected_mask = ExpectedMask.NAMED
    per_attribute = True
    crossed_words = False

    def enumerate(
        self, prompt: Prompt, *, attribute: str | None, context: Context
    ) -> Iterable[Outcome]:
        """One variant, or the reason why there is none."""
        span = prompt.span(attribute) if attribute else None
        if span is None:
            yield unnamed(prompt, attribute)
            return
        opposite = context.lexicon.opposite(span.attribute, span.value)
        if opposite is None:
            yield NotApplicable(
                f"no opposite of {span.value!r} in the {context.lexicon.source} lexicon", attribute
            )
            return
        variant = replaced(prompt, span, opposite)
        if still_fits(variant, prompt, context.grammar):
            yield variant
        else:
            yield NotApplicable(
                f"{opposite!r}, the opposite of {span.value!r}, does not fit the grammar of "
                f"{prompt.prompt_type}",
                attribute,
            )


class SwapValue:
    """One attribute's value replaced by another one of the dataset's own value set.

    Whole values are swapped, lists included (``large`` -> ``small, medium``), as
    the examples of the paper's preprint show. A value that means the same in other
    words (``circle``, ``a circle``, ``round``) is never drawn.
    """

    name = "swap_value"
    meaning = Meaning.CHANGED
    expected_mask = ExpectedMask.NAMED
    per_attribute = True
    crossed_words = False

    def sample(
        self,
        prompt: Prompt,
        *,
        attribute: str | None,
        context: Context,
        rng: np.random.Generator,
        repeats: int,
    ) -> Iterable[Outcome]:
        """Up to `repeats` distinct values, uniform without replacement."""
        span = prompt.span(attribute) if attribute else None
        if span is None:
            yield unnamed(prompt, attribute)
            return
        found = 0
        for variant in _swaps(prompt, span, context, rng):
            if found == repeats:
                return
            found += 1
            yield variant
        if not found:
            yield NotApplicable(
                f"no value but {span.value!r} occurs in the dataset and fits the prompt", attribute
            )


def _swaps(
    prompt: Prompt, span: Span, context: Context, rng: np.random.Generator
) -> Iterator[Variant]:
    """Every admissible swap in random order.

    Skipping the inadmissible ones of a uniform permutation leaves a uniform
    permutation of the others, and only as many texts are parsed as are drawn.
    """
    own = context.lexicon.canonical(span.attribute, span.value)
    values = {
        like(value, span.value)
        for value in context.value_sets.get(span.attribute, ())
        if context.lexicon.canonical(span.attribute, value) != own
    }
    ordered = sorted(values)
    for index in rng.permutation(len(ordered)):
        variant = replaced(prompt, span, ordered[index])
        if still_fits(variant, prompt, context.grammar):
            yield variant

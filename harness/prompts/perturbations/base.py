"""What a perturbation is, and what all of them share.

Conventions: a perturbation is pure. It either enumerates its variants or samples
them from a generator that is passed in; it reads no file and keeps no state. Text
outside the edits never changes. A prompt to which a perturbation does not apply gives
one `NotApplicable`, never nothing. What it does to the meaning is declared, and so are
how far it looks (`Scope`) and what can be read from its variants (`Form`).
"""

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

import numpy as np

from harness.errors import PromptError
from harness.prompts.coherence import contradiction, follow
from harness.prompts.context import Context, Form, Scope
from harness.prompts.dressing import article_before, article_of
from harness.prompts.edits import apply_edits
from harness.prompts.entries import SEPARATOR
from harness.prompts.grammar import LEXICON
from harness.prompts.word_diff import word_edits
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Prompt, Span, Variant

# After so many draws that say nothing new, there is nothing new.
MAX_FAILED_DRAWS = 20

_VERB = re.compile(r" (?:are|is)(?= present)")

Outcome: TypeAlias = Variant | NotApplicable
Outcomes: TypeAlias = Iterable[Outcome]
Item = TypeVar("Item")


@runtime_checkable
class Declared(Hashable, Protocol):
    """What a perturbation says of itself."""

    @property
    def name(self) -> str:
        """Its name in the registry and in suites."""

    @property
    def meaning(self) -> Meaning:
        """What it does to the meaning of a prompt."""

    @property
    def expected_mask(self) -> ExpectedMask:
        """Which mask is right afterwards."""

    @property
    def per_attribute(self) -> bool:
        """Whether it is asked about each attribute in turn, or once about the whole prompt."""

    @property
    def crossed_words(self) -> bool:
        """Whether its variants are one per word of the context, the same for every sample."""

    @property
    def scope(self) -> Scope:
        """How far it looks beside the prompt."""

    @property
    def form(self) -> Form:
        """What can be read from its variants."""


@runtime_checkable
class Enumerated(Declared, Protocol):
    """A perturbation whose variants are all known beforehand."""

    def enumerate(self, prompt: Prompt, *, attribute: str | None, context: Context) -> Outcomes:
        """Every variant of `prompt`, in a fixed order."""


@runtime_checkable
class Sampled(Declared, Protocol):
    """A perturbation that draws some of its variants, without replacement."""

    def sample(
        self,
        prompt: Prompt,
        *,
        attribute: str | None,
        context: Context,
        rng: np.random.Generator,
        repeats: int,
    ) -> Outcomes:
        """Up to `repeats` distinct variants of `prompt`, drawn uniformly.

        Asking for more gives the same ones first.
        """


Perturbation: TypeAlias = Enumerated | Sampled


@dataclass(frozen=True)
class Draw:
    """Chance, and how many variants may be drawn with it."""

    rng: np.random.Generator
    repeats: int

    def from_pool(
        self,
        pool: Sequence[Item],
        make: Callable[[Item], Variant | None],
        *,
        otherwise: NotApplicable,
    ) -> Iterator[Outcome]:
        """Variants from a pool, uniform without replacement; `otherwise` where it gives none.

        `make` gives the variant of an item, None where it is not admissible. Skipping those of a
        uniform permutation leaves a uniform permutation of the others, and only as many are made
        as are drawn.
        """
        found = 0
        for index in self.rng.permutation(len(pool)).tolist():
            if found == self.repeats:
                return
            variant = make(pool[index])
            if variant is not None:
                found += 1
                yield variant
        if not found:
            yield otherwise


Enumerates: TypeAlias = Callable[[Prompt, str | None, Context], Outcomes]
Draws: TypeAlias = Callable[[Prompt, str | None, Context, Draw], Outcomes]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Declaration:
    """What a perturbation made of a function says of itself."""

    name: str
    meaning: Meaning
    expected_mask: ExpectedMask
    form: Form
    per_attribute: bool = False
    crossed_words: bool = False
    scope: Scope = Scope.PROMPT


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule(_Declaration):
    """A perturbation made of a function that enumerates."""

    variants: Enumerates

    def enumerate(self, prompt: Prompt, *, attribute: str | None, context: Context) -> Outcomes:
        """Every variant of `prompt`, in a fixed order."""
        return self.variants(prompt, attribute, context)


@dataclass(frozen=True, kw_only=True, eq=False)
class SampledPerturbation(_Declaration):
    """A perturbation made of a function that draws."""

    draw: Draws

    def sample(
        self,
        prompt: Prompt,
        *,
        attribute: str | None,
        context: Context,
        rng: np.random.Generator,
        repeats: int,
    ) -> Outcomes:
        """Up to `repeats` distinct variants of `prompt`, drawn uniformly."""
        return self.draw(prompt, attribute, context, Draw(rng, repeats))


def rule(
    meaning: Meaning, mask: ExpectedMask, form: Form, **more: Any
) -> Callable[[Enumerates], Rule]:
    """Make a perturbation of the function below, which enumerates and gives it its name."""
    return lambda variants: Rule(
        name=variants.__name__,
        meaning=meaning,
        expected_mask=mask,
        form=form,
        variants=variants,
        **more,
    )


def sampled(
    meaning: Meaning, mask: ExpectedMask, form: Form, **more: Any
) -> Callable[[Draws], SampledPerturbation]:
    """Make a perturbation of the function below, which draws and gives it its name."""
    return lambda draw: SampledPerturbation(
        name=draw.__name__, meaning=meaning, expected_mask=mask, form=form, draw=draw, **more
    )


@cache
def is_sampled(perturbation: Perturbation) -> bool:
    """Whether a perturbation draws its variants; a protocol is slow to ask, so it is once."""
    return isinstance(perturbation, Sampled)


def variants_of(
    perturbation: Perturbation,
    prompt: Prompt,
    *,
    attribute: str | None,
    context: Context,
    rng: np.random.Generator | None = None,
    repeats: int = 1,
) -> Outcomes:
    """Apply a perturbation of either kind.

    Args:
        perturbation: The rule.
        prompt: The original.
        attribute: The attribute to change; None for rules that change the whole prompt.
        context: Grammar, lexicon, value sets, words, and what stands around the prompt.
        rng: Source of chance; only rules that sample need one.
        repeats: How many variants a rule that samples may draw.

    Raises:
        PromptError: A rule that samples was given no generator.
    """
    if perturbation.per_attribute and (attribute is None or prompt.span(attribute) is None):
        return (unnamed(attribute),)
    if not prompt.text:
        return (NotApplicable("the prompt is already empty", attribute),)
    if not is_sampled(perturbation):
        enumerated = cast(Enumerated, perturbation)
        return enumerated.enumerate(prompt, attribute=attribute, context=context)
    if rng is None:
        raise PromptError(
            f"perturbation {perturbation.name!r}: found no random generator. It samples its "
            "variants and needs one. Pass rng=numpy.random.default_rng(seed)."
        )
    return cast(Sampled, perturbation).sample(
        prompt, attribute=attribute, context=context, rng=rng, repeats=repeats
    )


def edited(prompt: Prompt, edits: Sequence[Edit], *, attribute: str | None = None) -> Variant:
    """The variant that some edits make."""
    edits = tuple(edits)
    return Variant(apply_edits(prompt.text, edits), edits, prompt.prompt_type, attribute)


def replaced(prompt: Prompt, span: Span, new: str, *, word: str | None = None) -> Variant:
    """The variant in which one attribute's whole value is another text."""
    made = edited(prompt, value_edits(prompt, span, new), attribute=span.attribute)
    return replace(made, word=word) if word is not None else made


def value_edits(prompt: Prompt, span: Span, new: str) -> list[Edit]:
    """The edits that put another value in a span's place, with the article it needs before it."""
    edits = [Edit(span.start, span.end, span.value, new, span.attribute)]
    old = article_before(prompt.text, span.start)
    right = old[:1] + article_of(new)[1:] if old else old
    if right != old:
        edits.append(Edit(span.start - len(old), span.start - 1, old[:-1], right[:-1]))
    return edits


def with_class(prompt: Prompt, span: Span, noun: str) -> Variant:
    """The variant with another class word, by a rule that is not asked about an attribute."""
    return edited(prompt, value_edits(prompt, span, noun))


def rewritten(prompt: Prompt, text: str, *, attribute: str | None = None) -> Variant:
    """The variant with another text; the edits are those of its words."""
    return Variant(text, word_edits(prompt.text, text), prompt.prompt_type, attribute)


def whole(prompt: Prompt, text: str) -> Variant:
    """The variant in which everything is replaced at once."""
    edits = (Edit(0, len(prompt.text), prompt.text, text),)
    return Variant(text, edits, prompt.prompt_type)


def still_fits(variant: Variant, prompt: Prompt, context: Context) -> bool:
    """Whether the changed text parses, with the same other attributes as before."""
    parsed = context.grammar.recognise(variant.text, prompt_type=prompt.prompt_type)
    return parsed is not None and parsed.values == said_after(variant, prompt, context)


def said_after(variant: Variant, prompt: Prompt, context: Context) -> dict[str, str]:
    """The values of a prompt after the edits of a variant, and what follows them."""
    changed = next((e for e in variant.edits if e.attribute == variant.attribute), None)
    if changed is not None and changed.attribute is not None and prompt.template != LEXICON:
        followed = follow(prompt.values, changed.attribute, changed.new, context.lexicon)
        if followed is not None:
            return followed
    return prompt.values | {edit.attribute: edit.new for edit in variant.edits if edit.attribute}


def agreeing_verb(prompt: Prompt, span: Span, value: str, context: Context) -> list[Edit]:
    """The edit that makes the verb after a list of findings agree with its new value, if any."""
    verb = _VERB.match(prompt.text, span.end)
    several = SEPARATOR in value or value.lower() in context.lexicon.forms.plural
    right = " are" if several else " is"
    if verb is None or verb.group() == right:
        return []
    return [Edit(verb.start(), verb.end(), verb.group(), right)]


def contradicts_itself(variant: Variant, prompt: Prompt, context: Context) -> str | None:
    """What an edit brings into contradiction with the rest of its prompt; None where nothing."""
    now = contradiction(said_after(variant, prompt, context), context.lexicon)
    return None if now == contradiction(prompt.values, context.lexicon) else now


def named(prompt: Prompt, attribute: str | None) -> Span:
    """The span of an attribute that `variants_of` has found to be there."""
    span = prompt.span(attribute) if attribute is not None else None
    if span is None:
        raise PromptError(
            f"perturbation: the prompt {prompt.text!r} names no {attribute}. One of its attributes "
            f"{list(prompt.values)!r} is needed. Apply perturbations with variants_of, which says "
            "what does not apply."
        )
    return span


def unnamed(attribute: str | None) -> NotApplicable:
    """The reason given where a prompt does not hold the attribute at all."""
    return NotApplicable(f"the prompt names no {attribute}", attribute)

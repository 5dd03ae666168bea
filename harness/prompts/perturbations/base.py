"""What a perturbation is, and how edits are applied.

Conventions: a perturbation is pure. It either enumerates its variants or samples
them from a generator that is passed in; it reads no file and keeps no state. A
span is replaced as a whole, so text outside the edits never changes. A prompt to
which a perturbation does not apply gives one `NotApplicable`, never nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from harness.errors import PromptError
from harness.prompts.grammar import PromptGrammar
from harness.prompts.lexicon import Lexicon
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Prompt, Span, Variant

Outcome: TypeAlias = Variant | NotApplicable


@dataclass(frozen=True)
class Context:
    """What a perturbation may look at beside the prompt.

    `value_sets` holds, per attribute, the values that occur in the dataset's
    split; `words` are the random words every sample sees.
    """

    grammar: PromptGrammar
    lexicon: Lexicon
    value_sets: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    words: tuple[str, ...] = ()


@runtime_checkable
class Enumerated(Protocol):
    """A perturbation whose variants are all known beforehand."""

    name: str
    meaning: Meaning
    expected_mask: ExpectedMask
    per_attribute: bool
    crossed_words: bool

    def enumerate(
        self, prompt: Prompt, *, attribute: str | None, context: Context
    ) -> Iterable[Outcome]:
        """Every variant of `prompt`, in a fixed order."""
        ...


@runtime_checkable
class Sampled(Protocol):
    """A perturbation that draws some of its variants, without replacement."""

    name: str
    meaning: Meaning
    expected_mask: ExpectedMask
    per_attribute: bool
    crossed_words: bool

    def sample(
        self,
        prompt: Prompt,
        *,
        attribute: str | None,
        context: Context,
        rng: np.random.Generator,
        repeats: int,
    ) -> Iterable[Outcome]:
        """Up to `repeats` distinct variants of `prompt`, drawn uniformly."""
        ...


Perturbation: TypeAlias = Enumerated | Sampled


def variants_of(
    perturbation: Perturbation,
    prompt: Prompt,
    *,
    attribute: str | None,
    context: Context,
    rng: np.random.Generator | None = None,
    repeats: int = 1,
) -> Iterable[Outcome]:
    """Apply a perturbation of either kind.

    Args:
        perturbation: The rule.
        prompt: The original.
        attribute: The attribute to change; None for rules that change the whole prompt.
        context: Grammar, lexicon, value sets and words.
        rng: Source of chance; only rules that sample need one.
        repeats: How many variants a rule that samples may draw.

    Raises:
        PromptError: A rule that samples was given no generator.
    """
    if not isinstance(perturbation, Sampled):
        return perturbation.enumerate(prompt, attribute=attribute, context=context)
    if rng is None:
        raise PromptError(
            f"perturbation {perturbation.name!r}: found no random generator. It samples its "
            "variants and needs one. Pass rng=numpy.random.default_rng(seed)."
        )
    return perturbation.sample(
        prompt, attribute=attribute, context=context, rng=rng, repeats=repeats
    )


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """Make every replacement at once; offsets are those of `text`.

    Raises:
        PromptError: An edit does not fit the text, or two edits overlap.

    Example:
        >>> apply_edits("small white polyp", [Edit(0, 5, "small", "large", "size")])
        'large white polyp'
    """
    parts, position = [], 0
    for edit in sorted(edits, key=lambda e: (e.start, e.end)):
        if edit.start < position:
            raise PromptError(
                f"edit {edit.old!r} -> {edit.new!r}: starts at character {edit.start}, inside the "
                f"edit before it, which ends at {position}. Edits may not overlap. Join the two."
            )
        if text[edit.start : edit.end] != edit.old:
            raise PromptError(
                f"edit {edit.old!r} -> {edit.new!r}: characters {edit.start} to {edit.end} are "
                f"{text[edit.start : edit.end]!r}. They must be what the edit replaces. "
                "Apply the edit to its own original."
            )
        parts += [text[position : edit.start], edit.new]
        position = edit.end
    return "".join([*parts, text[position:]])


def invert_edits(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """The edits that lead back: offsets are those of the changed text.

    Example:
        >>> there = [Edit(0, 5, "small", "tiny", "size")]
        >>> apply_edits(apply_edits("small polyp", there), invert_edits(there))
        'small polyp'
    """
    inverted, shift = [], 0
    for edit in sorted(edits, key=lambda e: (e.start, e.end)):
        start = edit.start + shift
        inverted.append(
            replace(edit, start=start, end=start + len(edit.new), old=edit.new, new=edit.old)
        )
        shift += len(edit.new) - len(edit.old)
    return tuple(inverted)


def replaced(prompt: Prompt, span: Span, new: str, *, word: str | None = None) -> Variant:
    """The variant in which one attribute's whole value is another text."""
    edits = (Edit(span.start, span.end, span.value, new, span.attribute),)
    return Variant(apply_edits(prompt.text, edits), edits, prompt.prompt_type, span.attribute, word)


def still_fits(variant: Variant, prompt: Prompt, grammar: PromptGrammar) -> bool:
    """Whether the changed text parses, with the same other attributes as before."""
    try:
        parsed = grammar.parse(variant.text, prompt_type=prompt.prompt_type)
    except PromptError:
        return False
    expected = prompt.values
    expected |= {edit.attribute: edit.new for edit in variant.edits if edit.attribute}
    return parsed.values == expected


def unnamed(prompt: Prompt, attribute: str | None) -> NotApplicable:
    """The reason given where a prompt does not hold the attribute at all."""
    return NotApplicable(f"the prompt names no {attribute}", attribute)

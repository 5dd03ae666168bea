"""Perturbations that take words away or make them meaningless.

Conventions: as in `base`. Nothing says which mask is right after them, so the
expected mask is undefined; the measures compare with the sample's own.
"""

from collections.abc import Iterable

from harness.prompts.lexicon import like
from harness.prompts.perturbations.base import Context, Outcome, replaced, unnamed
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Prompt, Variant


class Empty:
    """The empty prompt: all text removed.

    A model that was trained with prompts is asked without one; this is not the
    reference's P0 column, for which it is also trained without.
    """

    name = "empty"
    meaning = Meaning.REMOVED
    expected_mask = ExpectedMask.UNDEFINED
    per_attribute = False
    crossed_words = False

    def enumerate(
        self, prompt: Prompt, *, attribute: str | None, context: Context
    ) -> Iterable[Outcome]:
        """One variant: the empty text, on rung ``p0``."""
        if not prompt.text:
            yield NotApplicable("the prompt is already empty")
            return
        edits = (Edit(0, len(prompt.text), prompt.text, ""),)
        yield Variant("", edits, "p0")


class RandomWord:
    """One attribute's whole value replaced by an uncommon English word.

    Every prompt sees the same words, so that words are a factor crossed with
    samples: statistics can then tell the effect of the words from that of the
    samples.
    """

    name = "random_word"
    meaning = Meaning.DESTROYED
    expected_mask = ExpectedMask.UNDEFINED
    per_attribute = True
    crossed_words = True

    def enumerate(
        self, prompt: Prompt, *, attribute: str | None, context: Context
    ) -> Iterable[Outcome]:
        """One variant per word of the context, in its order."""
        span = prompt.span(attribute) if attribute else None
        if span is None:
            yield unnamed(prompt, attribute)
            return
        for word in context.words:
            if word == span.value.lower():
                yield NotApplicable(f"the {attribute} is already {word!r}", attribute)
                continue
            yield replaced(prompt, span, like(word, span.value), word=word)

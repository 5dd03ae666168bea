"""Perturbations that say the same in other words or in another order.

Conventions: as in `base`. Every variant was read again with the same meaning of every
attribute; what could not be read is left out. The right mask is still the sample's own.
"""

from collections.abc import Iterable

from harness.prompts.context import Context, Form
from harness.prompts.dressing import with_right_articles
from harness.prompts.entries import SEPARATOR
from harness.prompts.grammar import LEXICON
from harness.prompts.perturbations.base import Outcomes, named, replaced, rewritten, rule
from harness.prompts.phrases import write_as
from harness.prompts.templates import Slot, Template
from harness.records import ExpectedMask, Meaning, NotApplicable, Prompt, Span, Variant


@rule(Meaning.PRESERVED, ExpectedMask.OWN, Form.READ, per_attribute=True)
def synonym(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """Another word for the same value."""
    span = named(prompt, attribute)
    before, after = prompt.text[: span.start], prompt.text[span.end :]
    noun = after.startswith("-shaped")
    ways = context.lexicon.synonyms(span.attribute, span.value, noun=noun)
    if before.endswith("shape ") or after.startswith(" shape"):
        ways = tuple(way for way in ways if not way.endswith("-shaped"))
    found = [replaced(prompt, span, way) for way in ways if way != span.value]
    fitting = [variant for variant in found if _is_synonym(variant, prompt, span, context)]
    yield from fitting
    if not fitting:
        yield NotApplicable(
            f"no synonym of {span.value!r} in the {context.lexicon.source} lexicon fits the prompt",
            attribute,
        )


def _is_synonym(variant: Variant, prompt: Prompt, span: Span, context: Context) -> bool:
    """Whether the text says the synonym and all else as before, and names no other value."""
    mean, reader = context.lexicon.canonical, context.reader
    said, own = mean(span.attribute, variant.edits[0].new), mean(span.attribute, span.value)
    if said != own:  # a thesaurus knows more words than the canonical sets
        known = context.value_sets.get(span.attribute, ())
        if any(said == mean(span.attribute, value) for value in known):
            return False
    return reader.says(variant.text, prompt, {**reader.meaning(prompt), span.attribute: said})


@rule(Meaning.PRESERVED, ExpectedMask.OWN, Form.READ)
def paraphrase(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """The card's other sentences; dressed values ("it is round") are written plainly there."""
    plain = context.lexicon.plain
    values = {span.attribute: plain(span.attribute, span.value) for span in prompt.spans}
    said = [
        (with_right_articles(text), template)
        for template in context.grammar.paraphrases.get(prompt.prompt_type, ())
        if (text := write_as(template, prompt, values)) is not None
    ]
    found = _the_same(prompt, said, context)
    yield from found
    if not found:
        yield NotApplicable(f"the grammar knows no other sentence for this {prompt.prompt_type}")


@rule(Meaning.PRESERVED, ExpectedMask.OWN, Form.READ)
def reorder_attributes(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """Movable phrases in every other order, and lists of values the other way round.

    A dressed value ("it is round") stays in its place, as odd as it stands there. A noun
    ("kidney") stays before the noun it belongs to.
    """
    plain = context.lexicon.plain
    said: list[tuple[str, Template | None]] = []
    if all(plain(span.attribute, span.value) == span.value for span in prompt.spans):
        own = context.grammar.template_of(prompt)
        fixed = _followers(own, prompt, context)
        said += [
            (with_right_articles(text) if prompt.template == LEXICON else text, template)
            for template in context.grammar.orders_of(prompt)
            if _followers(template, prompt, context) == fixed
            and (text := write_as(template, prompt, prompt.values)) is not None
        ]
    for span in prompt.spans:
        if context.grammar.card.attributes[span.attribute].separator == SEPARATOR:
            turned = SEPARATOR.join(reversed(span.value.split(SEPARATOR)))
            said.append((prompt.text[: span.start] + turned + prompt.text[span.end :], None))
    found = _the_same(prompt, said, context)
    yield from found
    if not found:
        yield NotApplicable("nothing in the prompt may change its place")


def _followers(template: Template, prompt: Prompt, context: Context) -> dict[str, str]:
    """Per bare noun that stands before another word, the attribute of that word."""
    values, pieces = prompt.values, template.pieces
    return {
        slot.attribute: following.attribute
        for slot, between, following in zip(pieces, pieces[1:], pieces[2:], strict=False)
        if isinstance(slot, Slot) and isinstance(following, Slot) and between == " "
        if not context.lexicon.is_adjective(slot.attribute, values[slot.attribute])
    }


def _the_same(
    prompt: Prompt, said: Iterable[tuple[str, Template | None]], context: Context
) -> list[Variant]:
    """Variants of those texts, each once, that are read with the original's meaning."""
    same = context.reader.says_the_same
    return [
        rewritten(prompt, text)
        for text, template in dict(said).items()
        if text != prompt.text and same(text, prompt, likely=template)
    ]

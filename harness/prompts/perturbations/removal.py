"""Perturbations that take words away.

Conventions: as in `base`. Nothing says which mask is right afterwards, so the expected
mask is undefined; the measures compare with the sample's own.
"""

from harness.prompts.context import Context, Form, Scope
from harness.prompts.edits import begin_like
from harness.prompts.perturbations.base import (
    Draw,
    Outcomes,
    edited,
    named,
    rewritten,
    rule,
    sampled,
)
from harness.prompts.tokens import chunk_places
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Prompt, Variant


@rule(Meaning.REMOVED, ExpectedMask.UNDEFINED, Form.PARSED)
def empty(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """No words; not the reference's P0 column, for which the model is trained without, too."""
    yield Variant("", (Edit(0, len(prompt.text), prompt.text, ""),), "p0")


@rule(Meaning.REMOVED, ExpectedMask.UNDEFINED, Form.FREE, per_attribute=True)
def drop_attribute(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """The prompt without an attribute and the phrase that the card says goes with it."""
    span = named(prompt, attribute)
    texts = (phrase.apply(prompt) for phrase in context.grammar.drops_of(prompt, span.attribute))
    text = next((text for text in texts if text is not None), None)
    if text is None:
        reason = f"the grammar knows no sentence of {prompt.prompt_type} without {attribute}"
        yield NotApplicable(reason, attribute)
    else:
        yield rewritten(prompt, text, attribute=attribute)


@rule(Meaning.REMOVED, ExpectedMask.UNDEFINED, Form.PARSED, scope=Scope.SAMPLE)
def prompt_type(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """The sample's prompts of other rungs; of a list the one of the same place, else all."""
    seen = {prompt.text}
    for rung in context.rungs:
        if rung == prompt.prompt_type:
            continue
        theirs = context.sample.prompts.get(rung, ()) if context.sample is not None else ()
        own = context.sample.prompts.get(prompt.prompt_type, ()) if context.sample else ()
        if not theirs:
            yield NotApplicable(f"the row has no {rung} prompt")
        same_place = [p for p in theirs if p.index == prompt.index]
        for other in same_place if len(own) == len(theirs) else theirs:
            if other.text in seen:
                yield NotApplicable(f"the {rung} prompt is the same text as another rung's")
                continue
            seen.add(other.text)
            made = rewritten(prompt, other.text)
            meaning = Meaning.PRESERVED if _adds(other, prompt, context) else None
            yield Variant(made.text, made.edits, rung, meaning=meaning)


def _adds(other: Prompt, prompt: Prompt, context: Context) -> bool:
    """Whether another rung says all that the original says, and only adds to it."""
    meaning = context.reader.meaning
    return meaning(prompt).items() <= meaning(other).items()


@rule(Meaning.REMOVED, ExpectedMask.UNDEFINED, Form.FREE)
def class_only(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """The class word alone."""
    span = prompt.span("class")
    if span is None:
        yield NotApplicable("the prompt names no class")
        return
    text = begin_like(span.value, prompt.text)
    if text == prompt.text:
        yield NotApplicable("the prompt is already its class word")
    else:
        yield rewritten(prompt, text)


@sampled(Meaning.REMOVED, ExpectedMask.UNDEFINED, Form.FREE)
def truncate(prompt: Prompt, attribute: str | None, context: Context, draw: Draw) -> Outcomes:
    """The prompt cut after one of its words."""
    ends = [end for _, end in chunk_places(prompt.text)][:-1]
    length = len(prompt.text)
    return draw.from_pool(
        ends,
        lambda end: edited(prompt, [Edit(end, length, prompt.text[end:], "")]),
        otherwise=NotApplicable("the prompt is a single word"),
    )

"""Perturbations that take words away.

Conventions: as in `base`. Nothing says which mask is right afterwards, so the expected
mask is undefined; the measures compare with the sample's own.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from harness.prompts.context import Context, Form, Scope
from harness.prompts.edits import begin_like
from harness.prompts.perturbations.base import (
    Lottery,
    Outcome,
    Rule,
    drawn,
    edited,
    named,
    rewritten,
)
from harness.prompts.tokens import chunk_places
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Prompt, Variant


def _empty(prompt: Prompt, attribute: str | None, context: Context) -> Iterable[Outcome]:
    yield Variant("", (Edit(0, len(prompt.text), prompt.text, ""),), "p0")


def _without(prompt: Prompt, attribute: str | None, context: Context) -> Iterable[Outcome]:
    span = named(prompt, attribute)
    texts = (phrase.apply(prompt) for phrase in context.grammar.drops_of(prompt, span.attribute))
    text = next((text for text in texts if text is not None), None)
    if text is None:
        reason = f"the grammar knows no sentence of {prompt.prompt_type} without {attribute}"
        yield NotApplicable(reason, attribute)
    else:
        yield rewritten(prompt, text, attribute=attribute)


def _rungs(prompt: Prompt, attribute: str | None, context: Context) -> Iterable[Outcome]:
    """Prompts of a list take the one of the same place; one prompt takes all of a list."""
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


def _class_alone(prompt: Prompt, attribute: str | None, context: Context) -> Iterable[Outcome]:
    span = prompt.span("class")
    if span is None:
        yield NotApplicable("the prompt names no class")
        return
    text = begin_like(span.value, prompt.text)
    if text == prompt.text:
        yield NotApplicable("the prompt is already its class word")
    else:
        yield rewritten(prompt, text)


def _beginnings(
    prompt: Prompt,
    attribute: str | None,
    context: Context,
    rng: np.random.Generator,
    repeats: int,
) -> Iterator[Outcome]:
    ends = [end for _, end in chunk_places(prompt.text)][:-1]
    length = len(prompt.text)
    yield from drawn(
        ends,
        lambda end: edited(prompt, [Edit(end, length, prompt.text[end:], "")]),
        rng=rng,
        repeats=repeats,
        otherwise=NotApplicable("the prompt is a single word"),
    )


EMPTY = Rule(
    name="empty",  # not the reference's P0 column, for which the model is trained without, too
    meaning=Meaning.REMOVED,
    expected_mask=ExpectedMask.UNDEFINED,
    form=Form.PARSED,
    variants=_empty,
)
DROP_ATTRIBUTE = Rule(
    name="drop_attribute",  # with the phrase that the card says goes with it
    meaning=Meaning.REMOVED,
    expected_mask=ExpectedMask.UNDEFINED,
    form=Form.FREE,
    variants=_without,
    per_attribute=True,
)
PROMPT_TYPE = Rule(
    name="prompt_type",  # the same sample's prompts of other rungs of the ladder P0 to P9
    meaning=Meaning.REMOVED,
    expected_mask=ExpectedMask.UNDEFINED,
    form=Form.PARSED,
    variants=_rungs,
    scope=Scope.SAMPLE,
)
CLASS_ONLY = Rule(
    name="class_only",
    meaning=Meaning.REMOVED,
    expected_mask=ExpectedMask.UNDEFINED,
    form=Form.FREE,
    variants=_class_alone,
)
TRUNCATE = Lottery(
    name="truncate",  # cut after one of its words
    meaning=Meaning.REMOVED,
    expected_mask=ExpectedMask.UNDEFINED,
    form=Form.FREE,
    draw=_beginnings,
)

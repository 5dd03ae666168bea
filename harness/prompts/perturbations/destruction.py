"""Perturbations that make words meaningless.

Conventions: as in `base`. Nothing says which mask is right afterwards, so the expected
mask is undefined; the measures compare with the sample's own. Words are random, but
the same for every sample where they are crossed with samples: statistics can then tell
the effect of the words from that of the samples.
"""

import numpy as np

from harness.prompts.context import Context, Form
from harness.prompts.edits import begin_like
from harness.prompts.lexicon import like
from harness.prompts.perturbations.base import (
    MAX_FAILED_DRAWS,
    Draw,
    Outcomes,
    edited,
    named,
    replaced,
    rule,
    sampled,
    value_edits,
    whole,
)
from harness.prompts.tokens import chunk_places
from harness.prompts.words import uncommon_words
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Prompt, Variant


@rule(Meaning.DESTROYED, ExpectedMask.UNDEFINED, Form.FREE, per_attribute=True, crossed_words=True)
def random_word(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """One attribute's whole value is an uncommon English word."""
    span = named(prompt, attribute)
    for word in context.words:
        if word == span.value.lower():
            yield NotApplicable(f"the {attribute} is already {word!r}", attribute)
            continue
        yield replaced(prompt, span, like(word, span.value), word=word)


@rule(Meaning.DESTROYED, ExpectedMask.UNDEFINED, Form.FREE, crossed_words=True)
def random_words(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """All attributes at once: each takes the word after the one before it took."""
    words = context.words
    if not prompt.spans or not words:
        yield NotApplicable("the prompt names no attribute")
        return
    for first, word in enumerate(words):
        edits = [
            edit
            for place, span in enumerate(prompt.spans)
            for edit in value_edits(
                prompt, span, like(words[(first + place) % len(words)], span.value)
            )
        ]
        made = edited(prompt, [edit for edit in edits if edit.old != edit.new])
        yield Variant(made.text, made.edits, prompt.prompt_type, word=word)


@sampled(Meaning.DESTROYED, ExpectedMask.UNDEFINED, Form.FREE)
def random_prompt(prompt: Prompt, attribute: str | None, context: Context, draw: Draw) -> Outcomes:
    """As many words as the prompt has, all different as far as the list goes."""
    words = uncommon_words()
    n = len(chunk_places(prompt.text))
    seen = {prompt.text}
    for _ in range(draw.repeats):
        chosen = draw.rng.permutation(np.arange(max(n, len(words))) % len(words))[:n]
        text = begin_like(" ".join(words[index] for index in chosen.tolist()), prompt.text)
        if text not in seen:
            seen.add(text)
            yield whole(prompt, text)


@sampled(Meaning.DESTROYED, ExpectedMask.UNDEFINED, Form.FREE)
def irrelevant(prompt: Prompt, attribute: str | None, context: Context, draw: Draw) -> Outcomes:
    """The sentence is written as the prompt is: with or without a capital and a full stop."""
    formal, stop = prompt.text[:1].isupper(), prompt.text.rstrip().endswith(".")

    def make(sentence: str) -> Variant | None:
        text = sentence if formal else sentence[:1].lower() + sentence[1:]
        text = text if stop else text.rstrip(".")
        return whole(prompt, text) if text != prompt.text else None

    return draw.from_pool(
        context.lexicon.sentences,
        make,
        otherwise=NotApplicable("the prompt is the only sentence of another domain"),
    )


@sampled(Meaning.DESTROYED, ExpectedMask.UNDEFINED, Form.FREE)
def shuffle_words(prompt: Prompt, attribute: str | None, context: Context, draw: Draw) -> Outcomes:
    """Orders of the words, uniform among those that no longer say the same."""
    places = chunk_places(prompt.text)
    words = [prompt.text[start:end] for start, end in places]
    seen, found, vain = {prompt.text}, 0, 0
    while found < draw.repeats and vain < MAX_FAILED_DRAWS and len(set(words)) > 1:
        order = draw.rng.permutation(len(words)).tolist()
        edits = [
            Edit(start, end, words[place], words[source])
            for place, ((start, end), source) in enumerate(zip(places, order, strict=True))
            if words[place] != words[source]
        ]
        made = edited(prompt, edits)
        if made.text in seen or context.reader.says_the_same(made.text, prompt):
            vain += 1
            continue
        seen.add(made.text)
        found, vain = found + 1, 0
        yield made
    if not found:
        yield NotApplicable("no other order of its words says something else")

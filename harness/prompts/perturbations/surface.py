"""Perturbations of how the same words are written: capitals, marks and blanks.

Conventions: as in `base`. Values of attributes keep their words and their commas: only
marks between them change. The right mask is still the sample's own.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

from harness.prompts.context import Context, Form
from harness.prompts.perturbations.base import Draw, Outcomes, edited, rule, sampled
from harness.prompts.tokens import chunk_places, word_places
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Prompt, Variant


@rule(Meaning.PRESERVED, ExpectedMask.OWN, Form.READ)
def case(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """All upper, all lower, every word with a capital, and the first word alone."""
    changes: tuple[Callable[[int, str], str], ...] = (
        lambda place, word: word.upper(),
        lambda place, word: word.lower(),
        lambda place, word: word.capitalize(),
        lambda place, word: word.lower() if place else word.capitalize(),
    )
    places, seen = word_places(prompt.text), {prompt.text}
    for change in changes:
        words = [(a, b, prompt.text[a:b]) for a, b in places]
        edits = [
            Edit(a, b, word, change(place, word))
            for place, (a, b, word) in enumerate(words)
            if change(place, word) != word
        ]
        made = edited(prompt, edits)
        if made.text not in seen and context.reader.says_the_same(made.text, prompt):
            seen.add(made.text)
            yield made
    if len(seen) == 1:
        yield NotApplicable("no letter of the prompt has another case that is read the same")


@rule(Meaning.PRESERVED, ExpectedMask.OWN, Form.READ)
def punctuation(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """Another end of the sentence, other marks for its commas, quotes around it."""
    found = [edited(prompt, edits) for edits in _other_marks(prompt)]
    fitting = [made for made in found if context.reader.says_the_same(made.text, prompt)]
    yield from fitting
    if not fitting:
        yield NotApplicable("no other marks of the prompt are read with the same meaning")


def _other_marks(prompt: Prompt) -> Iterator[list[Edit]]:
    end = len(prompt.text.rstrip())
    stop = prompt.text[:end].endswith(".")
    start = end - stop
    for mark in ("" if stop else ".", "!", "..."):
        yield [Edit(start, end, prompt.text[start:end], mark)]
    commas = list(_free_commas(prompt))
    for mark in ("", ";", " -") if commas else ():
        yield [Edit(place, place + 1, ",", mark) for place in commas]
    yield [Edit(0, 0, "", '"'), Edit(end, end, "", '"')]


def _free_commas(prompt: Prompt) -> Iterator[int]:
    """Commas of the sentence: those inside a value separate the items of a list."""
    for place, character in enumerate(prompt.text):
        if character == "," and not any(s.start <= place < s.end for s in prompt.spans):
            yield place


@sampled(Meaning.PRESERVED, ExpectedMask.OWN, Form.READ)
def whitespace(prompt: Prompt, attribute: str | None, context: Context, draw: Draw) -> Outcomes:
    """One blank more or another one, before, between or behind the words."""
    text = prompt.text
    places = chunk_places(text)
    gaps = [(a[1], b[0]) for a, b in pairwise(places)]
    pool = [(a, b, new) for a, b in gaps for new in ("  ", "\t", "\n") if text[a:b] != new]
    pool += [(0, 0, " "), (len(text), len(text), " ")]
    pool += [(place, place, " ") for place in _free_commas(prompt)]

    def make(place: tuple[int, int, str]) -> Variant | None:
        start, end, new = place
        made = edited(prompt, [Edit(start, end, text[start:end], new)])
        return made if context.reader.says_the_same(made.text, prompt) else None

    return draw.from_pool(
        pool,
        make,
        otherwise=NotApplicable("the prompt has no place for a blank"),
    )

"""Perturbations of spelling and grammar: slips, and their repair.

Conventions: as in `base`. A typo never makes another value of the attribute, another
word of a prompt, or an English word: it stays nearest to what was meant. Repairs and
other spellings are read again with the same meaning of every attribute. The right mask
is still the sample's own.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from harness.prompts.context import Context, Form
from harness.prompts.dressing import undress, with_right_articles
from harness.prompts.edits import begin_like
from harness.prompts.entries import SEPARATOR
from harness.prompts.lexicon import like
from harness.prompts.perturbations.base import (
    Draw,
    Outcomes,
    agreeing_verb,
    edited,
    rewritten,
    rule,
    sampled,
)
from harness.prompts.tokens import word_places
from harness.prompts.typos import keeps_distance, typos_of
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Prompt, Span, Variant


@sampled(Meaning.PRESERVED, ExpectedMask.OWN, Form.FREE)
def typo(prompt: Prompt, attribute: str | None, context: Context, draw: Draw) -> Outcomes:
    """One slip of the keyboard in one word."""
    text, known = prompt.text, _known_words(context)
    words = [(a, b, typos_of(text[a:b])) for a, b in word_places(text)]
    ends = list(accumulate(len(typos) for _, _, typos in words))

    def make(index: int) -> Variant | None:
        word = bisect_right(ends, index)
        a, b, typos = words[word]
        edit = Edit(a, b, text[a:b], typos[index - ends[word]])
        if edit.new.lower() in known:
            return None
        span = next((s for s in prompt.spans if s.start <= edit.start < s.end), None)
        if span is not None and not _is_unmistakable(edit, span, context):
            return None
        return edited(prompt, [edit])

    return draw.from_pool(
        range(ends[-1] if ends else 0),
        make,
        otherwise=NotApplicable("no word is long enough for a typo that cannot be mistaken"),
    )


def _known_words(context: Context) -> frozenset[str]:
    """Words that a typo may not make: those of the prompts, of the lexicon, and of English."""

    def find() -> frozenset[str]:
        card = context.grammar.card
        texts = [value for rule in card.attributes.values() for value in rule.values]
        texts += [template for several in card.prompts.values() for template in several]
        texts += [value for values in context.value_sets.values() for value in values]
        words = {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}
        return frozenset(words) | context.lexicon.words() | context.lexicon.real_words

    return context.remember("known words", find)


def _is_unmistakable(edit: Edit, span: Span, context: Context) -> bool:
    """Whether the misspelt item is nearer to itself than to any other value of the set."""
    before = span.value[: edit.start - span.start]
    after = span.value[edit.end - span.start :]
    item = before.rpartition(SEPARATOR)[2] + edit.new + after.partition(SEPARATOR)[0]
    own = before.rpartition(SEPARATOR)[2] + edit.old + after.partition(SEPARATOR)[0]
    return keeps_distance(item.lower(), _others(span.attribute, own.lower(), context))


def _others(attribute: str, own: str, context: Context) -> Sequence[str]:
    """Single values of an attribute that mean something else than `own`."""

    def find() -> list[str]:
        rule = context.grammar.card.attributes[attribute]
        known = [*rule.values, *context.value_sets.get(attribute, ())]
        items = {item.lower() for value in known for item in value.split(SEPARATOR)}
        mean = context.lexicon.canonical
        return sorted(i for i in items if mean(attribute, i) != mean(attribute, own))

    return context.remember(("other items", attribute, own), find)


@rule(Meaning.PRESERVED, ExpectedMask.OWN, Form.READ)
def spelling(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """Each misspelling put right, and each word in its other English spelling."""
    forms = context.lexicon.forms
    pairs = [*forms.released, *forms.british, *((b, a) for a, b in forms.british)]
    edits = [_occurrences(prompt.text, old, new) for old, new in pairs]
    found = [edited(prompt, several) for several in edits if several]
    fitting = [v for v in found if context.reader.says_the_same(v.text, prompt)]
    yield from fitting
    if not fitting:
        yield NotApplicable("no word of the prompt has another spelling")


def _occurrences(text: str, old: str, new: str) -> list[Edit]:
    places = re.finditer(rf"\b{re.escape(old)}\b(?![-'])", text, re.IGNORECASE)
    return [Edit(m.start(), m.end(), m.group(), like(new, m.group())) for m in places]


@rule(Meaning.PRESERVED, ExpectedMask.OWN, Form.READ)
def article_number(prompt: Prompt, attribute: str | None, context: Context) -> Outcomes:
    """All of a prompt's slips of article and number repaired at once."""
    text = prompt.text
    for edit in sorted(_slips(prompt, context), key=lambda e: -e.start):
        text = text[: edit.start] + edit.new + text[edit.end :]
    for wrong, right in context.lexicon.forms.repairs:
        text = re.sub(rf"\b{re.escape(wrong)}\b", right, text)
    text = begin_like(with_right_articles(text), prompt.text)
    if text == prompt.text:
        yield NotApplicable("articles and numbers of the prompt are right")
    elif context.reader.says_the_same(text, prompt):
        yield rewritten(prompt, text)
    else:
        yield NotApplicable("the repaired prompt cannot be read with the same meaning")


def _slips(prompt: Prompt, context: Context) -> Iterator[Edit]:
    """Slips at the values: their number, their articles, the verb after them."""
    yield from _miscounted(prompt, context)
    for span in prompt.spans:
        if span.attribute == "location" and prompt.text[: span.start].endswith(" in "):
            yield Edit(span.start, span.start, "", "the ")
        if span.attribute == "shape" and undress(span.value).before:
            plain = context.lexicon.plain(span.attribute, span.value)
            yield Edit(span.start, span.end, span.value, plain)
        yield from agreeing_verb(prompt, span, span.value, context)


def _miscounted(prompt: Prompt, context: Context) -> Iterator[Edit]:
    """The noun that disagrees with its number, and what is said of each of several."""
    noun, number = prompt.span("class"), prompt.span("number")
    if noun is None or number is None:
        return
    one = context.lexicon.canonical("number", "one")
    several = context.lexicon.canonical("number", number.value) != one
    right = (context.lexicon.plural if several else context.lexicon.singular)(noun.value)
    if right is None:
        return
    yield Edit(noun.start, noun.end, noun.value, right)
    said = prompt.span("description")
    if several and said is not None and prompt.text[: said.start].endswith(" which is "):
        yield Edit(said.start - len(" which is "), said.start, " which is ", ", each of which is ")
        if prompt.text[said.end :].startswith(" located in "):
            yield Edit(said.end, said.end, "", ",")

"""What a dataset card says about changing its sentences: phrases, places, paraphrases.

Conventions: a phrase is literal text around one slot, such as ``", located in
{location} of the image"``. It is looked for around the attribute's span; the first of
an attribute's phrases that stands there is taken. What is written keeps the capital at
the beginning of a sentence, and gives a word that leaves that place a small letter.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from harness.cards import AttributeRule, Grammar
from harness.errors import CardError
from harness.prompts.edits import apply_edits, begin_like, lowered
from harness.prompts.templates import Slot, Template, compile_template
from harness.records import Edit, Prompt

# A run of more phrases than this would have more than 24 orders.
LONGEST_RUN = 4


@dataclass(frozen=True)
class Rewriting:
    """A phrase around an attribute's value, and what is written for it.

    `instead` holds the texts before and after the value; without a second one the
    value is left out.
    """

    attribute: str
    before: str
    after: str
    instead: tuple[str, ...]

    def apply(self, prompt: Prompt) -> str | None:
        """The whole text rewritten, or None where the phrase does not stand in it."""
        edit = self.edit(prompt)
        return None if edit is None else begin_like(apply_edits(prompt.text, [edit]), prompt.text)

    def edit(self, prompt: Prompt, value: str | None = None) -> Edit | None:
        """The rewriting as an edit, of another value if one is given; None as in `apply`."""
        span = prompt.span(self.attribute)
        if span is None:
            return None
        start, end = span.start - len(self.before), span.end + len(self.after)
        old = prompt.text[max(start, 0) : end]
        if start < 0 or old != self.before + span.value + self.after:
            return None
        value = span.value if value is None else value
        written = lowered(value) if span.start == 0 and self.instead[0] else value
        return Edit(start, end, old, written.join(self.instead))


def compile_rewritings(
    rules: Mapping[str, Mapping[str, str]], attributes: Mapping[str, AttributeRule], *, where: str
) -> dict[str, tuple[Rewriting, ...]]:
    """The rewritings of each attribute; refuses a phrase that does not hold its slot once."""
    return {
        name: tuple(
            _rewriting(name, phrase, instead, attributes, f"{where}.{name}")
            for phrase, instead in phrases.items()
        )
        for name, phrases in rules.items()
    }


def _rewriting(
    name: str, phrase: str, instead: str, attributes: Mapping[str, AttributeRule], where: str
) -> Rewriting:
    sides = _sides(compile_template(phrase, attributes, where=where), name)
    written = _sides(compile_template(instead, attributes, where=where), name)
    if sides is None or len(sides) != 2 or written is None:
        raise CardError(
            f"{where}: found {phrase!r} -> {instead!r}. The phrase holds the slot {{{name}}} once, "
            "what is written for it holds it once or not at all. Correct the two texts."
        )
    return Rewriting(name, sides[0], sides[1], written)


def _sides(template: Template, name: str) -> tuple[str, ...] | None:
    """The literal texts around the slot `name`; None where there is another slot."""
    slots = [p for p in template.pieces if isinstance(p, Slot)]
    if any(slot.attribute != name for slot in slots):
        return None
    texts = [""]
    for piece in template.pieces:
        if isinstance(piece, Slot):
            texts.append("")
        else:
            texts[-1] += piece
    return tuple(texts)


def arrangements(source: str, movable: Sequence[Sequence[str]]) -> Iterator[str]:
    """The source of a template with its movable phrases in every other order.

    Example:
        >>> list(arrangements("one {size} {color} {class}", [["{color} ", "{size} "]]))
        ['one {color} {size} {class}']
    """
    for group in movable:
        found = sorted((source.index(p), p) for p in group if source.count(p) == 1)
        for run in _runs(found):
            start = run[0][0]
            phrases = [phrase for _, phrase in run]
            end = start + sum(map(len, phrases))
            for order in permutations(phrases):
                if list(order) != phrases:
                    yield source[:start] + "".join(order) + source[end:]


def _runs(found: Sequence[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Phrases that follow each other without anything between, at least two of them."""
    run: list[tuple[int, str]] = []
    for start, phrase in found:
        if run and start != run[-1][0] + len(run[-1][1]):
            if len(run) > 1:
                yield run
            run = []
        run = [*run, (start, phrase)][:LONGEST_RUN]
    if len(run) > 1:
        yield run


def write_as(template: Template, prompt: Prompt, values: Mapping[str, str]) -> str | None:
    """What a prompt says, as another template writes it with these values.

    None where the template does not take exactly the prompt's attributes or does not admit its
    values. The prompt's text decides how the new one begins.
    """
    own = prompt.values
    slots = [piece for piece in template.pieces if isinstance(piece, Slot)]
    if {slot.attribute for slot in slots} != own.keys():
        return None
    if not all(slot.admits(own[slot.attribute]) for slot in slots):
        return None
    first = prompt.spans[0].attribute if prompt.spans and prompt.spans[0].start == 0 else None
    text = ""
    for piece in template.pieces:
        word = piece if isinstance(piece, str) else values[piece.attribute]
        # The first word of the original has a capital that it may not keep elsewhere.
        moved = isinstance(piece, Slot) and piece.attribute == first and not text.endswith(". ")
        text += lowered(word) if moved else word
    return begin_like(text, prompt.text)


def compile_paraphrases(
    card: Grammar, *, where: str
) -> tuple[dict[str, tuple[Template, ...]], dict[tuple[str, int], tuple[Template, ...]]]:
    """The declared paraphrases per rung, and other orders per rung and template."""
    said: dict[str, tuple[Template, ...]] = {
        rung: tuple(
            compile_template(source, card.attributes, where=f"{where}.paraphrases.{rung}[{number}]")
            for number, source in enumerate(sources)
        )
        for rung, sources in card.paraphrases.items()
    }
    ordered: dict[tuple[str, int], tuple[Template, ...]] = {
        (rung, number): tuple(
            compile_template(other, card.attributes, where=f"{where}.movable")
            for other in arrangements(source, card.movable)
        )
        for rung, sources in card.prompts.items()
        for number, source in enumerate(sources)
    }
    return said, ordered

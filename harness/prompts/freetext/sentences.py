"""What may be done to a sentence of free text: its skeleton, other orders, drops, denials.

Conventions: a skeleton is the sentence with slots for its spans. Phrases are found by what
stands around a value: a modifier is dropped where a noun follows it, a place with its
preposition; where neither is sure, nothing is offered and the perturbation says so.
"""

import re
from collections.abc import Iterator, Mapping

from harness.cards import AttributeRule
from harness.prompts.dressing import article_before, article_of
from harness.prompts.freetext.terms import Vocabulary
from harness.prompts.phrases import Rewriting, arrangements
from harness.prompts.templates import Piece, Slot, Template, compile_template
from harness.records import Prompt, Span

_MOVABLE = [["{size} ", "{color} ", "{shape} ", "{tumor_type} "]]
_MODIFIERS = {"size", "color", "shape", "tumor_type", "laterality", "location", "side", "view"}
_DENIABLE = _MODIFIERS - {"side", "location", "laterality"}
_DROPPED = _MODIFIERS | {"number", "age", "quality"}

# A noun follows, if perhaps after other modifiers.
_NOUN_FOLLOWS = re.compile(
    r"(?P<joined>(?:-\w+)*) (?!(?:and|or|but|in|on|at|of|to|with|from|by|is|are|was|were|which|that"
    r"|than|as|where|near|within|inside)\b)\w"
)
# Of a predicate ("is small and round") or a list nothing can be left out alone.
_NOT_ALONE = re.compile(
    r"(?:^|\b)(?:is|are|was|were|be|been|appears?|looks?|seems?|and|or|but|very|not|of) $|, $",
    re.IGNORECASE,
)
_PLACED = re.compile(
    r"(?P<comma>,?) (?P<verb>(?:which (?:is|are) |that (?:is|are) )?"
    r"(?:located |found |situated |seen |lying |visible )?)"
    r"(?P<preposition>in|at|on|near|towards?) (?:the )?$"
)
_PLACE_ENDS = re.compile(
    r"(?:[- ](?:side|part|corner|half|third|region|area|quadrant|portion|edge|border|hand side))?"
    r"(?: (?:of|in|on) (?:the |this |an? )?(?:image|picture|frame|photo|scan|slice|screen|figure))?"
    r"(?=$|[.,;!?])"
)

_VIEW_ENDS = re.compile(r"(?:-\w+)* (?:view|projection|plane|section)\b")
_SUBJECT = re.compile(r"(?:(?:an?|the) )?(?:-\w+|[ ,])*", re.IGNORECASE)


def skeleton(prompt: Prompt, vocabulary: Vocabulary) -> Template:
    """The sentence as a template: its values may be exchanged for other words of the lexicon.

    Example:
        >>> from harness.prompts.freetext.terms import vocabulary
        >>> skeleton(Prompt("a small cyst", "p6", spans=(Span("size", 2, 7, "small"),)),
        ...          vocabulary({})).source
        'a {size} cyst'
    """
    pieces: list[Piece] = []
    source, place = "", 0
    for span in prompt.spans:
        if span.start > place:
            pieces.append(prompt.text[place : span.start])
        source += f"{_escaped(prompt.text[place : span.start])}{{{span.attribute}}}"
        pieces.append(_slot(span, vocabulary))
        place = span.end
    if place < len(prompt.text):
        pieces.append(prompt.text[place:])
    return Template(source + _escaped(prompt.text[place:]), tuple(pieces))


def _slot(span: Span, vocabulary: Vocabulary) -> Slot:
    """Its own value may be written with capitals, which no word of the lexicon has."""
    words = vocabulary.values[span.attribute]
    separator = ", " if span.attribute in vocabulary.lists else None
    slot = Slot(span.attribute, words, separator)
    return (
        slot if slot.admits(span.value) else Slot(span.attribute, (span.value, *words), separator)
    )


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def orders(own: Template, rules: Mapping[str, AttributeRule]) -> Iterator[Template]:
    """The skeleton with its adjectives in every other order."""
    slots = {piece.attribute: piece for piece in own.pieces if isinstance(piece, Slot)}
    for source in arrangements(own.source, _MOVABLE):
        made = compile_template(source, rules, where="free text")
        yield Template(
            source, tuple(slots[p.attribute] if isinstance(p, Slot) else p for p in made.pieces)
        )


def is_subject(prompt: Prompt, noun: Span) -> bool:
    """Whether a sentence begins with a noun and what modifies it, so that "no" denies the noun."""
    rest = prompt.text[: noun.start]
    for span in sorted(prompt.spans, key=lambda s: -s.start):
        if span.start < noun.start:
            rest = rest[: span.start] + rest[span.end :]
    return _SUBJECT.fullmatch(rest) is not None


def drops(prompt: Prompt, attribute: str) -> tuple[Rewriting, ...]:
    """The phrase that goes with an attribute, if it can be left out."""
    span = prompt.span(attribute)
    if span is None or attribute not in _DROPPED:
        return ()
    place = _phrase(prompt, span)
    if place is not None:
        return (Rewriting(attribute, *place, instead=("",)),)
    around = _modifier(prompt, span)
    if around is None:
        return ()
    article, joined = around
    rest = prompt.text[span.end + len(joined) + 1 :]
    new = article[:1] + article_of(rest)[1:] if article else ""
    return (Rewriting(attribute, article, f"{joined} ", (new,)),)


def negations(prompt: Prompt, attribute: str) -> tuple[Rewriting, ...]:
    """The phrase that denies an attribute's value: "non-white", "not in the left lung"."""
    span = prompt.span(attribute)
    if span is None:
        return ()
    if attribute in {"location", "side"}:
        return _not_there(prompt, span)
    around = _modifier(prompt, span) if attribute in _DENIABLE else None
    if around is None:
        return ()
    article = around[0]
    return (
        Rewriting(attribute, article, "", ((article[:1] + " " if article else "") + "non-", "")),
    )


def _not_there(prompt: Prompt, span: Span) -> tuple[Rewriting, ...]:
    placed = _PLACED.search(prompt.text[: span.start])
    if placed is None:
        return ()
    before, at = placed.group(), placed.start("preposition") - placed.start()
    if placed["verb"].endswith(("located ", "found ", "situated ", "seen ", "lying ", "visible ")):
        at -= len(placed["verb"].split()[-1]) + 1
    return (Rewriting(span.attribute, before, "", (f"{before[:at]}not {before[at:]}", "")),)


def _phrase(prompt: Prompt, span: Span) -> tuple[str, str] | None:
    """What goes before and after a place or view that is a phrase of its own."""
    if span.attribute not in {"location", "view"}:
        return None
    placed = _PLACED.search(prompt.text[: span.start])
    ends = (_PLACE_ENDS if span.attribute == "location" else _VIEW_ENDS).match(
        prompt.text[span.end :]
    )
    return None if placed is None or ends is None else (placed.group(), ends.group())


def _modifier(prompt: Prompt, span: Span) -> tuple[str, str] | None:
    """The article before and what is joined after a value that stands before its noun."""
    before = prompt.text[: span.start]
    noun = _NOUN_FOLLOWS.match(prompt.text[span.end :])
    if noun is None or _NOT_ALONE.search(before):
        return None
    return article_before(prompt.text, span.start), noun["joined"]

"""Finds the values of attributes in free text: the longest words, never inside another word.

Conventions: offsets count code points. Where two attributes know the same word, what
stands around it decides ("left" before a noun is a side, else a place); where nothing
does, the order of `ATTRIBUTES`. The first mention of an attribute is its span; others are
counted. Work grows with the length of a text times the words that begin alike.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.prompts.entries import SEPARATOR
from harness.prompts.freetext.terms import ATTRIBUTES, Vocabulary, numerals
from harness.records import Span

_WORD = re.compile(r"\w+")
# A hyphen joins words; before these it ends the value: "oval-shaped", "two-chamber".
_ENDINGS = re.compile(r"-(?:shaped?|colou?red|sized|sided|chamber|years?)\b")
_YEARS = re.compile(r"[ -]?(?:years?(?:[ -]olds?\b| of age\b)|y/?o\b)")
_AGED = re.compile(r"\bage[ds]?(?: of)? $")
_CHAMBER = re.compile(r"[ -]chambers?\b")
_SHAPED = re.compile(r"[ -]shaped?\b")
_QUALITY = re.compile(r" (?:image |picture )?quality\b")
_VIEW = re.compile(
    r"(?:[ -]\w+){0,2}[ -](?:views?|projections?|planes?|radiographs?|x-?rays?|images?|scans?"
    r"|sections?|slices?|films?|ct|mri?)\b"
)
# A number that counts nothing: a measurement, a label, a pronoun.
_MEASURED = re.compile(
    r"[.,:/]\d| ?[%x]"
    r"| ?(?:mm|cm|ml|px|pixels?|percent|degrees?|weeks?|months?|days?|hours?|years?)\b"
)
_LABEL = re.compile(
    r"(?:\d[.,:/x]|#"
    r"|\b(?:type|grade|stage|segment|level|figure|case|patient|no\.|number|bi-rads) ?)$"
)
_PRONOUN = re.compile(r"\b(?:the|this|that|each|every|any|no|which|another|other|either) $")
# After "left" these go on to say where, and name nothing that has a left side.
_PLACE_GOES_ON = re.compile(
    r"\s*(?:$|[^\w\s-]|\s(?:of|side|part|corner|half|third|region|area|quadrant|portion|edge"
    r"|border|margin|hand|and|or|to|in|on|at|with|is|are|was|were|than|from|near|by|above|below"
    r"|which|that|within|inside|next|behind|where|a|an|the|it|there)\b)"
)

_OF_A_THING = re.compile(
    r" of (?!(?:the|this|that|its|an?|image|picture|frame|photo|view|scan|slice|screen)\b)"
)
_LIES = re.compile(r"(?:\b(?:in|at|on|near|to|towards?|from|the)|,) $")


class _Around(NamedTuple):
    """What stands before and after a word, lower case."""

    before: str
    after: str


@dataclass(frozen=True)
class Found:
    """The values that a text names: the first of each attribute, and further mentions."""

    spans: tuple[Span, ...]
    further: tuple[Span, ...] = ()


class _Phrase(NamedTuple):
    words: tuple[str, ...]
    gaps: tuple[str, ...]
    text: str
    attribute: str


@dataclass(frozen=True)
class SpanFinder:
    """Finds attribute values in the free text of one dataset."""

    vocabulary: Vocabulary
    _by_word: Mapping[str, Sequence[_Phrase]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Order the phrases by their first word, the longest first."""
        found: dict[str, list[_Phrase]] = {}
        for attribute in ATTRIBUTES:
            for text in self.vocabulary.values.get(attribute, ()):
                words = tuple(_WORD.findall(text))
                gaps = tuple(_WORD.split(text)[1:-1])
                found.setdefault(words[0], []).append(_Phrase(words, gaps, text, attribute))
        for phrases in found.values():
            phrases.sort(key=lambda p: -len(p.text))
        object.__setattr__(self, "_by_word", found)

    def find(self, text: str) -> Found:
        """The values in a text.

        Example:
            >>> from harness.prompts.freetext.terms import vocabulary
            >>> found = SpanFinder(vocabulary({})).find("Two small nodules in the left lung")
            >>> {span.attribute: span.value for span in found.spans}
            {'number': 'Two', 'size': 'small', 'class': 'nodules', 'side': 'left'}
        """
        first: dict[str, Span] = {}
        further = []
        for span in self._joined(list(self._mentions(text)), text):
            if first.setdefault(span.attribute, span) is not span:
                further.append(span)
        return Found(tuple(first.values()), tuple(further))

    def _mentions(self, text: str) -> Iterator[Span]:
        plain = _lowered(text)
        words = list(_WORD.finditer(plain))
        place = 0
        while place < len(words):
            found = self._longest(plain, words, place)
            if found is None:
                place += 1
                continue
            phrase, last = found
            start, end = words[place].start(), words[last].end()
            yield Span(phrase.attribute, start, end, text[start:end])
            place = last + 1

    def _longest(
        self, plain: str, words: Sequence[re.Match[str]], place: int
    ) -> tuple[_Phrase, int] | None:
        """The longest phrase that begins at a word, and the place of its last word."""
        start = words[place].start()
        if _is_joined_before(plain, start):
            return None
        for phrase in self._by_word.get(words[place].group(), ()):
            last = place + len(phrase.words) - 1
            if not _stands(phrase, plain, words, place):
                continue
            around = _Around(plain[:start], plain[words[last].end() :])
            if _is_joined_after(around.after):
                continue
            if self._is_meant(phrase, around):
                return phrase, last
        return None

    def _is_meant(self, phrase: _Phrase, around: _Around) -> bool:
        if phrase.attribute == "shape" and phrase.text in self.vocabulary.things:
            return _SHAPED.match(around.after) is not None
        decide = _DECIDE.get(phrase.attribute)
        return decide is None or decide(phrase.text, around)

    def _joined(self, mentions: Sequence[Span], text: str) -> Iterator[Span]:
        """Values of a comma list are one value: "top left, center"."""
        open_span: Span | None = None
        for span in mentions:
            if open_span is not None:
                if self._goes_on(open_span, span, text):
                    value = text[open_span.start : span.end]
                    open_span = Span(span.attribute, open_span.start, span.end, value)
                    continue
                if not self._is_compound(open_span, span, text):
                    yield open_span
            open_span = span
        if open_span is not None:
            yield open_span

    def _is_compound(self, one: Span, other: Span, text: str) -> bool:
        """Of two nouns the second is meant: "kidney stone", "heart polyp"."""
        nouns = one.attribute == other.attribute == "class"
        return nouns and text[one.end : other.start] == " "

    def _goes_on(self, one: Span, other: Span, text: str) -> bool:
        is_list = one.attribute == other.attribute and one.attribute in self.vocabulary.lists
        return is_list and text[one.end : other.start] == SEPARATOR


def _lowered(text: str) -> str:
    """Lower case, of the same length: one capital has two small letters."""
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _stands(phrase: _Phrase, plain: str, words: Sequence[re.Match[str]], place: int) -> bool:
    if place + len(phrase.words) > len(words):
        return False
    for number, word in enumerate(phrase.words):
        if words[place + number].group() != word:
            return False
        if number:
            gap = plain[words[place + number - 1].end() : words[place + number].start()]
            due = phrase.gaps[number - 1]
            if gap != due and not (due == " " and gap.isspace()):
                return False
    return True


def _is_joined_before(plain: str, start: int) -> bool:
    """Whether a hyphen, apostrophe or decimal point ties a word to the one before it."""
    return start > 1 and plain[start - 1] in "-'’." and plain[start - 2].isalnum()


def _is_joined_after(after: str) -> bool:
    is_tied = after[:1] in {"-", "'", "’"} and after[1:2].isalnum()
    return is_tied and not _ENDINGS.match(after)


def _is_age(word: str, around: _Around) -> bool:
    if word not in numerals():
        return True
    return bool(_YEARS.match(around.after) or _AGED.search(around.before))


def _is_view(word: str, around: _Around) -> bool:
    if word in numerals():
        return _CHAMBER.match(around.after) is not None
    return _VIEW.match(around.after) is not None


def _is_number(word: str, around: _Around) -> bool:
    if _is_age(word, around) and word in numerals():
        return False
    if _CHAMBER.match(around.after) or _MEASURED.match(around.after):
        return False
    if _LABEL.search(around.before):
        return False
    return not (word in {"one", "1"} and _PRONOUN.search(around.before))


def _is_place(word: str, around: _Around) -> bool:
    """Not so "middle" in "a middle of donut polyp": it is of a thing, and nothing lies there."""
    if _OF_A_THING.match(around.after) and not _LIES.search(around.before):
        return False
    return word not in {"left", "right"} or _PLACE_GOES_ON.match(around.after) is not None


_DECIDE: Mapping[str, Callable[[str, _Around], bool]] = {
    "age": _is_age,
    "view": _is_view,
    "number": _is_number,
    "location": _is_place,
    "quality": lambda word, around: _QUALITY.match(around.after) is not None,
    "size": lambda word, around: _QUALITY.match(around.after) is None,
}

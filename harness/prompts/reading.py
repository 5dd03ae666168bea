"""Reads what a changed prompt says, whatever it looks like.

Conventions: texts are compared without case, articles, final marks, quotes and the kind of blank;
commas of the sentence may be missing or be another mark. The rung's templates and paraphrases are
tried with their movable phrases in any order; values may be synonyms, plurals or other spellings.
What is read is the canonical meaning of every attribute. Texts are variants of parsed prompts, so
their length is limited; patterns hold at most two free slots and cannot explode.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from harness.prompts.grammar import PromptGrammar
from harness.prompts.lexicon import Lexicon, corrected, plainly
from harness.prompts.phrases import arrangements
from harness.prompts.templates import Slot, Template, compile_template
from harness.records import Prompt

Reading = Mapping[str, frozenset[str]]

_PIECES = re.compile(r"\w+|\s+|[^\w\s]")
_MARKS = str.maketrans("", "", "\"'“”‘’")
_BLANK_BEFORE_MARK = re.compile(r"\s+([,;.!?])")
_ARTICLES = frozenset(("a", "an", "the"))
# "polyps, each of which is a bump, located in ...": the plural of "which is".
_EACH = re.compile(r", each of which (.*?)(?:,(?= located in )|$)", re.DOTALL)
_END = r"[\s.!?]*"
_ANY_WORD = r"[\w-]+"
# Ways to say the values of one slot; more of them are read as any word.
MANY = 100


@dataclass(frozen=True)
class Reader:
    """Reads variants of one dataset's prompts."""

    grammar: PromptGrammar
    lexicon: Lexicon
    _patterns: dict[str, re.Pattern[str]] = field(default_factory=dict, compare=False, repr=False)
    _others: dict[tuple[str, str], tuple[Template, ...]] = field(
        default_factory=dict, compare=False, repr=False
    )
    _originals: dict[tuple[str, str], str | None] = field(
        default_factory=dict, compare=False, repr=False
    )
    _slots: dict[Slot, str] = field(default_factory=dict, compare=False, repr=False)

    def meaning(self, prompt: Prompt) -> Reading:
        """What an original says."""
        return {s.attribute: self.lexicon.canonical(s.attribute, s.value) for s in prompt.spans}

    def exclude(self, one: Prompt, other: Prompt) -> bool:
        """Whether nothing can be what both originals say: some attribute's values exclude it."""
        theirs = other.values
        return any(
            self.lexicon.excludes(span.attribute, span.value, theirs[span.attribute])
            for span in one.spans
            if span.attribute in theirs
        )

    def readings(
        self, text: str, prompt: Prompt, *, likely: Template | None = None
    ) -> Iterator[Reading]:
        """Every way in which a text can be read as a sentence of the original's rung."""
        plain = _comparable(text)
        for template in self._candidates(prompt) if likely is None else self._from(likely, prompt):
            found = self._pattern(template).fullmatch(plain)
            if found is not None:
                yield {
                    name: self.lexicon.canonical(name, value)
                    for name, value in found.groupdict().items()
                }

    def says_the_same(self, text: str, prompt: Prompt, *, likely: Template | None = None) -> bool:
        """Whether a text can be read with the meaning of the original, no more and no less.

        `likely` is the template to try first, where it is known.

        Example:
            >>> from harness.prompts.grammar import load_grammar
            >>> from harness.prompts.lexicon import load_lexicon
            >>> grammar = load_grammar("kvasir_polyp")
            >>> reader = Reader(grammar, load_lexicon())
            >>> reader.says_the_same("A WHITE circular polyp.", grammar.parse("white round polyp"))
            True
        """
        # Most variants of the surface are the original once case and blanks are gone.
        if likely is None and _comparable(text) == self._original(prompt):
            return True
        meaning = self.meaning(prompt)
        return any(r == meaning for r in self.readings(text, prompt, likely=likely))

    def says(self, text: str, prompt: Prompt, meaning: Reading) -> bool:
        """Whether a text can be read as a sentence of the original's rung with this meaning."""
        return any(reading == meaning for reading in self.readings(text, prompt))

    def _original(self, prompt: Prompt) -> str | None:
        """The original as it is compared; None where it cannot be read as itself."""
        key = (prompt.prompt_type, prompt.text)
        if key not in self._originals:
            readable = self.says(prompt.text, prompt, self.meaning(prompt))
            self._originals[key] = _comparable(prompt.text) if readable else None
        return self._originals[key]

    def _from(self, likely: Template, prompt: Prompt) -> Iterator[Template]:
        yield likely
        yield from self._candidates(prompt)

    def _candidates(self, prompt: Prompt) -> Iterator[Template]:
        """The template of the original first: most variants keep it."""
        own = self.grammar.template_of(prompt)
        key = (prompt.prompt_type, own.source)
        yield own
        if key not in self._others:
            self._others[key] = tuple(self._listed(prompt))
        yield from self._others[key]

    def _listed(self, prompt: Prompt) -> Iterator[Template]:
        rung = prompt.prompt_type
        yield from self.grammar.orders_of(prompt)
        yield from self.grammar.paraphrases.get(rung, ())
        rules, movable = self.grammar.card.attributes, self.grammar.card.movable
        for template in self.grammar.paraphrases.get(rung, ()):
            for source in arrangements(template.source, movable):
                yield compile_template(source, rules, where=f"paraphrases.{rung}")

    def _pattern(self, template: Template) -> re.Pattern[str]:
        found = self._patterns.get(template.source)
        if found is None:
            found = self._patterns[template.source] = re.compile(self._source(template))
        return found

    def _source(self, template: Template) -> str:
        parts = []
        for number, piece in enumerate(template.pieces):
            if isinstance(piece, Slot):
                parts.append(f"(?P<{piece.attribute}>{self._value(piece)})")
            else:
                last = number == len(template.pieces) - 1
                parts.append(_literal(piece.rstrip(". ") if last else piece))
        return "".join(parts) + _END

    def _value(self, slot: Slot) -> str:
        if slot not in self._slots:  # the templates of a rung share their slots
            self._slots[slot] = self._source_of(slot)
        return self._slots[slot]

    def _source_of(self, slot: Slot) -> str:
        if not slot.values:
            return r"\S(?:.*?\S)?"
        words: dict[str, None] = {}
        for value in slot.values:
            ways = (value, *self.lexicon.synonyms(slot.attribute, value))
            for way in ways:
                forms = (way, self.lexicon.plural(way), self.lexicon.singular(way))
                words |= dict.fromkeys(_comparable(form) for form in forms if form)
        longest = sorted(words, key=lambda word: (-len(word), word))
        if len(longest) > MANY:
            # Ages: one pattern for all single words is faster, and others mean something else.
            longest = [*(word for word in longest if " " in word), _ANY_WORD]
        one = "(?:" + "|".join(w if w == _ANY_WORD else re.escape(w) for w in longest) + ")"
        return one if slot.separator is None else rf"{one}(?:, ?{one})*"


def _comparable(text: str) -> str:
    """Lower case, without quotes, articles and blanks that carry no meaning."""
    words = corrected(" ".join(text.translate(_MARKS).lower().split())).split()
    plain = " ".join([word for word in words if word not in _ARTICLES])
    if ", each of which " in plain:
        plain = _EACH.sub(r" which \1", plain)
    return _BLANK_BEFORE_MARK.sub(r"\1", plain) if _has_loose_mark(plain) else plain


def _has_loose_mark(text: str) -> bool:
    return " ," in text or " ;" in text or " ." in text or " !" in text or " ?" in text


def _literal(text: str) -> str:
    """A pattern of the literal words of a template, tolerant about marks between them."""
    parts = []
    for piece in _PIECES.findall(plainly(text)):
        if piece.isspace():
            parts.append(" ")
        elif piece in ",;":
            parts.append("[,;]?(?: -)?")
        elif piece == ".":
            parts.append(r"[.!?]*")
        elif piece in {"are", "is"}:
            parts.append("(?:are|is)")
        else:
            parts.append(re.escape(piece))
    return "".join(parts)

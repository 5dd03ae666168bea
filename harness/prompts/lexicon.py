"""What the values of attributes mean: opposites, synonyms, spellings.

Conventions: values are texts as they stand in prompts; capitals are kept. ``None`` or
an empty tuple means "has none", which callers count as not applicable. The curated
entries come from files that ship (`entries`); WordNet is asked only for single words
without an entry. Two texts mean the same when their canonical sets are equal; they
exclude each other when nothing can be both.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Protocol

from harness.errors import LexiconError, choose
from harness.prompts.dressing import Dressed, undress, without_articles
from harness.prompts.entries import (
    DATA,
    FILES,
    SEPARATOR,
    Entries,
    Forms,
    Said,
    Strangers,
    read_entries,
    read_forms,
    read_lines,
    read_strangers,
)
from harness.prompts.wordnet import VERSION, load_wordnet

LEXICONS = ("curated", f"curated+wordnet@{VERSION}")
NOTHING = Entries()


class Thesaurus(Protocol):
    """A source that is asked for single words without a curated entry."""

    def antonym(self, word: str) -> str | None:
        """The opposite of a lower-case word, or None."""

    def synonyms(self, word: str) -> tuple[str, ...]:
        """Other lower-case words for the same, the nearest first."""


@dataclass(frozen=True)
class Lexicon:
    """Opposites, synonyms and spellings of attribute values.

    `source` is the name it was loaded by; `sha256` changes with any of the curated
    files and with the copy of WordNet.
    """

    source: str
    sha256: str
    entries: Mapping[str, Entries] = field(repr=False)
    forms: Forms = field(repr=False)
    strangers: Strangers = field(repr=False)
    sentences: tuple[str, ...] = field(repr=False)
    real_words: frozenset[str] = field(repr=False)
    thesaurus: Thesaurus | None = field(default=None, repr=False)
    _canonical: dict[tuple[str, str], frozenset[str]] = field(
        default_factory=dict, compare=False, repr=False
    )
    _excludes: dict[tuple[str, str, str], bool] = field(
        default_factory=dict, compare=False, repr=False
    )

    def opposite(self, attribute: str, value: str) -> str | None:
        """The semantic opposite of a value, or None.

        Example:
            >>> curated = load_lexicon("curated")
            >>> curated.opposite("location", "top left, bottom left")
            'bottom right, top right'
            >>> curated.opposite("shape", "it is a circle")
            'it is a square'
        """
        entries, plain = self.entries.get(attribute, NOTHING), value.lower()
        found = _curated_opposite(entries, plain)
        if found is None and self.thesaurus is not None and plain.isalpha():
            found = None if plain in entries.without else self.thesaurus.antonym(plain)
        if found is None or not self.excludes(attribute, found, value):
            return None
        return like(found, value)

    def excludes(self, attribute: str, one: str, other: str) -> bool:
        """Whether nothing can be both: the two share no item, and no item is a kind of another.

        An item whose words are all in another's is shared ("left" and "top left"). What is
        denied excludes what it denies and its kinds.

        Example:
            >>> curated = load_lexicon("curated")
            >>> curated.excludes("size", "small, medium", "small")
            False
            >>> curated.excludes("location", "top left", "top right")
            True
        """
        key = (attribute, one, other)
        if key not in self._excludes:
            entries = self.entries.get(attribute, NOTHING)
            ours, theirs = self.canonical(attribute, one), self.canonical(attribute, other)
            self._excludes[key] = all(_exclude(entries, a, b) for a in ours for b in theirs)
        return self._excludes[key]

    def implies(self, attribute: str, narrow: str, broad: str) -> bool:
        """Whether whatever is the one is also the other: the same thing, or a kind of it.

        Example:
            >>> load_lexicon("curated").implies("class", "Edema", "Lung Opacity")
            True
        """
        entries = self.entries.get(attribute, NOTHING)
        ours, theirs = self.canonical(attribute, narrow), self.canonical(attribute, broad)
        return all(any(_is_kind(entries, a, b) for b in theirs) for a in ours)

    def is_adjective(self, attribute: str, value: str) -> bool:
        """Whether a value may stand away from its noun: "round white polyp", not so "kidney".

        Words that the lexicon does not know are taken for nouns where nouns occur.
        """
        entries, word = self.entries.get(attribute, NOTHING), value.lower()
        known = entries.adjectives | entries.aside
        return not entries.phrases or word in known or word.endswith("shaped")

    def synonyms(self, attribute: str, value: str, *, noun: bool = False) -> tuple[str, ...]:
        """Other ways to say a value: curated ones, or else those of the thesaurus.

        With `noun` only nouns, as in "circle-shaped".

        Example:
            >>> load_lexicon("curated").synonyms("location", "top left, center")
            ('upper left, middle',)
        """
        entries, plain = self.entries.get(attribute, NOTHING), value.lower()
        items = plain.split(SEPARATOR) if entries.lists else [plain]
        ways = [self._said(entries, item, noun) for item in items]
        # The n-th way of a list takes the n-th way of each item, over and over.
        lists = [
            SEPARATOR.join(
                way[n % len(way)] if way else item for item, way in zip(items, ways, strict=True)
            )
            for n in range(max(map(len, ways)))
        ]
        return tuple(dict.fromkeys(like(said, value) for said in lists))

    def canonical(self, attribute: str, value: str) -> frozenset[str]:
        """What a value means, so that other words for the same compare equal.

        Example:
            >>> curated = load_lexicon("curated")
            >>> curated.canonical("shape", "a circle") == curated.canonical("shape", "Round")
            True
        """
        found = self._canonical.get((attribute, value))
        if found is None:
            found = self._canonical[attribute, value] = self._mean(attribute, value)
        return found

    def plain(self, attribute: str, value: str) -> str:
        """A value without what it is dressed in.

        Example:
            >>> load_lexicon("curated").plain("shape", "it is a round shape")
            'round'
        """
        entries = self.entries.get(attribute, NOTHING)
        return undress(value).head if entries.phrases else value

    def plural(self, noun: str) -> str | None:
        """The plural of a noun, or None where it is not known."""
        found = self.forms.plurals.get(noun.lower())
        return None if found is None else like(found, noun)

    def singular(self, noun: str) -> str | None:
        """The singular of a plural, or None where it is not known."""
        found = self._singulars.get(noun.lower())
        return None if found is None else like(found, noun)

    def words(self) -> frozenset[str]:
        """Every single word that occurs in an entry, lower case."""
        texts: set[str] = {*self.forms.plurals, *self.forms.plurals.values()}
        for pair in [*self.forms.released, *self.forms.british]:
            texts |= {*pair}
        for entries in self.entries.values():
            texts |= {*entries.opposites, *entries.opposites.values(), *entries.without}
            texts |= {*entries.same, *entries.said}
            for said in entries.said.values():
                texts |= {*said.any, *said.noun, *said.adjective}
        return frozenset(word for text in texts for word in re.findall(r"[a-z]+", text))

    @cached_property
    def _singulars(self) -> Mapping[str, str]:
        """Of several words with the same plural the first."""
        return {many: one for one, many in reversed(self.forms.plurals.items())}

    def _mean(self, attribute: str, value: str) -> frozenset[str]:
        entries = self.entries.get(attribute, NOTHING)
        plain = plainly(value)
        items = plain.split(SEPARATOR) if entries.lists else [plain]
        heads = [undress(item).head if entries.phrases else item for item in items]
        return frozenset(self._head(entries, head) for head in heads)

    def _head(self, entries: Entries, word: str) -> str:
        one = _singulars().get(word, word)
        return entries.same.get(one, one)

    def _said(self, entries: Entries, item: str, noun: bool) -> tuple[str, ...]:
        known = entries.said.get(corrected(item))
        dressed = undress(item)
        if known is None and entries.phrases:
            known = entries.said.get(dressed.head)
        if known is not None and noun:
            return known.noun
        if known is not None:
            return _dressed_ways(dressed, known) if entries.phrases else known.any
        if self.thesaurus is None or not item.isalpha():
            return ()
        return self.thesaurus.synonyms(item)


def is_denial(value: str) -> bool:
    """Whether a value says that there is none: "no polyp"."""
    return value[:3].lower() == "no "


def _exclude(entries: Entries, one: str, other: str) -> bool:
    if _is_kind(entries, one, other) or _is_kind(entries, other, one):
        return False
    if is_denial(one) or is_denial(other):
        denied, said = (one[3:], other) if is_denial(one) else (other[3:], one)
        return not is_denial(said) and (denied == "finding" or _is_kind(entries, said, denied))
    if {one, other} & entries.aside:
        return one in _opposites_of(entries, other) or other in _opposites_of(entries, one)
    ours, theirs = (
        {entries.same.get(word, word) for word in re.findall(r"[\w-]+", text)}
        for text in (one, other)
    )
    return not (ours <= theirs or theirs <= ours)


def _opposites_of(entries: Entries, head: str) -> set[str]:
    """Canonical opposites of a head; several words with opposites of their own may share one."""
    words = [word for word in entries.opposites if entries.same.get(word, word) == head]
    return {entries.same.get(entries.opposites[w], entries.opposites[w]) for w in words}


def _is_kind(entries: Entries, narrow: str, broad: str) -> bool:
    return narrow == broad or narrow in entries.within.get(broad, frozenset())


def _curated_opposite(entries: Entries, value: str) -> str | None:
    found = entries.opposites.get(entries.key(value))
    if found is None and entries.lists == "items":
        items = value.split(SEPARATOR)
        return SEPARATOR.join(entries.opposites.get(item, item) for item in items)
    if found is None and entries.phrases:
        dressed = undress(value)
        opposite = entries.opposites.get(dressed.head)
        return None if opposite is None else dressed.with_head(opposite)
    return found


def _dressed_ways(dressed: Dressed, said: Said) -> tuple[str, ...]:
    """Other ways to say a value that may be dressed: nouns and adjectives where each can stand.

    A bare value stands before a noun ("circle polyp"), where an adjective is better.
    """
    clause = "it is " if dressed.before.startswith("it is ") else ""
    longer = [form for form in said.any if form not in {*said.noun, *said.adjective}]
    if dressed.after:
        heads = said.noun if dressed.after.endswith("shaped") else said.adjective
        return tuple(dressed.with_head(head) for head in heads) or tuple(longer)
    nouns = [dressed.with_head(noun) for noun in said.noun] if dressed.article else []
    return tuple([*nouns, *(clause + word for word in (*said.adjective, *longer))])


def like(value: str, model: str) -> str:
    """`value` with capitals where `model` has them: on the first word, or on every one.

    Example:
        >>> like("malignant", "Benign"), like("pleural fluid", "Pleural Effusion")
        ('Malignant', 'Pleural Fluid')
    """
    first = model[:1].isupper()
    words = re.findall(r"[^\W\d_]+", model)
    if first and len(words) > 1 and all(word[0].isupper() for word in words):
        return re.sub(r"(?<![\w'-])(?!of |the )\w", lambda found: found.group().upper(), value)
    return value[:1].upper() + value[1:] if first else value


@cache
def _spellings() -> tuple[re.Pattern[str], Mapping[str, str]]:
    forms = read_forms()
    right = dict(forms.released) | {british: american for american, british in forms.british}
    # Repairs of articles change nothing where articles are left out.
    right |= {a: b for a, b in forms.repairs if without_articles(a) != without_articles(b)}
    longest = sorted(right, key=lambda wrong: (-len(wrong), wrong))
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest))})\b"), right


@cache
def _singulars() -> Mapping[str, str]:
    """Plain plurals and their plain singulars."""
    return {plainly(many): plainly(one) for one, many in read_forms().plurals.items()}


def corrected(text: str) -> str:
    """A lower-case text with released slips repaired and American spellings."""
    pattern, right = _spellings()
    if not any(wrong in text for wrong in right):
        return text
    return pattern.sub(lambda found: right[found.group()], text)


def plainly(text: str) -> str:
    """A text as it is compared: lower case, corrected, without articles.

    Example:
        >>> plainly("Middle of the ear, in grey")
        'middle of ear, in gray'
    """
    return without_articles(corrected(text.lower()))


def load_lexicon(name: str = "curated") -> Lexicon:
    """Load a lexicon by its name.

    Args:
        name: ``curated``, or ``curated+wordnet@3.0`` to ask WordNet for what the
            curated entries do not know.

    Raises:
        LexiconError: The name is unknown, or WordNet is missing or of another version.
    """
    choose(name, LEXICONS, kind="lexicon", where="lexicon", error=LexiconError)
    wordnet = None if name == "curated" else load_wordnet()
    digest = hashlib.sha256(name.encode())
    for file in FILES:
        digest.update((DATA / file).read_bytes())
    if wordnet is not None:
        digest.update(wordnet.sha256.encode())
    entries, forms, strangers = _curated()
    return Lexicon(
        name,
        digest.hexdigest(),
        entries,
        forms,
        strangers,
        read_lines("irrelevant.txt"),
        frozenset(read_lines("real_words.txt")),
        wordnet,
    )


def _by_head(entries: Entries) -> dict[str, Any]:
    """What excludes what, by the canonical form of each word."""

    def head(word: str) -> str:
        return plainly(entries.same.get(word, word))

    within: dict[str, frozenset[str]] = {}
    for broad, narrow in entries.within.items():
        within[head(broad)] = within.get(head(broad), frozenset()) | {*map(head, narrow)}
    return {"within": within, "aside": frozenset(map(head, entries.aside))}


@cache
def _curated() -> tuple[Mapping[str, Entries], Forms, Strangers]:
    return prepared(read_entries()), read_forms(), read_strangers()


def prepared(entries: Mapping[str, Entries]) -> dict[str, Entries]:
    """Entries whose words are compared as `plainly` writes them."""
    return {
        name: replace(
            found,
            same={plainly(word): plainly(head) for word, head in found.same.items()},
            said={corrected(word): ways for word, ways in found.said.items()},
            **_by_head(found),
        )
        for name, found in entries.items()
    }

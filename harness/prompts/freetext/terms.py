"""The curated lexicon with further words, and what of it may stand in free text.

Conventions: words are lower case; a value is found by the longest of its words. Lexicons
with the further words have a hash of their own, so that plans without them keep theirs.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType

from harness.cards import AttributeRule, DatasetCard, Grammar, Strict
from harness.errors import LexiconError
from harness.files import read_yaml, validate
from harness.prompts.entries import (
    DATA,
    SEPARATOR,
    Entries,
    Opposites,
    Synonyms,
    compile_entries,
    number_words,
    read_forms,
    read_raw,
)
from harness.prompts.lexicon import Lexicon, prepared

# What is looked for in free text, in the order in which it is listed.
ATTRIBUTES = (
    *("laterality", "number", "size", "color", "location", "shape", "tumor_type", "class"),
    *("side", "view", "cycle", "age", "gender", "quality", "description"),
)
_FILE = "terms.yaml"
_MOST_DIGITS = 100  # what the lexicon knows in words
# What two attributes know is a value of the other one: "large" is a size.
_YIELDS_TO = {"shape": ("size", "location"), "tumor_type": ("shape",)}
# As in "four-chamber view": no other number is a view.
_CHAMBERS = ("two", "three", "four", "five", "2", "3", "4", "5")


class Terms(Strict):
    """Further words; see the header of ``terms.yaml``."""

    title: str
    alike: dict[str, str]
    shades: list[str]
    things: list[str]
    not_found: list[str]
    opposites: dict[str, Opposites]
    synonyms: dict[str, Synonyms]
    nouns: dict[str, str]


@dataclass(frozen=True)
class Vocabulary:
    """Which words of free text are values of which attributes."""

    values: Mapping[str, tuple[str, ...]]  # per attribute its words, lower case, the longest first
    things: frozenset[str]  # words for a shape only before "shaped"
    lists: frozenset[str]  # attributes whose values may be comma lists
    sha256: str  # hash of the file of further words


@cache
def read_terms() -> tuple[Terms, str]:
    """The file of further words, and its hash.

    Raises:
        LexiconError: The file breaks its schema.
    """
    path = DATA / _FILE
    terms = validate(read_yaml(path, error=LexiconError), Terms, error=LexiconError)
    return terms, hashlib.sha256(path.read_bytes()).hexdigest()


def new_attributes() -> frozenset[str]:
    """Attributes that the further words alone know: cards that have one need them."""
    terms, _ = read_terms()
    opposites, synonyms = read_raw()
    return frozenset({*terms.opposites, *terms.alike} - {*opposites, *synonyms})


def suit(lexicon: Lexicon, card: DatasetCard, *, freely: bool = False) -> Lexicon:
    """The lexicon that a dataset's prompts need: with further words for free text.

    Cards whose grammar keeps to the attributes of the curated files have those alone.

    `freely`: the prompts are others than those that the card is about.
    """
    if freely or needs_terms(card):
        return extend(lexicon, plurals=plurals_of(card))
    return lexicon


def needs_terms(card: DatasetCard) -> bool:
    """Whether a dataset's prompts are read with the further words."""
    return is_read_freely(card) or bool({*card.attributes} & new_attributes())


def is_read_freely(card: DatasetCard) -> bool:
    """Whether spans of a dataset's prompts, or of some of them, are found by the lexicon."""
    return card.grammar is None or card.grammar.otherwise == "lexicon"


def plurals_of(card: DatasetCard) -> dict[str, str]:
    """The targets that a card names, with their plurals: its own, or the regular ones.

    Example:
        >>> plurals_of(DatasetCard.model_construct(classes=["vocal fold", "cavity"], plural={}))
        {'vocal fold': 'vocal folds', 'cavity': 'cavities'}
    """
    return {
        name: card.plural.get(name, _regular_plural(name)) for name in card.classes
    } | card.plural


def _regular_plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2:-1] not in {*"aeiou"}:
        return f"{noun[:-1]}ies"
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")


def extend(lexicon: Lexicon, *, plurals: Mapping[str, str] = MappingProxyType({})) -> Lexicon:
    """The lexicon with the further words, and nouns of a card.

    Example:
        >>> from harness.prompts.lexicon import load_lexicon
        >>> extend(load_lexicon("curated")).opposite("location", "upper left")
        'lower right'
    """
    _, nouns, sha256 = _extended()
    known = {**nouns, **lexicon.forms.plurals}
    known |= {one.lower(): many.lower() for one, many in plurals.items()}
    forms = lexicon.forms.model_copy(update={"plurals": known})
    digest = hashlib.sha256((lexicon.sha256 + sha256).encode()).hexdigest()
    return replace(
        lexicon, sha256=digest, entries=_prepared(), forms=forms, _canonical={}, _excludes={}
    )


@cache
def _prepared() -> Mapping[str, Entries]:
    return prepared(_extended()[0])


@cache
def _extended() -> tuple[Mapping[str, Entries], Mapping[str, str], str]:
    terms, sha256 = read_terms()
    opposites, synonyms = read_raw()
    raw = {
        name: compile_entries(
            _joined(opposites.get(name), terms.opposites.get(name)),
            _said(name, synonyms.get(name), terms),
        )
        for name in sorted({*opposites, *synonyms, *terms.opposites, *terms.synonyms})
    }
    raw["color"] = _shaded(raw["color"], terms.shades)
    found = {name: _with_opposites_of_synonyms(entries) for name, entries in raw.items()}
    found |= {name: found[other] for name, other in terms.alike.items()}
    return found, terms.nouns, sha256


def _joined(one: Opposites | None, more: Opposites | None) -> Opposites:
    one, more = one or Opposites(), more or Opposites()
    towards = {k: [*one.towards.get(k, ()), *more.towards.get(k, ())] for k in _keys(one, more)}
    within = {k: one.within.get(k, []) + more.within.get(k, []) for k in one.within | more.within}
    return one.model_copy(
        update={
            "pairs": one.pairs + more.pairs,
            "towards": towards,
            "none": one.none + more.none,
            "within": within,
            "aside": one.aside + more.aside,
        }
    )


def _keys(one: Opposites, more: Opposites) -> list[str]:
    return list(one.towards | more.towards)


def _said(name: str, one: Synonyms | None, terms: Terms) -> Synonyms:
    one, more = one or Synonyms(), terms.synonyms.get(name) or Synonyms()
    plurals = [[a, b] for a, b in terms.nouns.items()] if name == "class" else []
    return one.model_copy(
        update={"say": one.say + more.say, "same": one.same + more.same + plurals}
    )


def _shaded(colors: Entries, shades: list[str]) -> Entries:
    """Every shade of every color, a kind of it; its opposite is that shade of the opposite."""
    opposites, within = dict(colors.opposites), dict(colors.within)
    without = set(colors.without)
    hues = {*opposites, *without} - {*colors.aside} - {*shades}
    for hue in sorted(hues):
        other = colors.opposites.get(hue)
        for shade in shades:
            if other is None:
                without.add(f"{shade} {hue}")
            else:
                opposites[f"{shade} {hue}"] = f"{shade} {other}"
        within[hue] = within.get(hue, frozenset()) | {f"{shade} {hue}" for shade in shades}
    return replace(colors, opposites=opposites, within=within, without=frozenset(without))


def _with_opposites_of_synonyms(entries: Entries) -> Entries:
    """A word without an opposite of its own has that of the word for the same."""
    opposites, words = dict(entries.opposites), number_words().values()
    digits = {word: str(n) for n, word in number_words().items()}
    for word, head in entries.same.items():
        heads = [w for w, h in entries.same.items() if h == head and w in entries.opposites]
        if word in opposites or word in entries.without or not heads:
            continue
        other = entries.opposites[head if head in heads else heads[0]]
        opposites[word] = digits[other] if word.isdigit() and other in words else other
    return replace(entries, opposites=opposites)


def vocabulary(classes: Mapping[str, str]) -> Vocabulary:
    """The words that are looked for in a dataset's free text.

    `classes` are what its card names as its targets, with their plurals.
    """
    terms, sha256 = read_terms()
    entries, _, _ = _extended()
    values: dict[str, tuple[str, ...]] = {}
    for name in ATTRIBUTES:
        words = {*_words(entries.get(name, Entries()))} - {*terms.not_found}
        words -= {word for other in _YIELDS_TO.get(name, ()) for word in values[other]}
        if name == "view":
            words -= {*numerals()} - {*_CHAMBERS}
        if name == "class":
            words |= {*terms.nouns, *terms.nouns.values()}
            words |= {form.lower() for pair in classes.items() for form in pair}
        values[name] = tuple(sorted({*_spelt(words)}, key=lambda w: (-len(w), w)))
    lists = frozenset(n for n in ATTRIBUTES if n in entries and entries[n].lists is not None)
    return Vocabulary(values, frozenset(terms.things), lists, sha256)


@cache
def numerals() -> frozenset[str]:
    """Numbers in words and digits."""
    words = number_words()
    return frozenset({*words.values(), *map(str, words)})


def rules(words: Vocabulary) -> Grammar:
    """The attributes of free text as those of a grammar without a sentence."""
    return Grammar(
        attributes={
            name: AttributeRule(
                values=list(values), separator=SEPARATOR if name in words.lists else None
            )
            for name, values in words.values.items()
        },
        prompts={},
    )


def _words(entries: Entries) -> Iterator[str]:
    """Single values with an entry; of lists their items, of forms ("oval-shaped") none."""
    for word in {*entries.opposites, *entries.opposites.values(), *entries.without, *entries.same}:
        if SEPARATOR in word or (word.isdigit() and int(word) > _MOST_DIGITS):
            continue
        if not word.endswith(("-shaped", "-colored", "-sided")):
            yield word


def _spelt(words: set[str]) -> Iterator[str]:
    """Each word, and how else it is spelt: British, or with a slip that was released."""
    forms = read_forms()
    pairs = [*forms.british, *((right, wrong) for wrong, right in forms.released)]
    for word in words:
        yield word
        for one, other in pairs:
            for old, new in ((one, other), (other, one)):
                if f" {old} " in f" {word} ":
                    yield f" {word} ".replace(f" {old} ", f" {new} ").strip()

"""The files of the curated lexicon, read and made ready to be looked up.

Conventions: each file's header explains its form. All entries are lower case; what is
looked up is the whole value or, where the entry says so, each item of its comma list.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

from harness.cards import Strict
from harness.errors import LexiconError
from harness.files import read_yaml, validate

File = TypeVar("File", bound=Strict)

SEPARATOR = ", "
DATA = Path(__file__).parent / "data"
# What the curated lexicon consists of; all of it enters its hash.
FILES = (
    *("opposites.yaml", "synonyms.yaml", "forms.yaml", "strangers.yaml", "irrelevant.txt"),
    "real_words.txt",
)

_ONES = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


class Opposites(Strict):
    """Opposites of one attribute's values; see the header of ``opposites.yaml``."""

    pairs: list[tuple[str, str]] = []
    towards: dict[str, list[str]] = {}
    none: list[str] = []
    within: dict[str, list[str]] = {}
    aside: list[str] = []
    lists: Literal["items", "whole"] | None = None
    phrases: bool = False


class Group(Strict):
    """Words for the same, by their part of speech."""

    noun: list[str] = []
    adjective: list[str] = []


class Synonyms(Strict):
    """Synonyms of one attribute's values; see the header of ``synonyms.yaml``."""

    say: list[list[str] | Group] = []
    same: list[list[str]] = []
    forms: dict[str, list[str]] = {}
    digits: bool = False


class Forms(Strict):
    """Plurals, spellings and repairs; see the header of ``forms.yaml``."""

    title: str
    plurals: dict[str, str]
    plural: list[str]
    released: list[tuple[str, str]]
    british: list[tuple[str, str]]
    repairs: list[tuple[str, str]]


class Strangers(Strict):
    """Nouns with their plurals; see the header of ``strangers.yaml``."""

    title: str
    classes: list[tuple[str, str]]
    things: list[tuple[str, str]]


class Near(Strict):
    """What is near classes that hold one of some words."""

    of: list[str]
    nouns: list[tuple[str, str]]


class Kin(Strict):
    """Near things and nonsense; see the header of ``kin.yaml``."""

    title: str
    near: list[Near]
    nonsense: list[tuple[str, str]]


class _OppositesFile(Strict):
    title: str
    attributes: dict[str, Opposites]


class _SynonymsFile(Strict):
    title: str
    attributes: dict[str, Synonyms]


@dataclass(frozen=True)
class Said:
    """How one value may be said otherwise."""

    any: tuple[str, ...] = ()
    noun: tuple[str, ...] = ()
    adjective: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entries:
    """What is known of one attribute, ready to be looked up."""

    opposites: Mapping[str, str] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    same: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, Said] = field(default_factory=dict)
    within: Mapping[str, frozenset[str]] = field(default_factory=dict)
    aside: frozenset[str] = frozenset()
    adjectives: frozenset[str] = frozenset()
    lists: Literal["items", "whole"] | None = None
    phrases: bool = False

    def key(self, value: str) -> str:
        """How a value is looked up: the order of a list with one opposite does not matter."""
        whole = self.lists == "whole"
        return SEPARATOR.join(sorted(set(value.split(SEPARATOR)))) if whole else value


def compile_entries(opposites: Opposites, synonyms: Synonyms) -> Entries:
    """One attribute's entries from both files; a value with two opposites is an error."""
    draft = Entries(lists=opposites.lists, phrases=opposites.phrases)
    groups = [group for group in synonyms.say if isinstance(group, Group)]
    return Entries(
        _opposites(opposites, draft),
        frozenset(draft.key(value) for value in opposites.none),
        _heads(synonyms),
        _said(synonyms),
        {broad: frozenset(narrow) for broad, narrow in opposites.within.items()},
        frozenset(opposites.aside),
        frozenset(word for group in groups for word in group.adjective),
        opposites.lists,
        opposites.phrases,
    )


def _opposites(rules: Opposites, entries: Entries) -> dict[str, str]:
    found: dict[str, str] = {}
    both_ways = [(a, b) for a, b in rules.pairs] + [(b, a) for a, b in rules.pairs]
    one_way = [(value, to) for to, values in rules.towards.items() for value in values]
    for value, opposite in both_ways + one_way:
        if found.setdefault(entries.key(value), opposite) != opposite:
            raise LexiconError(
                f"opposites.yaml: {value!r} has two opposites, {found[entries.key(value)]!r} "
                f"and {opposite!r}. A value has one. Remove one of them."
            )
    return found


def _heads(rules: Synonyms) -> dict[str, str]:
    """Each word's representative: groups that share a word are one."""
    head: dict[str, str] = {}
    groups = [_members(group) for group in rules.say] + rules.same
    groups += [[word, form.format(word)] for form, words in rules.forms.items() for word in words]
    groups += [[word, str(n)] for n, word in number_words().items()] if rules.digits else []
    for group in groups:
        known = [head[word] for word in group if word in head]
        first = known[0] if known else group[0]
        for word in [*group, *(w for w, h in head.items() if h in known)]:
            head[word] = first
    return head


def _members(group: list[str] | Group) -> list[str]:
    return group if isinstance(group, list) else list(dict.fromkeys(group.noun + group.adjective))


def _said(rules: Synonyms) -> dict[str, Said]:
    """Per word, what may be written for it, the nearest first."""
    found: dict[str, Said] = {}
    for group in rules.say:
        parts = Group() if isinstance(group, list) else group
        for word in _members(group):
            found[word] = Said(
                _others(word, _members(group)),
                _others(word, parts.noun),
                _others(word, parts.adjective),
            )
    for form, words in rules.forms.items():
        for word in words:
            said = found.get(word, Said())
            found[word] = Said((*said.any, form.format(word)), said.noun, said.adjective)
    for number, word in number_words().items() if rules.digits else ():
        said = found.get(word, Said())
        found[word] = Said((*said.any, str(number)), said.noun, said.adjective)
    return found


def _others(word: str, group: Iterable[str]) -> tuple[str, ...]:
    return tuple(other for other in group if other != word)


@cache
def number_words() -> dict[int, str]:
    """The numbers 1 to 100 in words.

    Example:
        >>> number_words()[76]
        'seventy-six'
    """
    words = dict(enumerate(_ONES, start=1))
    for tens, ten in enumerate(_TENS, start=2):
        words[10 * tens] = ten
        words |= {10 * tens + ones: f"{ten}-{_ONES[ones - 1]}" for ones in range(1, 10)}
    return words | {100: "one hundred"}


def read_raw() -> tuple[dict[str, Opposites], dict[str, Synonyms]]:
    """Opposites and synonyms of all attributes as the files have them."""
    opposites = _read("opposites.yaml", _OppositesFile).attributes
    return opposites, _read("synonyms.yaml", _SynonymsFile).attributes


def read_entries() -> dict[str, Entries]:
    """The entries of all attributes."""
    opposites, synonyms = read_raw()
    return {
        name: compile_entries(opposites.get(name, Opposites()), synonyms.get(name, Synonyms()))
        for name in sorted({*opposites, *synonyms})
    }


def read_forms() -> Forms:
    """Plurals, spellings and repairs."""
    return _read("forms.yaml", Forms)


def read_strangers() -> Strangers:
    """Things that pictures do not show."""
    return _read("strangers.yaml", Strangers)


def read_kin() -> Kin:
    """Near things and nonsense; not of the lexicon, whose hash names what was there before."""
    return _read("kin.yaml", Kin)


def read_lines(name: str) -> tuple[str, ...]:
    """The lines of a list that ships, without its comments."""
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def _read(name: str, schema: type[File]) -> File:
    return validate(read_yaml(DATA / name, error=LexiconError), schema, error=LexiconError)

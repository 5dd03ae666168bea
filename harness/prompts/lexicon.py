"""The semantic opposite of an attribute's value.

Conventions: values are texts as they stand in prompts; the case of a value's first
letter is kept. ``None`` means "has no opposite", which callers count as not
applicable. The curated entries are read from ``data/opposites.yaml``, whose header
explains their form; WordNet is asked only for single words without an entry.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness.cards import Strict
from harness.errors import LexiconError, choose
from harness.files import read_yaml, validate
from harness.prompts.wordnet import VERSION, load_antonyms

LEXICONS = ("curated", f"curated+wordnet@{VERSION}")
SEPARATOR = ", "

_DATA = Path(__file__).parent / "data" / "opposites.yaml"
# "it is a round shape", "a circle", "heart shaped": what a shape may be dressed in. Fits any text.
_PHRASE = re.compile(
    r"(?P<before>(?:it is )?(?P<article>an? )?)(?P<head>.*?)(?P<after> shaped?)?", re.DOTALL
)


class Rules(Strict):
    """The entries of one attribute; see the header of the data file."""

    pairs: list[tuple[str, str]] = []
    towards: dict[str, list[str]] = {}
    none: list[str] = []
    same: list[list[str]] = []
    lists: Literal["items", "whole"] | None = None
    phrases: bool = False


class _File(Strict):
    title: str
    attributes: dict[str, Rules]


@dataclass(frozen=True)
class _Entries:
    """The rules of one attribute, ready to be looked up."""

    opposites: Mapping[str, str] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    same: Mapping[str, str] = field(default_factory=dict)
    lists: Literal["items", "whole"] | None = None
    phrases: bool = False

    def key(self, value: str) -> str:
        """How a value is looked up: the order of a list with one opposite does not matter."""
        whole = self.lists == "whole"
        return SEPARATOR.join(sorted(set(value.split(SEPARATOR)))) if whole else value


@dataclass(frozen=True)
class Lexicon:
    """Opposites and synonyms of attribute values.

    `source` is the name it was loaded by; `sha256` changes with the curated data
    and with the version of WordNet.
    """

    source: str
    sha256: str
    entries: Mapping[str, _Entries]
    antonyms: Callable[[str], str | None] | None = None

    def opposite(self, attribute: str, value: str) -> str | None:
        """The semantic opposite of a value, or None.

        Example:
            >>> curated = load_lexicon("curated")
            >>> curated.opposite("location", "top left, center")
            'bottom right, center'
            >>> curated.opposite("shape", "it is a circle")
            'it is a square'
        """
        entries = self.entries.get(attribute, _Entries())
        found = self._curated(entries, value.lower())
        if found is None and self.antonyms is not None and _is_plain(entries, value.lower()):
            found = self.antonyms(value.lower())
        if found is None or self.canonical(attribute, found) == self.canonical(attribute, value):
            return None
        return like(found, value)

    def canonical(self, attribute: str, value: str) -> frozenset[str]:
        """What a value means, so that other words for the same compare equal.

        Example:
            >>> curated = load_lexicon("curated")
            >>> curated.canonical("shape", "a circle") == curated.canonical("shape", "Round")
            True
        """
        entries = self.entries.get(attribute, _Entries())
        items = value.lower().split(SEPARATOR) if entries.lists else [value.lower()]
        heads = [_undress(item)["head"] if entries.phrases else item for item in items]
        return frozenset(entries.same.get(head, head) for head in heads)

    def words(self) -> frozenset[str]:
        """Every single word that occurs in an entry, lower case."""
        texts: set[str] = set()
        for entries in self.entries.values():
            texts |= {*entries.opposites, *entries.opposites.values()}
            texts |= {*entries.without, *entries.same}
        return frozenset(word for text in texts for word in re.findall(r"[a-z]+", text))

    def _curated(self, entries: _Entries, value: str) -> str | None:
        found = entries.opposites.get(entries.key(value))
        if found is None and entries.lists == "items":
            items = value.split(SEPARATOR)
            return SEPARATOR.join(entries.opposites.get(item, item) for item in items)
        if found is None and entries.phrases:
            return _dressed_opposite(entries, value)
        return found


def _dressed_opposite(entries: _Entries, value: str) -> str | None:
    phrase = _undress(value)
    opposite = entries.opposites.get(phrase["head"])
    if opposite is None:
        return None
    before = phrase["before"]
    if phrase["article"]:
        article = "an " if opposite[0] in "aeiou" else "a "
        before = before.removesuffix(phrase["article"]) + article
    return before + opposite + phrase["after"]


def _undress(value: str) -> dict[str, str]:
    found = _PHRASE.fullmatch(value)
    return {} if found is None else found.groupdict("")


def like(value: str, model: str) -> str:
    """`value` with a capital first letter where `model` has one.

    Example:
        >>> like("malignant", "Benign")
        'Malignant'
    """
    return value[:1].upper() + value[1:] if model[:1].isupper() else value


def _is_plain(entries: _Entries, value: str) -> bool:
    """Whether WordNet may be asked: one word, about which the curated data says nothing."""
    return value.isalpha() and value not in entries.without


def _compile(rules: Rules) -> _Entries:
    entries = _Entries(lists=rules.lists, phrases=rules.phrases)
    opposites: dict[str, str] = {}
    both_ways = [(a, b) for a, b in rules.pairs] + [(b, a) for a, b in rules.pairs]
    one_way = [(value, to) for to, values in rules.towards.items() for value in values]
    for value, opposite in both_ways + one_way:
        if opposites.setdefault(entries.key(value), opposite) != opposite:
            raise LexiconError(
                f"{_DATA.name}: {value!r} has two opposites, {opposites[entries.key(value)]!r} "
                f"and {opposite!r}. A value has one. Remove one of them."
            )
    return _Entries(
        opposites,
        frozenset(entries.key(value) for value in rules.none),
        {value: group[0] for group in rules.same for value in group},
        rules.lists,
        rules.phrases,
    )


def load_lexicon(name: str = "curated") -> Lexicon:
    """Load a lexicon by its name.

    Args:
        name: ``curated``, or ``curated+wordnet@3.0`` to ask WordNet for what the
            curated entries do not know.

    Raises:
        LexiconError: The name is unknown, or WordNet is missing or of another version.
    """
    choose(name, LEXICONS, kind="lexicon", where="lexicon", error=LexiconError)
    data = validate(read_yaml(_DATA, error=LexiconError), _File, error=LexiconError)
    antonyms = None if name == "curated" else load_antonyms()
    return Lexicon(
        source=name,
        sha256=hashlib.sha256(_DATA.read_bytes() + name.encode()).hexdigest(),
        entries={attribute: _compile(rules) for attribute, rules in data.attributes.items()},
        antonyms=antonyms,
    )

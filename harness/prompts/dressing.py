"""Values dressed in phrases: "a circle", "it is a round shape", "heart-shaped".

Conventions: texts are lower case. A *head* is what remains when article, "it is" and
"shape" are taken off; an article asks for a noun, "it is" without one for an adjective.
"""

import re
from typing import NamedTuple

_PHRASE = re.compile(
    r"(?P<before>(?:it is )?(?P<article>an? )?)(?P<head>.*?)(?P<after>[ -]shaped?)?", re.DOTALL
)
# How a word begins that sounds like a vowel though it is not written with one, and the other
# way round. Numerals are spoken: 8, 11, 18, 80 to 89, 800.
_SILENT = re.compile(r"hour|honest|honou?r|heir|x(?![aeiouy])|(?:8|(?:11|18)(?!\d))", re.IGNORECASE)
_SPOKEN = re.compile(
    r"one(?![a-z])|once|eu|ewe|u(?:ni(?!m|n)|rin|reth?[re]|ter|til|s[aeu]|vul|biq|kul)",
    re.IGNORECASE,
)
# A capital A is an article at the beginning of a sentence only: "hepatitis A is".
_ARTICLE = re.compile(r"(?:(?<![\w'-])a|(?:^|(?<=[.!?] ))A)n? (?=\w)")
_ARTICLES = re.compile(r"\b(?:an?|the) ")


class Dressed(NamedTuple):
    """A value taken apart: ``before + head + after`` is the value again."""

    before: str
    article: str
    head: str
    after: str

    def with_head(self, head: str) -> str:
        """The same phrase about something else, its article adapted.

        Example:
            >>> undress("it is a circle").with_head("oval")
            'it is an oval'
        """
        before = self.before
        if self.article:
            before = before.removesuffix(self.article) + article_of(head)
        return before + head + self.after


def undress(value: str) -> Dressed:
    """Take a value apart; any text fits.

    Example:
        >>> undress("it is a round shape").head
        'round'
    """
    found = _PHRASE.fullmatch(value)
    parts = found.groupdict("") if found else {"head": value}
    return Dressed(**{name: parts.get(name, "") for name in Dressed._fields})


def article_of(words: str) -> str:
    """The indefinite article before some words, by the sound they begin with, with a blank.

    Example:
        >>> article_of("oval"), article_of("square"), article_of("88-year-old")
        ('an ', 'a ', 'an ')
    """
    written = words[:1].lower() in tuple("aeiou")
    return "an " if _SILENT.match(words) or (written and not _SPOKEN.match(words)) else "a "


def with_right_articles(text: str) -> str:
    """The text with "an" before a vowel's sound and "a" before any other.

    Example:
        >>> with_right_articles("a oval of a 80-year-old, in an one-chamber view")
        'an oval of an 80-year-old, in a one-chamber view'
    """
    return _ARTICLE.sub(lambda found: found.group()[0] + article_of(text[found.end() :])[1:], text)


def article_before(text: str, place: int) -> str:
    """The indefinite article that ends at a place of a text, with its blank; "" where none does.

    Example:
        >>> article_before("view of a male", 10)
        'a '
    """
    if not text[:place].endswith(("a ", "an ", "A ", "An ")):
        return ""
    return next((m.group() for m in _ARTICLE.finditer(text) if m.end() == place), "")


def without_articles(text: str) -> str:
    """The text without "a", "an" and "the".

    Example:
        >>> without_articles("middle of the ear")
        'middle of ear'
    """
    return _ARTICLES.sub("", text)

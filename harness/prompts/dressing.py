"""Values dressed in phrases: "a circle", "it is a round shape", "heart-shaped".

Conventions: texts are lower case. A *head* is what remains when article, "it is" and
"shape" are taken off; an article asks for a noun, "it is" without one for an adjective.
"""

import re
from typing import NamedTuple

_PHRASE = re.compile(
    r"(?P<before>(?:it is )?(?P<article>an? )?)(?P<head>.*?)(?P<after>[ -]shaped?)?", re.DOTALL
)
# Before a vowel's sound: "an eighty-year-old", but "a one-chamber view", "a uniform texture".
_BARE_A = re.compile(r"\b([Aa]) (?=(?:[aei]|o(?!ne\b)|u(?!ni)))", re.ASCII)
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


def article_of(noun: str) -> str:
    """The indefinite article of a word, by its spelling, with a blank.

    Example:
        >>> article_of("oval"), article_of("square")
        ('an ', 'a ')
    """
    return "an " if noun[:1] in tuple("aeiou") else "a "


def with_right_articles(text: str) -> str:
    """The text with "an" where "a" stands before a vowel's sound.

    Example:
        >>> with_right_articles("a oval of a eighty-year-old, in a one-chamber view")
        'an oval of an eighty-year-old, in a one-chamber view'
    """
    return _BARE_A.sub(r"\1n ", text)


def without_articles(text: str) -> str:
    """The text without "a", "an" and "the".

    Example:
        >>> without_articles("middle of the ear")
        'middle of ear'
    """
    return _ARTICLES.sub("", text)

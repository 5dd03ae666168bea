"""Where the words of a prompt stand, by NLTK's tokenizers.

Conventions: places are ``(start, end)`` in code points, ends exclusive, in order.
NLTK takes a second to import, so it is imported where the first place is asked for.

References:
    S. Bird, E. Klein, E. Loper, Natural Language Processing with Python, 2009.
"""

from functools import cache, lru_cache
from typing import Any

Places = tuple[tuple[int, int], ...]
# Texts whose places are remembered; a prompt is asked about by several perturbations.
_REMEMBERED = 2**14


@cache
def _tokenizers() -> tuple[Any, Any]:
    from nltk.tokenize import RegexpTokenizer, WhitespaceTokenizer

    return WhitespaceTokenizer(), RegexpTokenizer(r"[^\W\d_]+")


@lru_cache(maxsize=_REMEMBERED)
def chunk_places(text: str) -> Places:
    """What stands between blanks: words with the marks that touch them.

    Example:
        >>> chunk_places("one polyp, small")
        ((0, 3), (4, 10), (11, 16))
    """
    if not text.strip():
        return ()
    return tuple(_tokenizers()[0].span_tokenize(text.rstrip()))


@lru_cache(maxsize=_REMEMBERED)
def word_places(text: str) -> Places:
    """Runs of letters; the parts of a hyphenated word are words of their own.

    Example:
        >>> word_places("two-chamber view.")
        ((0, 3), (4, 11), (12, 16))
    """
    return tuple(_tokenizers()[1].span_tokenize(text))

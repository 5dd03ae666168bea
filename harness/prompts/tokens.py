"""Where the words of a prompt stand.

Conventions: places are ``(start, end)`` in code points, ends exclusive, in order. They are those
that NLTK's ``WhitespaceTokenizer`` and ``RegexpTokenizer`` give; NLTK takes seconds to import.
"""

import re
from functools import lru_cache

Places = tuple[tuple[int, int], ...]
# Texts whose places are remembered; a prompt is asked about by several perturbations.
_REMEMBERED = 2**14


_CHUNK, _WORD = re.compile(r"\S+"), re.compile(r"[^\W\d_]+")


@lru_cache(maxsize=_REMEMBERED)
def chunk_places(text: str) -> Places:
    """What stands between blanks: words with the marks that touch them.

    Example:
        >>> chunk_places("one polyp, small")
        ((0, 3), (4, 10), (11, 16))
    """
    return tuple(found.span() for found in _CHUNK.finditer(text))


@lru_cache(maxsize=_REMEMBERED)
def word_places(text: str) -> Places:
    """Runs of letters; the parts of a hyphenated word are words of their own.

    Example:
        >>> word_places("two-chamber view.")
        ((0, 3), (4, 11), (12, 16))
    """
    return tuple(found.span() for found in _WORD.finditer(text))

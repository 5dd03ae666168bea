"""Uncommon English words, the same ones for every sample.

Conventions: the list is a file that ships with the package; its header defines
*uncommon*. Words are lower case. A draw depends on the seed and the list alone.
"""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np

from harness.errors import LexiconError

_LIST = Path(__file__).parent / "data" / "uncommon_words.txt"


@cache
def uncommon_words() -> tuple[str, ...]:
    """The whole list, in alphabetical order."""
    lines = _LIST.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def draw_words(n: int, seed: int) -> tuple[str, ...]:
    """Draw `n` distinct words by a non-negative seed.

    The first words of a longer draw with the same seed are those of a shorter one, so that asking
    for more words keeps the scores of the former.

    Example:
        >>> draw_words(2, 0) == draw_words(5, 0)[:2]
        True
    """
    words = uncommon_words()
    if not 0 <= n <= len(words):
        raise LexiconError(
            f"words: asked for {n} uncommon words, the list has {len(words)}. "
            f"Ask for 0 to {len(words)}."
        )
    order = np.random.default_rng(seed).permutation(len(words))
    return tuple(words[index] for index in order[:n])


@cache
def words_sha256() -> str:
    """Hash of the words in their order; comments do not enter."""
    return hashlib.sha256("\n".join(uncommon_words()).encode()).hexdigest()

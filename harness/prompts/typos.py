"""Slips of the keyboard in one word: neighbour, swap, drop, double.

Conventions: a typo is one slip in a word of at least four letters; the first letter is
never wrong, since readers and typists rarely err there. Keys are those of a QWERTY
keyboard. A text is *near* another when one insertion, deletion, substitution or swap of
neighbours leads from one to the other.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from harness.prompts.word_diff import n_shared

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
SHORTEST = 4


def _neighbours() -> dict[str, str]:
    """Keys that touch a key: left and right, and the two nearest of the rows beside."""
    found: dict[str, str] = {}
    for number, row in enumerate(ROWS):
        for place, key in enumerate(row):
            beside = row[max(0, place - 1) : place] + row[place + 1 : place + 2]
            above = ROWS[number - 1][place : place + 2] if number else ""
            below = ROWS[number + 1][max(0, place - 1) : place + 1] if number < 2 else ""
            found[key] = above + beside + below
    return found


NEIGHBOURS = _neighbours()


@lru_cache(maxsize=2**13)
def typos_of(word: str) -> tuple[str, ...]:
    """Every distinct typo of a word, in alphabetical order; none of a short one.

    Example:
        >>> [typo for typo in typos_of("polyp") if len(typo) < 5]
        ['plyp', 'polp', 'poly', 'poyp']
    """
    if len(word) < SHORTEST:
        return ()
    return tuple(sorted(set(_slips(word)) - {word}))


def _slips(word: str) -> Iterator[str]:
    for place in range(1, len(word)):
        before, letter, after = word[:place], word[place], word[place + 1 :]
        yield before + after
        yield before + letter + letter + after
        for key in NEIGHBOURS.get(letter.lower(), ""):
            yield before + (key.upper() if letter.isupper() else key) + after
        if after:
            yield before + after[0] + letter + after[1:]


def is_near(one: str, other: str) -> bool:
    """Whether two texts are equal or one slip apart.

    Example:
        >>> is_near("center", "centre"), is_near("left", "felt")
        (True, False)
    """
    if one == other:
        return True
    shorter, longer = sorted((one, other), key=len)
    if len(longer) - len(shorter) > 1:
        return False
    head = n_shared(shorter, longer)
    if len(shorter) < len(longer):
        return shorter[head:] == longer[head + 1 :]
    swapped = shorter[head + 1 : head + 2] + shorter[head : head + 1] + shorter[head + 2 :]
    return shorter[head + 1 :] == longer[head + 1 :] or swapped == longer[head:]


def keeps_distance(text: str, others: Iterable[str]) -> bool:
    """Whether a misspelt text is farther from every other text than from its original."""
    return not any(is_near(text, other) for other in others)

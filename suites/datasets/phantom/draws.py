"""Random integers that are the same on every machine and in every numpy.

Conventions: a stream is named by a tuple of small integers (its key) below a seed;
different keys give independent streams. Only the raw 64-bit words of PCG64 are
used: numpy guarantees those and `SeedSequence`, and does not guarantee what its
`Generator` makes of them (NEP 19). Everything drawn is an integer.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

# Keeps these streams apart from any other use of the same seed. Never change it.
_ENTROPY = 0x7068616E

Item = TypeVar("Item")


def sequence(seed: int, key: tuple[int, ...]) -> np.random.SeedSequence:
    """The seed sequence of a stream: `seed` as entropy, `key` as spawn key."""
    return np.random.SeedSequence((_ENTROPY, seed), spawn_key=key)


class Stream:
    """Integers drawn one after another from the stream of a key."""

    def __init__(self, seed: int, key: tuple[int, ...]) -> None:
        self._bits = np.random.PCG64(sequence(seed, key))

    def below(self, bound: int) -> int:
        """An integer in ``[0, bound)``; the bias is under ``bound / 2**64``."""
        return int(self._bits.random_raw()) * bound >> 64

    def between(self, low: int, high: int) -> int:
        """An integer in ``[low, high]``."""
        return low + self.below(high - low + 1)

    def choice(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """The items in random order (Fisher and Yates)."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def octets(self, *shape: int) -> NDArray[np.float64]:
        """Independent integers in [0, 255] as float64, which holds them exactly."""
        count = math.prod(shape)
        words = np.asarray(self._bits.random_raw(-(-count // 8)), dtype="<u8")
        return words.view(np.uint8)[:count].reshape(shape).astype(np.float64)


@lru_cache(maxsize=4096)
def _block(seed: int, key: tuple[int, ...], block: int, size: int) -> tuple[int, ...]:
    return tuple(Stream(seed, (*key, block)).shuffled(range(size)))


def balanced(seed: int, key: tuple[int, ...], index: int, *, items: Sequence[Item]) -> Item:
    """Item number `index` of an endless series in which all items are equally frequent.

    Each run of ``len(items)`` consecutive indices is a random permutation of the
    items (permuted blocks, as in clinical trials), so frequencies never differ by
    more than one, however long the series is.
    """
    block, place = divmod(index, len(items))
    return items[_block(seed, key, block, len(items))[place]]

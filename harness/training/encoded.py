"""Encodes what a frozen stage reads once, and keeps it for the whole training.

Conventions: features are NamedTuples of tensors with a leading axis N. Each row is encoded alone,
so that its numbers do not depend on the batch in which it comes first. Kept rows lie in memory as
they were computed; beyond the budget, rows are encoded anew each time.
"""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from harness.model.contract import Features
from harness.model.features import bytes_per_row, concatenate

BUDGET_BYTES = 4 << 30


class EncodedOnce:
    """Rows of features of a stage that no longer changes, by key."""

    def __init__(self, *, budget_bytes: int = BUDGET_BYTES) -> None:
        self._left = budget_bytes
        self._rows: dict[Hashable, Features] = {}

    def rows(self, keys: Sequence[Hashable], encode: Callable[[int], Features]) -> Features:
        """The features of N keys, in their order.

        Equal keys have equal features; `encode` is called with a place in `keys` and returns one
        row.
        """
        return concatenate([self._row(key, place, encode) for place, key in enumerate(keys)])

    def _row(self, key: Hashable, place: int, encode: Callable[[int], Features]) -> Features:
        if key in self._rows:
            return self._rows[key]
        with torch.no_grad():
            row = encode(place)
        size = bytes_per_row(row)
        if size <= self._left:
            self._left -= size
            self._rows[key] = row
        return row


def is_settled(encode: Callable[[Sequence[int]], Features]) -> bool:
    """Whether rows of a stage neither change from call to call nor hang on their neighbours.

    `encode` takes places 0 and 1 of two inputs and gives their features; it is called several
    times.
    """
    with torch.no_grad():
        together, alone, again = encode([0, 1]), encode([0]), encode([0])
    return all(
        _near(a[:1], b) and _near(b, c) for a, b, c in zip(together, alone, again, strict=True)
    )


def _near(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-4)

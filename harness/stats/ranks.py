"""Ranks with ties, from tests of all pairs.

Conventions: rank 1 is the best. A model's rank is 1 plus the number of models that are *shown*
to be better than it, and its last rank the number of models less those shown to be worse; what
is not shown leaves a range open. "Not shown to differ" is not transitive: of three models the
first may be shown to differ from the third and neither from the second. Then the second's range
covers both others', which is why ranges and not single ranks say who is tied.
"""

from collections.abc import Sequence
from typing import NamedTuple

HOW = (
    "Ranks: 1 plus the number of models shown to be better (paired difference, corrected over all "
    "pairs of the set, 5 %). A range says which ranks the data leave open; models that are not "
    "shown to differ are tied and named as such."
)
"""How ties are made, in words."""


class Rank(NamedTuple):
    """One model's place among the others.

    Attributes:
        first: Best rank that the tests leave open.
        last: Worst one.
        tied_with: Places of the models it is not shown to differ from, in order.
    """

    first: int
    last: int
    tied_with: tuple[int, ...]

    @property
    def text(self) -> str:
        """``2`` or ``2-3``."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def ranks(n_models: int, shown: Sequence[tuple[int, int]]) -> list[Rank]:
    """The rank of each model.

    Args:
        n_models: How many there are.
        shown: Pairs ``(better, worse)`` of places that are shown to differ.

    Example:
        >>> [r.text for r in ranks(3, [(0, 2)])]
        ['1-2', '1-3', '2-3']
    """
    found = []
    for place in range(n_models):
        better = {a for a, b in shown if b == place}
        worse = {b for a, b in shown if a == place}
        tied = sorted(set(range(n_models)) - better - worse - {place})
        found.append(Rank(1 + len(better), n_models - len(worse), tuple(tied)))
    return found

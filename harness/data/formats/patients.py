"""Whether the names of pictures hold patients: what is independent of what.

Conventions: a pattern is one of the card's own (`clusters.pattern`), without look-around; it is
proposed where it tells groups of several pictures apart. Groups that are too large make intervals
too wide, pictures that are wrongly taken for independent make them too narrow: grouping is the
safer default.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

_WORD = r"(?:patient|patid|pat|subject|subj|sub|participant|case|pid|video|vid|sequence|seq|study)"
_PATTERNS = (
    rf"((?i:{_WORD})[-_ ]?[A-Za-z]?[0-9]+)",
    r"^([A-Za-z]{1,3}[0-9]+)[-_ ]",
    r"^(.*[0-9].*)[-_ ]+[A-Za-z]*[0-9]+\.[A-Za-z0-9]+$",
)
_FEWEST, _LARGEST = 3, 0.5


@dataclass(frozen=True)
class Patients:
    """Names that look like patients."""

    pattern: str  # the card's pattern
    groups: tuple[str, ...]  # the group of each name
    n: int
    example: tuple[str, str]  # one of them, and a name that holds it


def find_patients(names: Sequence[str]) -> Patients | None:
    """The patients that all names hold, where several pictures share one.

    Example:
        >>> names = [f"P{n // 2:03d}_{n % 2}.png" for n in range(8)]
        >>> found = find_patients(names)
        >>> found.pattern, found.n, found.example
        ('^([A-Za-z]{1,3}[0-9]+)[-_ ]', 4, ('P000', 'P000_0.png'))
    """
    listed = pl.Series(names, dtype=pl.String)
    n_names = listed.n_unique()
    for pattern in _PATTERNS:
        found = listed.str.extract(pattern, 1)
        if found.null_count() or not len(found):
            continue
        n_groups = found.n_unique()
        per_group = pl.DataFrame({"name": listed, "group": found}).unique()["group"].value_counts()
        largest = per_group["count"].max()
        assert isinstance(largest, int)
        if _FEWEST <= n_groups <= n_names / 1.5 and largest <= _LARGEST * n_names:
            groups = tuple(found.to_list())
            return Patients(pattern, groups, n_groups, (groups[0], names[0]))
    return None

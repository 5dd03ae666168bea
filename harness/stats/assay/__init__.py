"""The assay card: how often verdicts are right on models of known truth.

``card.json`` is written by ``reports/assay.py`` (`make calibration`) and ships with the package.
Each row counts verdicts of one kind, at one number of clusters, on models of one truth:

- *attribute*: a word of the prompt decides between two targets. Truth ``yes``: the model was made
  to follow it, in `strength` of the pictures for an oracle, or as its card claims; ``no``: it was
  made so that it cannot. Right is *heard*, or *unheard*.
- *refusal*: prompts for what is not in the picture. Truth ``yes``: the model refuses a share
  `strength` above the bound of the verdict, ``no``: below it. Right is *refuses* or *hallucinates*.

*Sensitivity* is the share of ``yes`` that are right, *specificity* that of ``no``. *Cannot tell* is
neither right nor wrong: it counts against both, and not among the wrong ones.
"""

import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

CARD = Path(__file__).with_name("card.json")
ASSAY_VERSION = 1
"""Raised whenever models, truths or what is counted change their meaning."""


class Count(NamedTuple):
    """Verdicts on models of one truth; `strength` is None for models that ship."""

    kind: str
    truth: str
    strength: float | None
    n_clusters: int
    n: int
    right: int
    wrong: int

    @property
    def undecided(self) -> int:
        """Those that cannot tell."""
        return self.n - self.right - self.wrong


@cache
def read_card(path: Path = CARD) -> tuple[Count, ...]:
    """The counts of the card that ships."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return tuple(Count(**row) for row in content["rows"])


def clopper_pearson(events: int, n: int) -> tuple[float, float]:
    """Exact 95 % limits of a share, of independent cases.

    Example:
        >>> [round(limit, 3) for limit in clopper_pearson(0, 20)]
        [0.0, 0.168]
    """
    from scipy.special import betaincinv

    low = float(betaincinv(events, n - events + 1, 0.025)) if events else 0.0
    high = float(betaincinv(events + 1, n - events, 0.975)) if events < n else 1.0
    return low, high


class Group(NamedTuple):
    """Models whose verdicts are counted together."""

    kind: str
    name: str
    truth: str
    least: float = 0.0
    most: float = 1.0


GROUPS = (
    Group("attribute", "heard in half of the pictures or more", "yes", least=0.5),
    Group("attribute", "heard in fewer", "yes", most=0.49),
    Group("attribute", "not heard", "no"),
    Group("refusal", "refused more often than the bound", "yes"),
    Group("refusal", "refused less often", "no"),
)
"""A claim of a card, which has no strength, is one of a strong effect."""


def total(rows: Iterable[Count], group: Group, n_clusters: int) -> Count:
    """Counts of a group at one number of clusters."""
    own = [
        row
        for row in rows
        if (row.kind, row.truth, row.n_clusters) == (group.kind, group.truth, n_clusters)
        and group.least <= (1.0 if row.strength is None else row.strength) <= group.most
    ]
    sums = (sum(getattr(row, name) for row in own) for name in ("n", "right", "wrong"))
    return Count(group.kind, group.truth, None, n_clusters, *sums)


def sizes_of(rows: Iterable[Count], kind: str) -> list[int]:
    """Numbers of clusters at which verdicts of a kind were counted."""
    return sorted({row.n_clusters for row in rows if row.kind == kind})


def share_text(events: int, n: int) -> str:
    """``0.95 [0.85, 0.99]``.

    Example:
        >>> share_text(19, 20), share_text(0, 0)
        ('0.95 [0.75, 1.00]', '-')
    """
    if n == 0:
        return "-"
    low, high = clopper_pearson(events, n)
    return f"{events / n:.2f} [{low:.2f}, {high:.2f}]"


_KINDS = {"attribute": "words", "refusal": "refusal"}


def sentences(rows: Iterable[Count]) -> Iterator[str]:
    """A sentence a kind of verdict, at the fewest clusters and at the most."""
    rows = list(rows)
    for kind, name in _KINDS.items():
        sizes = sizes_of(rows, kind)
        ends = sizes[0], sizes[-1]
        shares = []
        for group in (g for g in GROUPS if g.kind == kind):
            both = [total(rows, group, size) for size in ends]
            texts = (share_text(one.right, one.n) for one in both)
            shares.append(f"{group.name} and called so {', '.join(texts)}")
        own = [row for row in rows if row.kind == kind]
        wrong, n = sum(row.wrong for row in own), sum(row.n for row in own)
        yield (
            f"How often verdicts on {name} are right on models of known truth, with {ends[0]} and "
            f"{ends[1]} clusters: {'; '.join(shares)}; the opposite said of {wrong} of {n}."
        )


@cache
def assay_lines() -> tuple[str, ...]:
    """The same as the card holds it, for a report's footer."""
    return tuple(json.loads(CARD.read_text(encoding="utf-8"))["sentences"])

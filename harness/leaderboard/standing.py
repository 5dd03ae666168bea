"""The class of a row of the board, its mean Dice and its rank.

There is no single score. A row has a class, by the language verdicts on the datasets that decide
the track, and within it a rank by the Dice of the original prompts.

Conventions: Dice are fractions, changes percent of the original Dice. The Dice of a track is the
unweighted mean over its sets, with limits by the method of variance estimates recovery (MOVER;
G. Y. Zou and A. Donner, Stat. Med. 27:1693-1702, 2008. doi:10.1002/sim.3095), which adds the
squared distances to the limits of independent estimates. A rank is 1 plus the number of rows of
the same class whose interval lies wholly above: rows whose intervals overlap may share one.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import polars as pl

from harness.records import Meaning
from harness.stats.assessment import Assessment
from harness.stats.language import Language, LanguageVerdict, Steadiness
from harness.stats.refusal import Refusal

LISTENING_STEADY = "listening and steady"
LISTENING_BRITTLE = "listening and brittle"
UNMOVED = "unmoved"
CANNOT_TELL = "cannot tell"
CLASSES = (LISTENING_STEADY, LISTENING_BRITTLE, UNMOVED, CANNOT_TELL)
"""Classes in the order in which a board shows them."""


class Standing(NamedTuple):
    """A model's class, the language verdict and steadiness behind it, and refusal beside it."""

    label: str
    language: Language
    steadiness: Steadiness
    heard: tuple[str, ...]
    unheard: tuple[str, ...]
    refusal: Refusal = "not asked"


class Limits(NamedTuple):
    """A figure with its 95 % limits."""

    estimate: float
    low: float
    high: float


class Spread(NamedTuple):
    """A mean over sets and attributes, with the smallest and largest of them."""

    mean: float
    least: float
    most: float
    n_rows: int


NOTHING = Spread(math.nan, math.nan, math.nan, 0)


def classify(verdicts: Iterable[LanguageVerdict], decided_by: Sequence[str]) -> Standing:
    """Decide a model's class from its verdicts on the datasets in `decided_by`.

    *Listening* where it is so on any of them; *unmoved* where every one of them calls it deaf
    or unmoved. *Brittle* where it is so on any of them, *steady* where it is on all.
    """
    mine = [v for v in verdicts if v.dataset in decided_by]
    languages = {v.language for v in mine}
    steady = {v.steadiness for v in mine}
    language: Language = "cannot tell"
    if "listening" in languages:
        language = "listening"
    elif languages and languages <= {"deaf", "unmoved here"}:
        language = "deaf" if "deaf" in languages else "unmoved here"
    elif languages == {"moved here"}:
        language = "moved here"
    steadiness: Steadiness = "cannot tell"
    if "brittle" in steady or steady == {"steady"}:
        steadiness = "brittle" if "brittle" in steady else "steady"
    heard = tuple(sorted({a for v in mine for a in v.heard}))
    unheard = tuple(sorted({a for v in mine for a in v.unheard} - set(heard)))
    label = UNMOVED if language in ("deaf", "unmoved here") else CANNOT_TELL
    if language == "listening" and steadiness != "cannot tell":
        label = LISTENING_STEADY if steadiness == "steady" else LISTENING_BRITTLE
    return Standing(label, language, steadiness, heard, unheard, _refusal(mine))


def _refusal(verdicts: Sequence[LanguageVerdict]) -> Refusal:
    """*Hallucinates* where it does so on any set, *refuses* where it does on all that ask."""
    found = {v.refusal for v in verdicts} - {"not asked"}
    if "hallucinates" in found:
        return "hallucinates"
    if found == {"refuses"}:
        return "refuses"
    return "cannot tell" if found else "not asked"


def mean_limits(parts: Sequence[Limits]) -> Limits:
    """The mean of independent estimates with its limits.

    Example:
        >>> mean_limits([Limits(0.5, 0.2, 0.6), Limits(0.7, 0.3, 0.8)])
        Limits(estimate=0.6, low=0.35, high=0.670...)
    """
    if not parts or any(not math.isfinite(v) for part in parts for v in part):
        return Limits(math.nan, math.nan, math.nan)
    count = len(parts)
    mean = math.fsum(p.estimate for p in parts) / count
    below = math.sqrt(math.fsum((p.estimate - p.low) ** 2 for p in parts)) / count
    above = math.sqrt(math.fsum((p.high - p.estimate) ** 2 for p in parts)) / count
    return Limits(mean, mean - below, mean + above)


def mean_dice(summary: pl.DataFrame) -> Limits:
    """Mean Dice of the original prompts over the sets of a track."""
    rows = summary.filter(pl.col("probe") == "original").sort("dataset", "split")
    return mean_limits(
        [Limits(*row) for row in rows.select("dice", "dice_low", "dice_high").rows()]
    )


def ranks(dice: Sequence[Limits]) -> list[int]:
    """The rank of each row among rows of one class; rows may share one.

    Example:
        >>> ranks([Limits(0.9, 0.88, 0.92), Limits(0.89, 0.86, 0.91), Limits(0.5, 0.4, 0.6)])
        [1, 1, 3]
    """
    return [1 + sum(other.low > one.high for other in dice) for one in dice]


def spread_of_changes(rows: pl.DataFrame) -> Spread:
    """Relative changes of Dice over the rows of a probe, those where they are defined."""
    changes = rows["relative_change_percent"]
    values = [v for v in changes.to_list() if v is not None and math.isfinite(v)]
    if not values:
        return NOTHING
    return Spread(math.fsum(values) / len(values), min(values), max(values), len(values))


def changes_by_probe(assessment: Assessment) -> dict[str, Spread]:
    """The relative change of each probe that does not keep the meaning, by the probe's name.

    All that keep it are summarised together as ``preserved``.
    """
    rows = assessment.summary.filter(pl.col("n_cases").fill_null(1) > 0)
    kept = rows.filter(pl.col("meaning") == Meaning.PRESERVED)
    others = rows.filter(
        ~pl.col("meaning").fill_null("").is_in([Meaning.PRESERVED.value, Meaning.ORIGINAL.value]),
        pl.col("probe") != "original",
    ).partition_by("probe", maintain_order=True)
    by_probe = {part["probe"][0]: spread_of_changes(part) for part in others}
    return by_probe | {"preserved": spread_of_changes(kept)}

"""Compares models case by case: paired differences with intervals, corrected p-values, ranks.

Conventions: a difference is the first model's figure minus the second's: percentage points of
relative change, and points (100 times a difference) of Dice and of agreement. Limits are 95 %
of the studentised bootstrap in which both models' clusters (and words) are resampled together,
and unadjusted. p-values are two-sided and corrected within (pair, dataset) for relative changes
and within a set over all pairs for the figures that make ranks. ``differs`` is null where no
test is allowed, for the reason beside it.

Rank 1 is the best. A model's rank is 1 plus the number of models that are *shown* to be better
than it, and its last rank the number of models minus those shown to be worse; what is not shown
leaves a range open. "Not shown to differ" is not transitive: of three models the first may be
shown to differ from the third and neither from the second. Then the second's range covers both
others', which is why ranges and not single ranks say who is tied. How firm ranks are is said by
`harness.stats.comparison.ranking`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from harness.metrics import combined_rule, signature
from harness.stats.columns import TOO_LOW, why_too_low
from harness.stats.comparison.common import (
    CHANGE,
    FIGURES,
    ORIGINAL,
    STEADINESS,
    Coverage,
    Figure,
    Subject,
    common_cases,
    figures_of,
)
from harness.stats.comparison.contrast import Solution, solutions
from harness.stats.comparison.ranking import (
    DATASET_SCHEMA,
    OVERALL_SCHEMA,
    Firmness,
    Resampled,
    firmness,
    rank_1_shares,
    resample,
    share_not_better,
)
from harness.stats.inference import Inference, adjust_families, estimate_of, p_greater, p_less
from harness.stats.intervals import unit_draws
from harness.stats.pairs import SET_KEYS
from harness.stats.relative import reduce
from harness.stats.verdicts import ALPHA, MOST_EMPTY
from harness.suite.schema import Statistics

COMPARISON_VERSION = 2
"""Raised whenever a column changes its name or meaning."""

_KEYS = dict.fromkeys((*SET_KEYS, "probe", "attribute", "meaning"), pl.String)
DIFFERENCE_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("figure", "first", "second"), pl.String),
    **_KEYS,
    **dict.fromkeys(("value_first", "value_second", "difference", "low", "high"), pl.Float64),
    **dict.fromkeys(("p_value", "p_adjusted"), pl.Float64),
    **dict.fromkeys(("n_family", "n_samples", "n_clusters"), pl.Int64),
    "differs": pl.Boolean,
    "not_better_share": pl.Float64,
    **dict.fromkeys(("resampled", "reason", "note"), pl.String),
}
"""One row a (figure, pair of models, set, probe, attribute).

`not_better_share` is the share of resamples in which "the first is better than the second" is
false; NaN for relative changes, of which no sign is better.
"""

RANK_SCHEMA: dict[str, Any] = {
    "figure": pl.String,
    **dict.fromkeys(SET_KEYS, pl.String),
    "model": pl.String,
    **dict.fromkeys(("value", "low", "high"), pl.Float64),
    **dict.fromkeys(("rank", "last_rank", "n_samples", "n_clusters"), pl.Int64),
    "rank_1_share": pl.Float64,
    "tied_with": pl.List(pl.String),
    "reason": pl.String,
}
"""One row a (figure, set, model); original Dice and steadiness are fractions, high is good.

A model with a reason against a test has no rank, and no other model's rank counts it.
`rank_1_share` is the share of resamples in which it is first of those with a rank.
"""

_OFFSET = {ORIGINAL: 0.0, CHANGE: 1.0, STEADINESS: 0.0}


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is said of several models on their common cases."""

    differences: pl.DataFrame  # of `DIFFERENCE_SCHEMA`
    ranks: pl.DataFrame  # of `RANK_SCHEMA`
    coverage: tuple[Coverage, ...]  # how much of each plan is compared
    signature: str  # what fixes the meaning of the numbers
    # Largest family in which, with so few draws, no p-value could be small enough; 0 where draws
    # suffice.
    n_tests_too_many: int
    overall: pl.DataFrame  # of `OVERALL_SCHEMA`; empty with one data set
    datasets: pl.DataFrame  # of `DATASET_SCHEMA`; likewise


def compare(subjects: Sequence[Subject]) -> Comparison:
    """Compare models on the cases that all of them have.

    They are at least two, with labels of their own; the first one's suite sets the statistics.

    Raises:
        RunError: Metrics or true masks differ.
        NothingSelectedError: No case is common.
    """
    common = common_cases(subjects)
    settings = subjects[0].suite.statistics
    labels = [s.label for s in subjects]
    figures = list(figures_of(common.pairs, reduce(common.pairs)))
    places = list(combinations(range(len(labels)), 2))
    solved = solutions(
        figures, common.pairs.plan.units, pairs=places, count=settings.draws, seed=settings.seed
    )
    contests = [
        _Contest(f, s, _reasons(f, s, settings), _resampled(f, common.pairs.plan.units, settings))
        for f, s in zip(figures, solved, strict=True)
    ]
    rows = [row for contest in contests for row in _differences(contest, places, labels)]
    table = _adjusted(rows, settings)
    placed = [
        row for one in contests if one.figure.name != CHANGE for row in _ranked(one, table, labels)
    ]
    firm = [_firmness(name, contests, labels) for name in (ORIGINAL, STEADINESS)]
    families = [row["n_family"] for row in table]
    least = 2 / (settings.draws + 1)
    return Comparison(
        differences=pl.DataFrame(table, schema=DIFFERENCE_SCHEMA, orient="row"),
        ranks=pl.DataFrame(placed, schema=RANK_SCHEMA, orient="row"),
        coverage=common.coverage,
        signature=_signature(subjects[0], settings),
        n_tests_too_many=_too_many(families, least, settings),
        overall=pl.DataFrame([r for f in firm for r in f.overall], OVERALL_SCHEMA, orient="row"),
        datasets=pl.DataFrame([r for f in firm for r in f.datasets], DATASET_SCHEMA, orient="row"),
    )


def _resampled(figure: Figure, units: pl.DataFrame, settings: Statistics) -> Resampled | None:
    """In the draws behind the intervals; None for what makes no rank."""
    if figure.name == CHANGE:
        return None
    draws = unit_draws(units, figure.units, count=settings.draws, seed=settings.seed)
    return resample(figure, draws)


def _firmness(name: str, contests: Sequence["_Contest"], labels: Sequence[str]) -> Firmness:
    """Over data sets, of the models that have a rank in each of them."""
    own = [c for c in contests if c.figure.name == name]
    kept = [k for k in range(len(labels)) if not any(c.reasons[k] for c in own)]
    sets = [
        Resampled(c.resampled.dataset, c.resampled.estimate[kept], c.resampled.drawn[:, kept])
        for c in own
        if c.resampled is not None
    ]
    return firmness(name, sets, [labels[k] for k in kept])


def _too_many(families: list[int], least: float, settings: Statistics) -> int:
    """Only Holm's first step asks for ``alpha / n``; the others need no such small p-value."""
    most = max(families, default=0)
    return most if settings.correction == "holm" and most * least > ALPHA else 0


def _signature(subject: Subject, settings: Statistics) -> str:
    rule = combined_rule(subject.facts.foreground)
    metric = signature(subject.suite.metric, 0.5, rule).replace("thr:0.5", "thr:own")
    fields = ["compare", settings.correction, f"clusters:{settings.minimum_clusters}"]
    fields += [f"draws:{settings.draws}", f"floor:{settings.dice_floor:g}"]
    return "|".join([metric, *fields, f"v:{COMPARISON_VERSION}"])


class _Contest(NamedTuple):
    """One figure of all models, solved, with why a model allows no test."""

    figure: Figure
    solved: Solution
    reasons: list[str]
    resampled: Resampled | None


def _differences(
    contest: _Contest, places: Sequence[tuple[int, int]], labels: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """A row for each pair of models, p-values as yet uncorrected."""
    figure, solved, reasons, resampled = contest
    values = 100 * (solved.own.estimate - _OFFSET[figure.name])
    found_in = solved.differences.intervals
    p_values = two_sided(solved.differences)
    for k, (one, other) in enumerate(places):
        both = reasons[one], reasons[other]
        undefined = [text.startswith(TOO_LOW) for text in both]
        # What makes the figures undefined is given before what only forbids their test.
        reason = next((t for t in both if t.startswith(TOO_LOW)), both[0] or both[1])
        limits = (found_in.estimate[k], found_in.low[k], found_in.high[k])
        found = [np.nan if any(undefined) else 100 * float(x) for x in limits]
        blocked = bool(reason) or not np.isfinite(p_values[k])
        yield {
            "figure": figure.name,
            "first": labels[one],
            "second": labels[other],
            **figure.keys,
            "meaning": figure.meaning,
            "value_first": np.nan if undefined[0] else float(values[one]),
            "value_second": np.nan if undefined[1] else float(values[other]),
            **dict(zip(("difference", "low", "high"), found, strict=True)),
            "p_value": np.nan if blocked else float(p_values[k]),
            "not_better_share": np.nan
            if blocked or resampled is None
            else share_not_better(resampled.drawn[:, one], resampled.drawn[:, other]),
            "n_samples": figure.n_samples,
            "n_clusters": len(figure.units),
            "resampled": "words x clusters" if figure.words else "clusters",
            "reason": reason or ("the figure has no standard error" if blocked else None),
            "note": "for these words only" if figure.fixed_words else None,
        }


def _reasons(figure: Figure, solved: Solution, settings: Statistics) -> list[str]:
    """Why a model's figure allows no test; empty where it does.

    A relative change whose reference is too low is undefined, whatever else prevents it.
    """
    n_clusters, needed = len(figure.units), settings.minimum_clusters
    few = f"{n_clusters} clusters, and {needed} are needed" if n_clusters < needed else ""
    found = [few or _too_empty(figure.name, share) for share in figure.empty_shares]
    if figure.name != CHANGE:
        return found
    low = why_too_low(solved.references, slice(None), settings.dice_floor)
    return [str(undefined) or reason for undefined, reason in zip(low, found, strict=True)]


def _too_empty(name: str, share: float) -> str:
    if name == ORIGINAL or not share > MOST_EMPTY:
        return ""
    return f"mask empty for {100 * share:.0f} % of originals"


def two_sided(solved: Inference) -> np.ndarray:
    """Two-sided p-values of no difference, read off the same draws as the interval, ``(P,)``."""
    found = [estimate_of(solved, k) for k in range(len(solved.n_draws))]
    return np.array([min(1.0, 2 * min(p_less(e, 0.0), p_greater(e, 0.0))) for e in found])


def _adjusted(rows: list[dict[str, Any]], settings: Statistics) -> list[dict[str, Any]]:
    """Rows with p-values corrected within their families, and what is shown to differ."""
    tests = [(_family(row), row["p_value"]) for row in rows]
    for row, own in zip(rows, adjust_families(tests, settings.correction), strict=True):
        differs = own.p_value <= ALPHA if own.place is not None else None
        row |= {"p_adjusted": own.p_value, "n_family": len(own.family), "differs": differs}
    order = {name: k for k, name in enumerate(FIGURES)}
    return sorted(rows, key=lambda row: order[row["figure"]])


def _family(row: dict[str, Any]) -> tuple[Any, ...]:
    if row["figure"] == CHANGE:
        return CHANGE, row["dataset"], row["first"], row["second"]
    return (row["figure"], *(row[k] for k in SET_KEYS))


def _ranked(
    contest: _Contest, table: Sequence[dict[str, Any]], labels: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """One row a model: those with a rank, best first, then those without."""
    figure, limits = contest.figure, contest.solved.own
    sets = {k: figure.keys[k] for k in SET_KEYS}
    own = [
        row
        for row in table
        if row["figure"] == figure.name and all(row[k] == v for k, v in sets.items())
    ]
    ranked = [k for k in range(len(labels)) if not contest.reasons[k]]
    places = {labels[k]: place for place, k in enumerate(ranked)}
    shown: list[tuple[int, int]] = []
    for row in own:
        if row["differs"]:
            one, other = places[row["first"]], places[row["second"]]
            shown.append((one, other) if row["difference"] > 0 else (other, one))
    found = dict(zip(ranked, ranks(len(ranked), shown), strict=True))
    shares = _rank_1_shares(contest, ranked)
    nothing = Rank(len(labels) + 1, len(labels) + 1, ())
    best_first = sorted(
        range(len(labels)), key=lambda k: (found.get(k, nothing).first, -limits.estimate[k], k)
    )
    for k in best_first:
        rank = found.get(k)
        yield {
            "figure": figure.name,
            **sets,
            "model": labels[k],
            "value": float(limits.estimate[k]),
            "low": float(np.clip(limits.low[k], 0, 1)),
            "high": float(np.clip(limits.high[k], 0, 1)),
            "rank": rank and rank.first,
            "last_rank": rank and rank.last,
            "rank_1_share": shares.get(k, np.nan),
            "n_samples": figure.n_samples,
            "n_clusters": len(figure.units),
            "tied_with": [labels[ranked[t]] for t in rank.tied_with] if rank else [],
            "reason": contest.reasons[k] or None,
        }


def _rank_1_shares(contest: _Contest, ranked: Sequence[int]) -> dict[int, float]:
    """By model; one alone is first of nothing."""
    if contest.resampled is None or len(ranked) < 2:
        return {}
    shares = rank_1_shares(contest.resampled.drawn[:, ranked])
    return {k: float(share) for k, share in zip(ranked, shares, strict=True)}


HOW = (
    "Ranks: 1 plus the number of models shown to be better (paired difference, corrected over all "
    "pairs of the set, 5 %). A range says which ranks the data leave open; models that are not "
    "shown to differ are tied and named as such."
)
"""How ties are made, in words."""


class Rank(NamedTuple):
    """One model's place among the others."""

    first: int  # best rank that the tests leave open
    last: int  # worst one
    tied_with: tuple[int, ...]  # places of the models it is not shown to differ from, in order

    @property
    def text(self) -> str:
        """``2`` or ``2-3``."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def ranks(n_models: int, shown: Sequence[tuple[int, int]]) -> list[Rank]:
    """The rank of each model.

    `shown` are pairs ``(better, worse)`` of places that are shown to differ.

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

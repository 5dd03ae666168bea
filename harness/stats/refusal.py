"""Refusal: what a model paints for things that are not in the picture, and the verdict on it.

A case asks for what is absent where its right mask is empty (see `harness.stats.pairs`). It is a
*refusal* if hardly anything is painted, else a *hallucination*, on the mask of the original prompt
(*aligned*: right place, wrong word) or *elsewhere*. Beside it stand the prompts whose target is
there: those that are painted nothing for are missed. Of both together come the correlation of
answer and truth over prompts (MCC) and its product with Dice on present targets.

Conventions: rates are shares of samples, a sample's repeats averaged first, clusters resampled in
effect: limits are Wilson's for the effective number of samples, with quantiles of Student's t for
the clusters, or for fewer where few clusters hold all refusals. Where all samples agree the
effective number is that of clusters, the least it can be, and limits are exact (Clopper and
Pearson's); those of a share near 0 or 1 are never nearer to it than these. MCC and the product have
limits by the method of variance estimates recovery, which cannot collapse where those of the rates
do not.

References:
    E. B. Wilson, J. Am. Stat. Assoc. 22:209-212, 1927. doi:10.1080/01621459.1927.10502953
    N. Dean and M. Pagano, Evaluating confidence interval methods for binomial proportions in
    clustered surveys, J. Surv. Stat. Methodol. 3:484-503, 2015. doi:10.1093/jssam/smv024
    G. Y. Zou and A. Donner, Stat. Med. 27:1693-1702, 2008. doi:10.1002/sim.3095
    N. Carion et al., SAM 3: Segment Anything with Concepts, 2025: cgF1, whose form the product has.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from harness.prompts.perturbations.absence import KINDS
from harness.stats.flips import Flip, lower, upper
from harness.stats.inference import (
    Estimate,
    Inference,
    adjust,
    estimate_of,
    p_greater,
    p_less,
)
from harness.stats.intervals import RATES, mcc, recovered, share_inference
from harness.stats.seeds import seed_error, with_seeds
from harness.stats.verdicts import ALPHA, MOST_EMPTY, blocked_because, with_limits
from harness.suite.schema import Statistics

Refusal = Literal["refuses", "hallucinates", "cannot tell", "not asked"]
Limits = tuple[float, float, float]
Row = Mapping[str, Any]

FIGURES = ("refusal_rate", "miss_rate", "false_positive_area", "aligned_share", "mcc", "dice_mcc")
"""What a summary holds of absent prompts, each with its limits."""

NOTHING = (math.nan, math.nan, math.nan)


def rates(units: pl.DataFrame, *, n_cells: int) -> dict[str, Inference]:
    """`RATES` of all cells; the miss rate beside a refusal rate, and of the originals."""
    found = {name: Inference.undefined(n_cells) for name in RATES}
    for (cell,), rows in units.group_by("cell", maintain_order=True):
        for name, columns in RATES.items():
            events, sizes = (rows[c].to_numpy() for c in columns)
            if sizes.sum() > 0:
                found[name].put(int(str(cell)), share_inference(events, sizes), 0)
    return found


def refusal_columns(rows: pl.DataFrame, solved: Mapping[str, Inference]) -> pl.DataFrame:
    """Figures of what absent prompts are answered, beside the rows of a summary."""
    found = [_figures(row, solved) for row in rows.iter_rows(named=True)]
    columns = {
        f"{name}{end}": [one[name][place] for one in found]
        for name in FIGURES
        for place, end in enumerate(("", "_low", "_high"))
    }
    aligned = np.array(columns["aligned_share"], dtype=np.float64)
    return rows.with_columns(
        *(pl.Series(name, values, dtype=pl.Float64) for name, values in columns.items()),
        pl.Series("elsewhere_share", 1 - aligned, dtype=pl.Float64),
        absent_kind=pl.col("perturbation").replace_strict(
            KINDS, default=None, return_dtype=pl.String
        ),
    )


def _figures(row: Row, solved: Mapping[str, Inference]) -> dict[str, Limits]:
    """Each figure with its limits."""
    cell = row["cell"]
    refused, missed = (_clipped(_limits(solved, name, cell), 0) for name in RATES)
    painted, aligned = (_limits(solved, name, cell) for name in ("false_positive", "aligned"))
    dice = _limits(solved, "present_dice", cell)
    counts = row["n_samples_refusal"] or 0, row["n_samples_present"] or 0

    def correlation(refused: float, missed: float) -> float:
        return mcc(refused, missed, *counts)

    parts, signs = [refused, missed], [1, -1]
    both = product = NOTHING
    if all(counts):
        both = _clipped(recovered(correlation, parts, signs), -1)
        product = _clipped(
            recovered(lambda r, m, d: correlation(r, m) * d, [*parts, dice], [*signs, 1]), -1
        )
    return {
        "refusal_rate": refused,
        "miss_rate": missed,
        "false_positive_area": _clipped(painted, 0),
        "aligned_share": _clipped(aligned, 0),
        "mcc": both,
        "dice_mcc": product,
    }


def _limits(solved: Mapping[str, Inference], name: str, cell: int) -> Limits:
    one = solved[name].intervals
    return float(one.estimate[cell]), float(one.low[cell]), float(one.high[cell])


def _clipped(limits: Limits, low: float) -> Limits:
    """Within the possible; limits that have collapsed, for want of any variance, are not known."""
    if limits[1] == limits[2]:
        return limits[0], math.nan, math.nan
    value, below, above = (min(max(v, low), 1.0) if math.isfinite(v) else v for v in limits)
    return value, below, above


@dataclass(frozen=True, slots=True)
class Asked:
    """What one probe for absent things is answered.

    Attributes:
        split: Annotation file.
        probe: Name in the suite; ``original`` where the own mask is empty.
        kind: Of absent thing, one of `KINDS`; empty where the probe mixes them.
        rate: Refusal rate with 95 % limits.
        area: Share of the picture that is painted, with 95 % limits.
        aligned: Share of that on the mask of the original prompt.
        n_samples: Behind the rate.
        n_clusters: Behind the rate.
        is_below: Whether the rate is shown to be below the verdict's bound.
    """

    split: str
    probe: str
    kind: str
    rate: Limits
    area: Limits
    aligned: float
    n_samples: int
    n_clusters: int
    is_below: bool = False


def asked_from(record: Mapping[str, Any]) -> Asked:
    """The evidence of a record that was read from a run directory."""
    known = {k: v for k, v in record.items() if k in Asked.__slots__}
    known |= {k: limits_from(known[k]) for k in ("rate", "area")}
    known["aligned"] = math.nan if known.get("aligned") is None else known["aligned"]
    return Asked(**known)


def limits_from(values: Sequence[float | None]) -> Limits:
    """A figure with its limits as JSON has them: what is None is undefined."""
    value, low, high = (math.nan if v is None else v for v in values)
    return value, low, high


class Judged(NamedTuple):
    """The verdict on refusal with what it rests on, and its curve over bounds."""

    refusal: Refusal = "not asked"
    refusal_reason: str = ""
    refusal_rate: Limits = NOTHING
    miss_rate: Limits = NOTHING
    refusals: tuple[Asked, ...] = ()
    flip: Flip | None = None

    def fields(self) -> dict[str, Any]:
        """Those of a `LanguageVerdict`; its curve stands among the others."""
        found = self._asdict()
        del found["flip"]
        return found


def judge_refusal(
    rows: Sequence[Row],
    solved: Mapping[str, Inference],
    units: pl.DataFrame,
    settings: Statistics,
    *,
    by_seed: pl.DataFrame | None = None,
) -> Judged:
    """Decide whether a model refuses what is not there, over all probes of one data set.

    It *hallucinates* where the rate over all probes, or over one of them, is shown to be below
    the bound (Holm-adjusted); it *refuses* where the rate over all is shown to be above it.
    """
    own = [r for r in rows if r["n_samples_refusal"] and asks_absent(r)]
    if not own:
        return Judged()
    bound = settings.least_refusal
    originals = [r["cell"] for r in rows if r["probe"] == "original"]
    whole, n_clusters = _pooled(units, by_seed, [r["cell"] for r in own], "refusal_rate")
    missed, _ = _pooled(units, by_seed, originals, "miss_rate")
    blocked = why_no_refusal(n_clusters, missed.value, settings)
    tests = [whole, *(estimate_of(solved["refusal_rate"], r["cell"]) for r in own)]
    enough = [True, *(r["n_clusters_refusal"] >= settings.minimum_clusters for r in own)]
    p_values = [
        min(1.0, 2 * p_less(t, bound)) if ok and not blocked else 1.0
        for t, ok in zip(tests, enough, strict=True)
    ]
    below = [p <= ALPHA for p in adjust(p_values, "holm")]
    verdict: Refusal = "cannot tell"
    if any(below):
        verdict = "hallucinates"
    elif not blocked and 2 * p_greater(whole, bound) <= ALPHA:
        verdict = "refuses"
    evidence = tuple(_asked(r, is_below) for r, is_below in zip(own, below[1:], strict=True))
    limits, misses = (_clipped((e.value, e.low, e.high), 0) for e in (whole, missed))
    reason = _reason(verdict, limits, evidence, blocked, is_below=below[0])
    flip = (
        None
        if blocked
        else _flip(whole, [t for t, ok in zip(tests, enough, strict=True) if ok], len(tests), bound)
    )
    return Judged(verdict, reason, limits, misses, evidence, flip)


def _flip(whole: Estimate, tests: Sequence[Estimate], size: int, bound: float) -> Flip:
    """Over bounds: one test below, among `size`, says that it hallucinates."""
    half = np.array([ALPHA / 2])
    first = min(float(upper(t, half / size)[0]) for t in tests)
    low_to, high_from = max(float(lower(whole, half)[0]), 0.0), first if first < 1 else math.inf
    ends = "refuses", min(low_to, high_from), "hallucinates", high_from
    return Flip("refusal", "fraction", bound, *ends)


def asks_absent(row: Row) -> bool:
    """Whether a row's probe, or a slice without a target, asks for what is not there."""
    return row["probe"] == "original" or is_absent(row["expected_mask"])


def is_absent(expected_mask: str | None) -> bool:
    """Whether the right mask of a probe's cases, or of some of them, is empty by the plan."""
    return "empty" in (expected_mask or "").split("+")


def _pooled(
    units: pl.DataFrame, by_seed: pl.DataFrame | None, cells: Sequence[int], rate: str
) -> tuple[Estimate, int]:
    """One rate over several cells, and its clusters."""
    columns = RATES[rate]
    chosen = pl.col("cell").is_in(cells)
    sums = units.filter(chosen).group_by("unit").agg(pl.col(columns).sum()).sort("unit")
    found = share_inference(*(sums[c].to_numpy() for c in columns))
    own = None if by_seed is None else by_seed.filter(chosen)
    if own is not None and own.height:
        seeds = own.group_by("seed").agg(pl.col(columns).sum()).sort("seed")
        error = seed_error(*(seeds[c].to_numpy() for c in columns))
        found = with_seeds(found, np.array([error]), np.array([seeds.height]))
    return estimate_of(found, 0), int((sums[columns[1]] > 0).sum())


def why_no_refusal(n_clusters: int, missed: float, settings: Statistics) -> str:
    """Why no verdict on refusal is allowed; empty where one is."""
    if missed > MOST_EMPTY:
        return (
            f"No verdict: nothing is painted for {100 * missed:.0f} % of the prompts whose target "
            f"is there, and at most {100 * MOST_EMPTY:.0f} % are allowed."
        )
    return blocked_because(n_clusters=n_clusters, needed=settings.minimum_clusters)


def _asked(row: Row, is_below: bool) -> Asked:
    rate, area = (
        tuple(row[f"{name}{end}"] for end in ("", "_low", "_high"))
        for name in ("refusal_rate", "false_positive_area")
    )
    return Asked(
        split=row["split"],
        probe=row["probe"],
        kind=row["absent_kind"] or "",
        rate=rate,
        area=area,
        aligned=row["aligned_share"],
        n_samples=row["n_samples_refusal"],
        n_clusters=row["n_clusters_refusal"],
        is_below=is_below,
    )


def _reason(
    verdict: Refusal, rate: Limits, evidence: Sequence[Asked], blocked: str, *, is_below: bool
) -> str:
    """The verdict in half a sentence."""
    figure = f"refusal rate {with_limits(*rate, 'refusal_rate')}"
    if verdict == "refuses":
        return f"it refuses what is not there ({figure})"
    if verdict == "hallucinates":
        if is_below:
            return f"it hallucinates what is not there ({figure})"
        where = "; ".join(
            f"{one.kind or one.probe} {with_limits(*one.rate, 'refusal_rate')}"
            for one in evidence
            if one.is_below
        )
        return f"it hallucinates some of what is not there ({where}; in all {figure})"
    why = blocked.removeprefix("No verdict: ").rstrip(".")
    figure += f"; {why}" if why else ""
    return f"whether it refuses what is not there is undecided ({figure})"

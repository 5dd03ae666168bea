"""Decides every expectation of a run.

Conventions: see `harness.stats.verdicts`. Families for the correction are (model, dataset,
kind of expectation); what allows no verdict is in none.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from harness.stats.columns import TOO_LOW
from harness.stats.flips import beyond_to, lower, upper, within_from
from harness.stats.inference import (
    Adjusted,
    Decision,
    Estimate,
    Inference,
    adjust_families,
    deciding_test,
    estimate_of,
    level_among,
)
from harness.stats.power import degrees_of_freedom, smallest_effect
from harness.stats.refusal import is_absent, why_no_refusal
from harness.stats.verdicts import ALPHA, Outcome, Verdict, blocked_because, reason_of
from harness.suite.expectations import Correction, Expectation, Figure, binding, expected
from harness.suite.schema import Statistics, Suite

Row = Mapping[str, Any]
_QUANTITY: Mapping[Figure, str] = {
    "relative_change": "relative",
    "points": "points",
    "dice": "dice",
    "agreement": "agreement",
    "named_gain": "named_gain",
    "refusal_rate": "refusal_rate",
}
_CLUSTERS: Mapping[str, str] = {
    "named_gain": "n_clusters_named",
    "refusal_rate": "n_clusters_refusal",
}
_SAMPLES: Mapping[str, str] = {
    "agreement": "n_samples_agreement",
    "named_gain": "n_samples_named",
    "refusal_rate": "n_samples_refusal",
}
_SCALE: Mapping[Figure, tuple[float, float]] = {
    "relative_change": (100.0, 1.0),
    "points": (100.0, 0.0),
    "dice": (1.0, 0.0),
    "agreement": (1.0, 0.0),
    "named_gain": (100.0, 0.0),
    "refusal_rate": (1.0, 0.0),
}


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One expectation on one row, before its family is known."""

    row: Row
    expectation: Expectation
    binding: bool
    found: Estimate
    decision: Decision | None
    blocked: str

    @property
    def family(self) -> tuple[str, str, str]:
        return self.row["model_id"], self.row["dataset"], self.expectation.kind


def figure_of(solved: Mapping[str, Inference], cell: int, figure: Figure) -> Estimate:
    """A cell's figure in the unit of its expectations."""
    scale, offset = _SCALE[figure]
    return estimate_of(solved[_QUANTITY[figure]], cell).scaled(scale, offset=offset)


def decide_verdicts(
    rows: pl.DataFrame, solved: Mapping[str, Inference], *, suite: Suite
) -> list[Verdict]:
    """A verdict for each expectation of each row that holds a case.

    Originals and rows away from training are skipped.
    """
    candidates = list(_candidates(rows, solved, suite))
    rule = suite.statistics.correction
    tests = [(one.family, one.decision.p_value if one.decision else math.nan) for one in candidates]
    adjusted = adjust_families(tests, rule)
    return [_verdict(one, own, rule) for one, own in zip(candidates, adjusted, strict=True)]


def _candidates(
    rows: pl.DataFrame, solved: Mapping[str, Inference], suite: Suite
) -> Iterator[_Candidate]:
    stated = {probe.name: probe.expect for probe in suite.probes}
    settings = suite.statistics
    for row in rows.filter(pl.col("n_cases") > 0).iter_rows(named=True):
        said = stated.get(row["probe"])
        for expectation in expected(
            said,
            row["meaning"],
            margins=settings.margins,
            absent=is_absent(row["expected_mask"]),
            least_refusal=settings.least_refusal,
        ):
            found = figure_of(solved, row["cell"], expectation.of)
            blocked = why_blocked(row, expectation.of, found, settings)
            decision = None
            if not blocked:
                decision = deciding_test(found, expectation.accepted, expectation.kind)
            yield _Candidate(
                row, expectation, binding(said, row["meaning"]), found, decision, blocked
            )


def why_blocked(row: Row, figure: Figure, found: Estimate, settings: Statistics) -> str:
    """Why there may be no verdict; empty where there may."""
    reason = row["reason"]
    if reason and (not reason.startswith(TOO_LOW) or figure == "relative_change"):
        return blocked_because(reason)
    if figure == "refusal_rate":
        return why_no_refusal(row["n_clusters_refusal"] or 0, row["miss_rate"], settings)
    return blocked_because(
        n_clusters=row[_CLUSTERS.get(figure, "n_clusters")],
        needed=settings.minimum_clusters,
        empty_share=row["originals_empty_share"],
        named=figure == "named_gain",
        defined=math.isfinite(found.error),
    )


def _verdict(one: _Candidate, adjusted: Adjusted, rule: Correction) -> Verdict:
    """The record of one candidate, given the p-values of its family."""
    bare = _bare(one)
    if one.decision is None:
        return bare
    level = level_among(adjusted.others, rule, ALPHA)
    outcome: Outcome = one.decision.outcome if adjusted.p_value <= ALPHA else "inconclusive"
    holds_at, fails_at = _edges(one.found, one.expectation, level)
    verdict = replace(
        bare,
        verdict=outcome,
        test=one.decision.name,
        p_value=one.decision.p_value,
        p_adjusted=adjusted.p_value,
        n_family=len(adjusted.family),
        flips_at=fails_at if outcome == "fails" else holds_at,
        holds_at=holds_at,
        fails_at=fails_at,
    )
    return replace(verdict, reason=reason_of(verdict, alpha=ALPHA))


def _bare(one: _Candidate) -> Verdict:
    """The record without a test."""
    row, found, of = one.row, one.found, one.expectation.of
    low, high = one.expectation.accepted
    n_clusters = row[_CLUSTERS.get(of, "n_clusters")]
    freedom = degrees_of_freedom(
        found.error,
        found.word_error,
        n_clusters=n_clusters or 0,
        n_words=row["n_words"] or 0,
        seed_error=found.seed_error,
        n_seeds=row["n_seeds"] or 0,
    )
    names = ("model_id", "model", "dataset", "split", "prompts", "prompt_type", "probe")
    none_seen = row["catastrophic_share"] == 0
    return Verdict(
        **{k: row[k] for k in (*names, "attribute", "perturbation", "meaning")},
        kind=one.expectation.kind,
        of=of,
        accepted_low=low,
        accepted_high=high,
        binding=one.binding,
        verdict="inconclusive",
        reason=one.blocked,
        estimate=found.value,
        low=found.low,
        high=found.high,
        low90=found.low90,
        high90=found.high90,
        standard_error=found.error,
        smallest_effect=float(smallest_effect(found.error, freedom)),
        unseen_share=row["catastrophic_share_high"] if none_seen else math.nan,
        n_samples=row[_SAMPLES.get(of, "n_samples")] or 0,
        n_clusters=n_clusters or 0,
        for_these_words_only="for these words only" in row["notes"],
    )


def _edges(found: Estimate, expectation: Expectation, level: float) -> tuple[float, float]:
    """The margins or bounds at which an expectation begins to hold, and to fail.

    `level` is the p-value that is still significant beside the others of the family.
    """
    whole = np.array([level])
    half = whole / 2 if found.error > 0 else whole  # without any variance nothing is doubled
    if expectation.kind == "invariance":
        return float(within_from(found, whole)[0]), float(beyond_to(found, half)[0])
    # A bound from above is met from the upper limit on, and missed up to the lower one.
    high, low = float(upper(found, half)[0]), float(lower(found, half)[0])
    is_upper = math.isinf(expectation.accepted[0])
    return (high, low) if is_upper else (low, high)

"""Whether what a submission claims follows from its counts.

Conventions: figures are compared to `TOLERANCE` of their size, since sums round differently on
different machines; texts and counts must be equal. Rows are known by `CLAIM_KEYS`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from harness.leaderboard.reasons import quoted, reason
from harness.leaderboard.submission import CLAIM_KEYS, CLAIMS, COUNTS, TEXTS, distinct_pairs
from harness.leaderboard.tracks import SAMPLE, TRUTH_SCHEMA, Reference, truth_sha256
from harness.runs.store import DONE, SCORE_SCHEMA
from harness.stats.assessment import Assessment, assess
from harness.stats.pairs import ModelFacts

TOLERANCE = 1e-6


def recompute(
    scores: pl.DataFrame, texts: pl.DataFrame, reference: Reference, model: ModelFacts
) -> Assessment:
    """Assess a submission's counts; `texts` stand in the order of `distinct_pairs`."""
    done = scores.select("case_id", *COUNTS, "height", "width").with_columns(
        model_id=pl.lit(model.model_id), status=pl.lit(DONE)
    )
    blank = [pl.lit(None).alias(c) for c in SCORE_SCHEMA if c not in done.columns]
    pairs = distinct_pairs(reference.plan.cases)
    table = pl.concat([pairs, texts.select(TEXTS.names())], how="horizontal")
    return assess(
        reference.plan.cases,
        done.with_columns(blank).select(SCORE_SCHEMA.names()).cast(SCORE_SCHEMA),
        models=[model],
        not_applicable=reference.plan.not_applicable,
        suite=reference.suite,
        cluster_kinds=reference.cluster_kinds,
        texts=table.with_columns(model_id=pl.lit(model.model_id)),
    )


def select_claims(assessment: Assessment) -> pl.DataFrame:
    """The part of a summary that a submission claims; rows have `CLAIMS`."""
    return assessment.summary.select(CLAIMS.names()).cast(CLAIMS)


def claim_reasons(claimed: pl.DataFrame, assessment: Assessment) -> Iterator[str]:
    """Where ``summary.parquet`` differs from what follows from the counts."""
    repair = "Submit the run again: `vlsm-harness submit RUN`"
    mine = {row[: len(CLAIM_KEYS)]: row for row in select_claims(assessment).iter_rows()}
    theirs: dict[tuple[object, ...], tuple[object, ...]] = {}
    for row in claimed.select(CLAIMS.names()).iter_rows():
        key = row[: len(CLAIM_KEYS)]
        if key in theirs:
            yield reason(_where(key), "the row stands twice", "A row stands once", repair)
        theirs[key] = row
    for key in theirs.keys() - mine.keys():
        yield reason(
            _where(key), "a row of no probe of the track", "Only its rows stand there", repair
        )
    for key, row in mine.items():
        if key not in theirs:
            yield reason(_where(key), "the row is missing", "Every row is claimed", repair)
            continue
        for name, right, claim in zip(CLAIMS, row, theirs[key], strict=True):
            if not _equal(claim, right):
                found_text = f"{name} is {quoted(claim)}"
                yield reason(
                    _where(key), found_text, f"From the counts follows {quoted(right)}", repair
                )


def _where(key: tuple[object, ...]) -> str:
    return "summary.parquet: " + "/".join(quoted(part)[1:-1] for part in key if part is not None)


def _equal(claim: object, right: object) -> bool:
    if isinstance(claim, float) and isinstance(right, float):
        if math.isnan(claim) or math.isnan(right):
            return math.isnan(claim) and math.isnan(right)
        return math.isclose(claim, right, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return claim == right


def truth_reasons(truth: pl.DataFrame, reference: Reference) -> Iterator[str]:
    """Where ``truth.parquet`` of a submission is not the track's truth."""
    repair = "Take the track's data as they are, and run again"
    if truth_sha256(truth) == truth_sha256(reference.truth):
        return
    key = list(SAMPLE)
    both = truth.join(
        reference.truth, on=key, how="full", suffix="_right", nulls_equal=True, coalesce=True
    )
    columns = [c for c in TRUTH_SCHEMA if c not in key]
    wrong = both.filter(
        pl.any_horizontal(pl.col(c).ne_missing(pl.col(f"{c}_right")) for c in columns)
    ).sort(key)
    if wrong.height == 0:
        yield reason("truth.parquet", "a sample stands twice", "It stands there once", repair)
        return
    first = wrong.row(0, named=True)
    names = "/".join(quoted(first[part])[1:-1] for part in key)
    yield reason(
        f"truth.parquet: {names}",
        f"{_listed(first, columns)} ({wrong.height} samples differ)",
        f"The track has {_listed(first, columns, '_right')}",
        repair,
    )


def _listed(row: Mapping[str, object], columns: Sequence[str], suffix: str = "") -> str:
    return ", ".join(f"{name} {row[name + suffix]}" for name in columns)

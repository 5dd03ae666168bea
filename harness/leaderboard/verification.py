"""Verifies a submission: everything it says is recomputed, and every contradiction reported.

Taken on trust is only that the counts are those of the named model, which a spot check tries. No
model is loaded and torch is not imported. No reason to refuse means accepted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from harness.cards import load_model_card, model_names
from harness.errors import HarnessError, nearest
from harness.leaderboard.claims import claim_reasons, recompute, truth_reasons
from harness.leaderboard.counts import (
    case_reasons,
    control_reasons,
    count_reasons,
    join_counts,
    text_reasons,
)
from harness.leaderboard.reading import (
    Reasons,
    read_facts,
    read_files,
    read_submission,
    read_tables,
)
from harness.leaderboard.reasons import quoted, reason
from harness.leaderboard.submission import (
    WITH_THE_HARNESS,
    RunFacts,
    Submission,
    digest,
    distinct_pairs,
)
from harness.leaderboard.tracks import Reference, Track, load_track, track_names
from harness.metrics import signature
from harness.stats.assessment import Assessment
from harness.stats.pairs import ModelFacts

MOST_CLAIMS = 100_000
"""Rows of a summary that are read."""


@dataclass(frozen=True)
class OpenedSubmission:
    """A submission whose files were read, by name; None stands for what could not be read.

    `digest` is a hash of all files, `reasons` what is wrong so far.
    """

    folder: Path
    files: dict[str, bytes]
    digest: str
    submission: Submission | None
    facts: RunFacts | None
    track: Track | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Accepted:
    """An accepted submission: its statements, its counts, and the statistics of these counts."""

    submission: Submission
    facts: RunFacts
    scores: pl.DataFrame
    assessment: Assessment


@dataclass(frozen=True)
class Verification:
    """The outcome: `accepted`, or the reasons why the submission is refused."""

    opened: OpenedSubmission
    reasons: tuple[str, ...]
    accepted: Accepted | None = None


def open_submission(folder: Path) -> OpenedSubmission:
    """Read a submission's folder; nothing is compared with a track yet."""
    reasons: Reasons = []
    files = read_files(folder, reasons)
    submission = track = facts = None
    if "submission.yaml" in files:
        submission = read_submission(files["submission.yaml"], reasons)
    if "run.json" in files:
        facts = read_facts(files["run.json"], reasons)
    if submission is not None:
        track = _track(submission, reasons)
    return OpenedSubmission(folder, files, digest(files), submission, facts, track, tuple(reasons))


def _track(submission: Submission, reasons: Reasons) -> Track | None:
    if submission.track in track_names():
        return load_track(submission.track)
    known = ", ".join(map(repr, track_names()))
    near = nearest(submission.track, track_names())
    reasons.append(
        f"submission.yaml: track: unknown track {quoted(submission.track)}.{near} Known tracks: "
        f"{known}. Name the track that was run."
    )
    return None


def verify(opened: OpenedSubmission, reference: Reference) -> Verification:
    """Check a submission against its track."""
    reasons = list(opened.reasons)
    submission, facts, cases = opened.submission, opened.facts, reference.plan.cases
    if facts is not None:
        reasons += _fact_reasons(facts, reference)
    if submission is not None and facts is not None:
        reasons += _agreement_reasons(submission, facts)
    most_rows = {
        "scores.parquet": 2 * cases.height,
        "texts.parquet": distinct_pairs(cases).height,
        "truth.parquet": 2 * reference.truth.height,
        "summary.parquet": MOST_CLAIMS,
    }
    tables = read_tables(opened.files, most_rows, reasons)
    reasons += _table_reasons(tables, reference, submission)
    complete = len(tables) == 4 and submission is not None and facts is not None
    if reasons or not complete or submission is None or facts is None:
        return Verification(opened, tuple(reasons))
    model = ModelFacts(
        model_id=facts.model_id,
        name=submission.name,
        trained_on=tuple(submission.trained_on),
        control=submission.control,
        threshold=facts.threshold,
    )
    scores = tables["scores.parquet"]
    assessment = recompute(scores, tables["texts.parquet"], reference, model)
    wrong = tuple(claim_reasons(tables["summary.parquet"], assessment))
    accepted = None if wrong else Accepted(submission, facts, scores, assessment)
    return Verification(opened, wrong, accepted)


def _fact_reasons(facts: RunFacts, reference: Reference) -> Iterator[str]:
    track, plan = reference.track, reference.plan.sha256
    repair = f"Run it: `vlsm-harness run {track.suite}`, without --limit, --seed or --datasets"
    if facts.plan_sha256 != plan:
        right = f"The track {track.name!r} has the plan {plan}"
        yield reason("run.json: plan_sha256", f"another plan, {facts.plan_sha256}", right, repair)
    wanted = signature(reference.suite.metric, facts.threshold)
    if facts.signature != wanted:
        right = f"The track scores with {wanted!r} at this threshold"
        yield reason("run.json: signature", quoted(facts.signature), right, repair)
    if facts.weights_sha256 is None:
        yield reason(
            "run.json: weights_sha256",
            "no weights",
            "A row is of a model that was trained",
            "Run the model with its weights, without --random-weights",
        )


def _agreement_reasons(submission: Submission, facts: RunFacts) -> Iterator[str]:
    repair = "Make the folder anew with `vlsm-harness submit RUN`"
    if facts.weights_sha256 not in (None, submission.weights.sha256):
        found = f"{submission.weights.sha256} where run.json has {facts.weights_sha256}"
        right = "Both name the file that was run"
        yield reason("submission.yaml: weights.sha256", found, right, repair)
    if facts.model_id.partition("@")[0] != submission.name:
        found = f"{quoted(submission.name)} where run.json is of {quoted(facts.model_id)}"
        yield reason("submission.yaml: name", found, "Both name one model", repair)
    if WITH_THE_HARNESS in (submission.code, submission.weights.address):
        yield from _shipped_reasons(submission)


def _shipped_reasons(submission: Submission) -> Iterator[str]:
    """Whether what is said to ship with the harness does."""
    where, repair = "submission.yaml: weights", "Give the address where they are available"
    if submission.name not in model_names():
        found = f"no model {quoted(submission.name)} ships with the harness"
        yield reason(where, found, "Code and weights are available to others", repair)
        return
    try:
        card = load_model_card(submission.name).card
    except HarnessError as problem:
        yield reason(where, quoted(problem), "Its card can be read", repair)
        return
    shipped = card.checkpoint.sha256 if card.checkpoint else None
    if shipped != submission.weights.sha256:
        found = f"{submission.weights.sha256} where the card has {shipped}"
        yield reason(f"{where}.sha256", found, "Both name the file that ships", repair)


def _table_reasons(
    tables: dict[str, pl.DataFrame], reference: Reference, submission: Submission | None
) -> Iterator[str]:
    """What is wrong with truth, cases, counts and texts, as far as they could be read."""
    cases = reference.plan.cases
    if "truth.parquet" in tables:
        yield from truth_reasons(tables["truth.parquet"], reference)
    if "scores.parquet" not in tables:
        return
    scores = tables["scores.parquet"]
    yield from case_reasons(cases, scores)
    once = scores.unique("case_id", keep="first", maintain_order=True)
    rows = join_counts(cases, once, reference.truth)
    yield from count_reasons(rows)
    if submission is not None and submission.control:
        yield from control_reasons(rows)
    if "texts.parquet" in tables:
        yield from text_reasons(cases, tables["texts.parquet"], rows)

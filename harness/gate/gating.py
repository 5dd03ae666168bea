"""The gate: a run, its suite's rules, a baseline; every check and the exit code.

Conventions: see `harness.gate.checks` for states and results. Everything is recomputed from the
counts of the run under the suite that is locked in it; no model is loaded.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import UsageError
from harness.gate.absolute import absolute_checks
from harness.gate.against import comparisons, is_by_case, pairing
from harness.gate.audited import Audited, Identity, read_run
from harness.gate.baseline import (
    Baseline,
    Drift,
    drift_between,
    read_file,
    refuse_drift,
    refuse_other_signatures,
)
from harness.gate.checks import (
    INCOMPLETE,
    Check,
    Result,
    Severity,
    exit_code,
    ordered,
    result_of,
)
from harness.runs.store import RunStore
from harness.stats.coding import MOST_UNITS
from harness.stats.relative import SUM_KEYS

GATE_VERSION = 1
"""Raised whenever a field of the JSON changes its name or meaning."""

_PLAIN = Severity()
_CASE = (*SUM_KEYS, "sample_id", "prompt_index", "variant_type", "repeat", "word")


@dataclass(frozen=True, slots=True)
class Gated:
    """What the gate says of a run: every check, failures first, and the exit code.

    `baseline` is None and `pairing`, a sentence on how the two were paired, empty without one.
    """

    title: str
    identity: Identity
    baseline: Identity | None
    pairing: str
    checks: tuple[Check, ...]
    code: int

    def of(self, result: Result, *, known: bool | None = None) -> tuple[Check, ...]:
        """The checks with a result, known to the baseline or not."""
        return tuple(c for c in self.checks if c.result == result and known in (None, c.known))

    @property
    def verdict(self) -> str:
        """One sentence on all checks."""
        words = {0: "good", 1: "failed", 3: "incomplete"}
        n_new, n_known = len(self.of("failed", known=False)), len(self.of("failed", known=True))
        parts = [f"{len(self.of('passed'))} passed", f"{n_new + n_known} failed"]
        if self.baseline is not None:
            parts[-1] += f" ({n_new} new, {n_known} known)"
        parts += [f"{len(self.of('incomplete'))} incomplete", f"{len(self.of('warning'))} warnings"]
        what = words[self.code]
        decided = {c.result for c in self.checks if c.rule != "completeness"}
        if self.code == INCOMPLETE and not decided & {"passed", "failed"}:
            what += ", since nothing could be decided"
        return f"{what}: {', '.join(parts)} of {len(self.checks)} checks"

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "version": GATE_VERSION,
            "exit_code": self.code,
            "verdict": self.verdict,
            "model": self.identity.model,
            "model_id": self.identity.model_id,
            "plan_sha256": self.identity.plan_sha256,
            "signature": {"metric": self.identity.metric, "verdict": self.identity.verdict},
            "baseline": self.baseline and self.baseline.model_id,
            "pairing": self.pairing,
            "checks": [check.record() for check in self.checks],
        }


def check_run(
    run: Audited,
    baseline: Baseline | None = None,
    *,
    severity: Severity = _PLAIN,
    allow_drift: bool = False,
    where: str = "baseline",
) -> Gated:
    """Check a run against its suite's rules and a baseline, which errors call `where`.

    Prompts that drifted are refused; with `allow_drift` what is common to both is compared.
    """
    checks, paired_by = absolute_checks(run), ""
    if baseline is not None:
        _refuse_recipe(run)
        refuse_other_signatures(run.identity, baseline.identity, where=where)
        if run.limit is None:
            against, paired_by = _against(run, baseline, allow_drift=allow_drift, where=where)
            checks += against
        else:
            paired_by = "not compared: the run was cut with --limit, its plan is another"
        checks = [replace(c, known=c.key in baseline.failures) for c in checks]
    final = [replace(c, result=result_of(c, severity)) for c in checks]
    return Gated(
        title=run.suite.title,
        identity=run.identity,
        baseline=baseline.identity if baseline else None,
        pairing=paired_by,
        checks=tuple(ordered(final)),
        code=exit_code(final),
    )


def as_baseline(run: Audited) -> Baseline:
    """A run as what others are compared with, and the suite's own rules that it fails.

    Raises:
        UsageError: It is of a recipe.
    """
    _refuse_recipe(run)
    failures = {check.key for check in absolute_checks(run) if check.state == "fails"}
    return Baseline(run.identity, run.cells, run.sums, tuple(sorted(failures)), run)


def _refuse_recipe(run: Audited) -> None:
    """A baseline holds clusters and no seeds, so that no difference would know what they vary."""
    if run.seeds:
        raise UsageError(
            f"{run.folder}: {run.identity.model!r} is a recipe. Against a baseline stands one "
            "model: what training seeds vary would be in no difference. Check the recipe by the "
            "suite's rules alone, without --baseline and --update; or gate one of its seeds: "
            f"--model {run.seeds[0]}."
        )


def baseline_at(path: Path, *, run: Audited) -> Baseline:
    """A baseline from a run directory or a file that the gate wrote.

    The rules of `run`, the new model, say what a run at `path` fails; where that holds several
    models, the one of the same name is meant.
    """
    if not path.is_dir():
        return read_file(path)
    try:
        found = read_run(path)
    except UsageError:
        found = read_run(path, model=run.identity.model)
    if found.limit is not None or found.n_done < found.n_planned:
        raise UsageError(
            f"{path}: a baseline of {found.n_done} of {found.n_planned} cases"
            f"{'' if found.limit is None else f', cut with --limit {found.limit}'}. A baseline is "
            "whole. Continue that run with the command that began it, without --limit."
        )
    # Its own suite fixes what its numbers mean, the new run's what is asked of them.
    rules = {"gate": run.suite.gate, "probes": run.suite.probes}
    ruled = replace(found, suite=found.suite.model_copy(update=rules))
    return as_baseline(ruled)


def _against(
    run: Audited, baseline: Baseline, *, allow_drift: bool, where: str
) -> tuple[list[Check], str]:
    drift = drift_between(
        run.identity, baseline.identity, new_cells=run.cells, old_cells=baseline.cells
    )
    if not allow_drift:
        refuse_drift(drift, where=where, example=_example(run, baseline, drift))
    if drift.kind == "drift":
        _refuse_pools(run, where=where)
    found = comparisons(run, baseline, drift)
    paired_by = pairing(drift, by_case=is_by_case(baseline, drift))
    if run.has_answers:
        paired_by += "; what several answers to a case vary is in no difference"
    now, before = run.identity.backend, baseline.identity.backend
    if now and before and now != before:
        paired_by += (
            f"; the baseline was computed by {before}, this run by {now}: pixels near the "
            "threshold may differ for that"
        )
    if found.n_lost:
        paired_by += f"; up to {found.n_lost} clusters are in one of the two alone and left out"
    return found.checks, paired_by


def _refuse_pools(run: Audited, *, where: str) -> None:
    """Clusters that were pooled by the names in their set cannot be found again in another set."""
    sizes = run.estimates.pairs.plan.units.group_by("dataset", "split").len()
    if (sizes["len"] >= MOST_UNITS).any():
        raise UsageError(
            f"{where}: prompts drifted, and a set has more than {MOST_UNITS} clusters, which are "
            "resampled in pools. Pools of two plans are paired where the plans are of one design. "
            "Write the baseline anew with the model it stands for."
        )


def _example(run: Audited, baseline: Baseline, drift: Drift) -> str:
    """A prompt that changed though its case did not, where both runs are there to look into."""
    if baseline.run is None or drift.kind != "drift":
        return ""
    new, old = (
        RunStore(one.folder).plan_scan().select(*_CASE, "prompt", "original_prompt")
        for one in (run, baseline.run)
    )
    other = pl.col("prompt") != pl.col("prompt_old")
    changed = new.join(old, on=_CASE, suffix="_old", nulls_equal=True).filter(other)
    first = changed.sort(*_CASE).head(1).collect()
    if first.is_empty():
        return ""
    n_changed = changed.select(pl.len()).collect().item()
    row = first.row(0, named=True)
    return (
        f" {n_changed} cases have the same key and another prompt; the first, {row['probe']} of "
        f"{row['dataset']}/{row['split']}/{row['sample_id']}, was {row['prompt_old']!r} and is "
        f"{row['prompt']!r}."
    )

"""A run directory as the gate reads it: one model, its figures, and what its plan was made of.

Conventions: nothing here loads a model. The *design* of a plan is everything that it was made
of but its seed; plans of one design and another seed are two draws of the same question.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import RunError, UsageError, choose
from harness.files.canonical import canonical
from harness.metrics import combined_rule, signature
from harness.plan.repeats import answer_step
from harness.runs.store import DONE, RunStore
from harness.stats.assessment import signature_of
from harness.stats.estimate import Estimates, estimate
from harness.stats.pairs import ModelFacts, assessed, models_of
from harness.stats.relative import SUM_KEYS, named_sums
from harness.suite.schema import Suite

_DRAWN = ("seed", "words")
_SHORT = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """What two runs must share to be compared, and what tells them apart.

    `design` holds short hashes of what the plan was made of; `metric` and `verdict` are signatures;
    `backend` computed the model, empty where nobody knows.
    """

    model: str
    model_id: str
    plan_sha256: str
    seed: int
    design: Mapping[str, str]
    metric: str
    verdict: str
    backend: str = ""


@dataclass(frozen=True, slots=True)
class Audited:
    """One model of a run with its rules and figures; `limit`: images per dataset, None for all.

    `cells` has `SUM_KEYS`, ``meaning``, ``cases`` (a hash of the row's cases), ``word_error`` (the
    words' part of the relative change's standard error, percent) and ``n_words``; `sums` are of
    `harness.stats.relative.named_sums`; `seeds` are the checkpoints of a recipe.
    """

    folder: Path
    identity: Identity
    suite: Suite
    estimates: Estimates
    cells: pl.DataFrame
    sums: pl.DataFrame
    limit: int | None
    n_planned: int
    n_done: int
    seeds: tuple[str, ...] = ()
    has_answers: bool = False


def read_run(folder: Path, *, model: str | None = None, suite: Suite | None = None) -> Audited:
    """Read one model or recipe of a run directory; the rules are `suite`'s, else the run's own.

    `model` is a name or id; None where the run has only one that is no control.
    """
    store = RunStore(folder)
    manifest = store.manifest
    if not manifest:
        raise UsageError(
            f"{folder}: no run.json here. A run directory is needed. Give the folder that "
            "`vlsm-harness run` printed."
        )
    facts = _chosen(folder, manifest, model)
    rules = suite or store.suite()
    found = estimate(
        store.plan_scan(),
        store.scores_scan(),
        models=[facts],
        suite=rules,
        cluster_kinds=manifest.get("cluster_kinds", {}),
        texts=store.texts(),
    )
    own = pl.col("model_id").is_in(facts.seeds or [facts.model_id])
    done = pl.col("status") == DONE
    n_done = store.scores_scan().filter(own, done).select(pl.len()).collect().item()
    return Audited(
        folder=folder,
        identity=_identity(store, manifest, facts),
        suite=rules,
        estimates=found,
        cells=_cells(store.plan_scan(), found.rows),
        sums=named_sums(found.sums.units, found.pairs),
        limit=manifest.get("limit"),
        n_planned=int(found.pairs.cells["n_cases"].sum()),
        n_done=n_done,
        seeds=facts.seeds,
        has_answers=answer_step(store.plan_scan()) is not None,
    )


def _chosen(folder: Path, manifest: Mapping[str, Any], model: str | None) -> ModelFacts:
    """The model that is gated: the one that is named, else the only one that is no control."""
    models = {one.model_id: one for one in assessed(manifest)}
    if not models:
        raise RunError(
            f"{folder}: the run holds no model. One is needed. Finish it: the command that began "
            "it continues it."
        )
    own = [one for one in models.values() if not one.control] or list(models.values())
    if model is not None:
        models |= {one.model_id: one for one in models_of(manifest)}
        own = [one for one in models.values() if model in one.known_as]
        if not own:
            names = {one.name for one in models.values()}
            choose(model, names, kind="model", where=str(folder), error=UsageError)
    if len(own) != 1:
        listed = ", ".join(repr(one.name if model is None else one.model_id) for one in own)
        raise UsageError(
            f"{folder}: the run holds {len(own)} models, controls apart: {listed}. The gate is for "
            "one. Name it with --model."
        )
    return own[0]


def _identity(store: RunStore, manifest: Mapping[str, Any], facts: ModelFacts) -> Identity:
    own = store.suite()
    sources = manifest.get("sources", {})
    design = {k: v for k, v in sources.items() if k not in _DRAWN}
    design |= {"data": manifest.get("data_sha256"), "n_words": len(sources.get("words", ()))}
    design["probes"] = [
        probe.model_dump(mode="json", exclude={"expect"})
        for probe in sorted(own.probes, key=lambda p: p.name)
    ]
    design["property_based"] = own.property_based
    return Identity(
        model=facts.name,
        model_id=facts.model_id,
        plan_sha256=manifest.get("plan_sha256", ""),
        seed=int(sources.get("seed", own.seed)),
        design={key: _short(value) for key, value in sorted(design.items())},
        metric=signature(own.metric, facts.threshold, combined_rule(facts.foreground)),
        verdict=signature_of(own.statistics),
        backend=facts.backend,
    )


def _short(value: Any) -> str:
    """A value that reads well as it is, else a hash of it."""
    text = value if isinstance(value, str) else canonical(value).decode()
    is_plain = len(text) <= _SHORT and text.isprintable()
    return text if is_plain else hashlib.sha256(text.encode()).hexdigest()[:_SHORT]


def _cells(plan: pl.LazyFrame, rows: pl.DataFrame) -> pl.DataFrame:
    # Ids are hashes of the cases' content: their exclusive or is a
    # hash of the set, whatever its order.
    cases = plan.group_by(SUM_KEYS).agg(cases=pl.col("case_id").bitwise_xor()).collect()
    facts = rows.select(
        *SUM_KEYS,
        "meaning",
        "n_words",
        word_error=pl.col("relative_change_word_error_percent").fill_nan(0).fill_null(0),
    )
    joined = facts.join(cases, on=SUM_KEYS, how="left", nulls_equal=True, maintain_order="left")
    hexed = [f"{number:016x}" for number in joined["cases"]]
    return joined.with_columns(pl.Series("cases", hexed), pl.col("n_words").cast(pl.Int64))

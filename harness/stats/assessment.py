"""Compute a run's summary and verdicts.

Conventions: see `harness.stats.columns` for the summary, `harness.stats.verdicts` and
`harness.stats.language` for the records. Undefined figures are NaN with a ``reason``; what was
not measured is counted. Equal plans and scores give equal assessments, whatever the order of
their rows. Figures over all attributes of a probe are not pooled.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.errors import RunError
from harness.files.writing import Ledger
from harness.stats import language, verdicts
from harness.stats.columns import SUMMARY_SCHEMA, add_names, with_all_columns
from harness.stats.estimate import estimate
from harness.stats.judge import decide_verdicts
from harness.stats.language import LanguageVerdict
from harness.stats.listening import language_verdicts
from harness.stats.pairs import CELL_KEYS, ModelFacts, Pairs
from harness.stats.relative import ClusterSums
from harness.stats.shift import rows_away
from harness.stats.verdicts import VERDICTS_VERSION, Verdict, expectation_text, signature
from harness.suite.schema import Statistics, Suite

VERDICTS = "verdicts.json"


@dataclass(frozen=True, slots=True)
class Assessment:
    """What is said of a run."""

    # One row a (model, dataset, split, prompts, prompt type, probe, attribute).
    summary: pl.DataFrame
    verdicts: tuple[Verdict, ...]  # one an expectation on a row
    language: tuple[LanguageVerdict, ...]  # one a (model, dataset, prompts, prompt type)
    signature: str  # what fixes the meaning of the verdicts

    @classmethod
    def read(cls, folder: Path) -> "Assessment":
        """The assessment of a run directory that was summarised.

        Raises:
            RunError: The directory has none, or one of another version.
        """
        path = folder / VERDICTS
        if not path.is_file():
            raise RunError(
                f"{folder}: no {VERDICTS} here. A run directory with its verdicts is needed. "
                "Summarise the run first: `vlsm-harness score RUN`."
            )
        ledger = Ledger(folder)
        for name in ("summary.parquet", VERDICTS):
            if problem := ledger.problem(name):
                raise RunError(
                    f"{folder / name}: {problem}. A summary is read only as it was written. Write "
                    f"it anew: `vlsm-harness score {folder}`."
                )
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("version") != VERDICTS_VERSION:
            raise RunError(
                f"{path}: version {content.get('version')!r}, this harness reads version "
                f"{VERDICTS_VERSION}. Both must be one. Write it anew: `vlsm-harness score RUN`."
            )
        return cls(
            summary=with_all_columns(pl.read_parquet(folder / "summary.parquet")),
            verdicts=tuple(map(verdicts.from_record, content["expectations"])),
            language=tuple(map(language.from_record, content["language"])),
            signature=content["signature"],
        )

    def records(self) -> dict[str, Any]:
        """The content of ``verdicts.json``."""
        return {
            "version": VERDICTS_VERSION,
            "signature": self.signature,
            "language": [verdict.record() for verdict in self.language],
            "expectations": [verdict.record() for verdict in self.verdicts],
        }


def assess(
    plan: pl.DataFrame | pl.LazyFrame,
    scores: pl.DataFrame | pl.LazyFrame,
    *,
    models: Sequence[ModelFacts],
    not_applicable: pl.DataFrame,
    suite: Suite,
    cluster_kinds: Mapping[str, str] | None = None,
    texts: pl.DataFrame | None = None,
) -> Assessment:
    """Assess a run, finished or not, however large.

    Cases whose edits a model's token limit cuts away, as `texts` tells, are counted and left out of
    every figure. The summary has `SUMMARY_SCHEMA`, sorted by its keys; its probe ``original`` holds
    Dice of the original prompts, ``out_of_distribution`` the change away from the sets of training,
    if the suite asks for it.

    Raises:
        RunError: A case is scored twice for one model, or counts are impossible.
    """
    settings = suite.statistics
    models = list({m.model_id: m for m in models}.values())
    kinds = cluster_kinds or {}
    found = estimate(plan, scores, models=models, suite=suite, cluster_kinds=kinds, texts=texts)
    outcomes = decide_verdicts(found.named, found.solved, suite=suite)
    summary = add_metadata(
        _with_verdicts(found.rows, outcomes),
        found.pairs,
        found.sums,
        models=models,
        not_applicable=not_applicable,
        suite=suite,
        kinds=kinds,
    )
    return Assessment(
        summary=summary,
        verdicts=tuple(outcomes),
        language=tuple(
            language_verdicts(
                found.named,
                found.solved,
                outcomes,
                units=found.sums.units,
                settings=settings,
                by_seed=found.by_seed,
            )
        ),
        signature=signature_of(settings),
    )


def signature_of(settings: Statistics) -> str:
    """What fixes the meaning of verdicts under these settings."""
    return signature(
        settings.margins,
        settings.correction,
        clusters=settings.minimum_clusters,
        draws=settings.draws,
    )


def _with_verdicts(rows: pl.DataFrame, outcomes: Sequence[Verdict]) -> pl.DataFrame:
    """The first verdict of each row beside its figures."""
    schema = dict.fromkeys((*CELL_KEYS, "expectation", "verdict"), pl.String)
    texts = [
        (*(getattr(v, k) for k in CELL_KEYS), expectation_text(v), v.verdict) for v in outcomes
    ]
    table = pl.DataFrame(texts, schema=schema, orient="row").unique(
        CELL_KEYS, keep="first", maintain_order=True
    )
    return rows.join(table, on=CELL_KEYS, how="left", nulls_equal=True, maintain_order="left")


def add_metadata(
    rows: pl.DataFrame,
    pairs: Pairs,
    sums: ClusterSums,
    *,
    models: Sequence[ModelFacts],
    not_applicable: pl.DataFrame,
    suite: Suite,
    kinds: Mapping[str, str],
) -> pl.DataFrame:
    """The whole summary: with rows away from training, rows without a case, and facts."""
    parts = [_shaped(rows)]
    if suite.out_of_distribution:
        away = rows_away(pairs, sums.originals, models=models, settings=suite.statistics)
        parts.append(_from_rows(away))
    parts.append(_with_nothing(not_applicable, pairs))
    whole = _with_not_applicable(pl.concat(parts), not_applicable)
    return add_names(whole, models, suite, kinds).sort(CELL_KEYS, nulls_last=False)


def _shaped(rows: pl.DataFrame) -> pl.DataFrame:
    """The columns of the summary, those that are not there yet as null."""
    missing = [pl.lit(None).alias(c) for c in SUMMARY_SCHEMA if c not in rows.columns]
    return rows.with_columns(missing).select(pl.col(c).cast(t) for c, t in SUMMARY_SCHEMA.items())


def _from_rows(rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    plain = [{k: _plain(v) for k, v in row.items()} for row in rows]
    return _shaped(pl.DataFrame(plain, schema=SUMMARY_SCHEMA, orient="row"))


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic | np.ndarray) else value


def _with_nothing(not_applicable: pl.DataFrame, pairs: Pairs) -> pl.DataFrame:
    """Rows of the cells that have no case at all: they are counted, not dropped."""
    cells = (
        not_applicable.select(CELL_KEYS[1:])
        .unique()
        .join(pairs.cells.select("model_id").unique(), how="cross")
        .join(pairs.cells, on=CELL_KEYS, how="anti", nulls_equal=True)
    )
    counts = [pl.lit(0).alias(c) for c in SUMMARY_SCHEMA if c.startswith("n_")]
    return _shaped(
        cells.with_columns(counts).with_columns(
            n_shared_images=None,
            reason=pl.lit("not applicable"),
            verdict_allowed=pl.lit(False),
            notes=pl.lit([], dtype=pl.List(pl.String)),
        )
    )


def _with_not_applicable(rows: pl.DataFrame, not_applicable: pl.DataFrame) -> pl.DataFrame:
    keys = list(CELL_KEYS[1:])
    counted = (
        not_applicable.group_by(*keys, "reason")
        .agg(pl.col("n_samples").sum().cast(pl.Int64))
        .sort("n_samples", "reason", descending=[True, False])
        .group_by(keys, maintain_order=True)
        .agg(
            n=pl.col("n_samples").sum(),
            text=pl.format("{} ({})", "reason", "n_samples").str.join("; "),
        )
    )
    joined = rows.join(counted, on=keys, how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(
        n_not_applicable=pl.coalesce("n", "n_not_applicable", pl.lit(0)),
        not_applicable=pl.coalesce("text", "not_applicable"),
    ).drop("n", "text")

"""Everything that the statistics say of a run: its summary and its verdicts.

Conventions: see `harness.stats.columns` for the summary, `harness.stats.verdicts` and
`harness.stats.language` for the records. Equal plans and scores give equal assessments.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import RunError
from harness.files.writing import Ledger
from harness.stats import language, verdicts
from harness.stats.columns import with_all_columns
from harness.stats.facts import ModelFacts
from harness.stats.judge import judged
from harness.stats.language import LanguageVerdict
from harness.stats.listening import language_verdicts
from harness.stats.measured import measured
from harness.stats.pairs import CELL_KEYS
from harness.stats.phrases import expectation_text
from harness.stats.summary import completed
from harness.stats.verdicts import VERDICTS_VERSION, Verdict, signature
from harness.suite.schema import Statistics, Suite

VERDICTS = "verdicts.json"


@dataclass(frozen=True, slots=True)
class Assessment:
    """What is said of a run.

    Attributes:
        summary: One row a (model, dataset, split, prompts, prompt type, probe, attribute).
        verdicts: One an expectation on a row.
        language: One a (model, dataset, prompts, prompt type).
        signature: What fixes the meaning of the verdicts.
    """

    summary: pl.DataFrame
    verdicts: tuple[Verdict, ...]
    language: tuple[LanguageVerdict, ...]
    signature: str

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

    Args:
        plan: Cases, as in the run directory.
        scores: Scores, as in the run directory; rows of other models are ignored.
        models: The models to summarise.
        not_applicable: What made no variant, with reasons.
        suite: Its metric, statistics and expectations are used.
        cluster_kinds: What a dataset's clusters are: ``patient``, ``sequence``,
            ``sequence (estimated)``, ``image (assumed independent)``.
        texts: How texts reach each model, as in the run directory; cases whose edits a
            model's token limit cuts away are counted and left out of every figure.

    Returns:
        Summary and verdicts. The summary has `SUMMARY_SCHEMA`, sorted by its keys; its probe
        ``original`` holds Dice of the original prompts, ``out_of_distribution`` the change away
        from the sets of training, if the suite asks for it.

    Raises:
        RunError: A case is scored twice for one model, or counts are impossible.
    """
    settings = suite.statistics
    models = list({m.model_id: m for m in models}.values())
    kinds = cluster_kinds or {}
    found = measured(plan, scores, models=models, suite=suite, cluster_kinds=kinds, texts=texts)
    outcomes = judged(found.named, found.solved, suite=suite)
    summary = completed(
        _with_verdicts(found.rows, outcomes),
        found.pairs,
        found.left,
        models=models,
        not_applicable=not_applicable,
        suite=suite,
        kinds=kinds,
    )
    return Assessment(
        summary=summary,
        verdicts=tuple(outcomes),
        language=tuple(language_verdicts(found.named, found.solved, outcomes, settings=settings)),
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


def summarise(
    plan: pl.DataFrame | pl.LazyFrame, scores: pl.DataFrame | pl.LazyFrame, **arguments: Any
) -> pl.DataFrame:
    """The summary alone; arguments as of `assess`."""
    return assess(plan, scores, **arguments).summary


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

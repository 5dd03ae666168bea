"""Parameters, metrics, tags and files of each model of a run, as trackers take them.

Conventions: names have only letters, digits and ``_-./ ``, which every tracker accepts, and two
figures never share one. A metric is ``dataset/split/rung/probe/attribute/figure``. Undefined
figures are left out: a tracker would draw them as numbers.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.runs.store import RunStore
from harness.stats.assessment import Assessment
from harness.suite.schema import Suite

MAX_NAME = 250
"""Longest name that every tracker takes."""
MAX_TEXT = 500
"""Longest value of a parameter or tag; the files hold the whole text."""

FIGURES = (
    *("relative_change_percent", "relative_change_low_percent", "relative_change_high_percent"),
    *("dice", "dice_low", "dice_high", "agreement"),
)
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_\-./ ]+")
_CARD = ("title", "paper", "licence", "architecture", "prompt_type", "threshold")
_ENTRY = (
    *("name", "model_id", "weights_sha256", "random_weights", "device", "precision"),
    *("backend", "batch_size"),
)


_CELL = ("dataset", "split", "prompts", "prompt_type", "probe", "attribute")


@dataclass(frozen=True)
class TrackedModel:
    """One model of a run: `name` is of the tracker's run, `tags` are its verdicts."""

    model_id: str
    name: str
    suite: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    files: tuple[Path, ...]


def tracked_models(store: RunStore) -> Iterator[TrackedModel]:
    """Each model that the run's last command asked for."""
    assessment, manifest, suite = Assessment.read(store.folder), store.manifest, store.suite()
    asked = manifest.get("evaluated", [entry["model_id"] for entry in manifest["models"]])
    for entry in manifest["models"]:
        if entry["model_id"] in asked:
            yield TrackedModel(
                model_id=entry["model_id"],
                name=f"{suite.name}/{entry['name']}",
                suite=suite.name,
                params=_params(manifest, entry, assessment, suite),
                metrics=metrics_of(assessment.summary.rows(named=True), entry["model_id"]),
                tags=_tags(assessment, entry["model_id"]),
                files=tuple(
                    store.folder / name for name in ("summary.md", "summary.json", "verdicts.json")
                ),
            )


def _params(
    manifest: Mapping[str, Any], entry: Mapping[str, Any], assessment: Assessment, suite: Suite
) -> dict[str, str]:
    """What the run was made with; what is not known is left out."""
    summary, card = assessment.summary, entry.get("card", {})
    own = summary.filter(summary["model_id"] == entry["model_id"])
    values: dict[str, Any] = {
        "suite.name": suite.name,
        "suite.seed": suite.seed,
        **{f"model.{k}": entry.get(k) for k in _ENTRY},
        **{f"card.{k}": card.get(k) for k in _CARD},
        "card.trained_on": ", ".join(entry.get("trained_on", [])),
        **{k: manifest.get(k) for k in ("plan_sha256", "data_sha256", "limit")},
        "harness": manifest.get("environment", {}).get("harness"),
        "metric_signature": "; ".join(own["signature"].unique().sort()),
        "verdict_signature": assessment.signature,
    }
    return {k: str(v)[:MAX_TEXT] for k, v in values.items() if v not in (None, "")}


def metrics_of(rows: Sequence[Mapping[str, Any]], model_id: str) -> dict[str, float]:
    """Figures of a model's summary rows that are defined.

    Example:
        >>> row = {"model_id": "m", "dataset": "d", "split": "test", "prompts": "released"}
        >>> row |= {"prompt_type": "p6", "probe": "original", "attribute": None, "dice": 0.8}
        >>> metrics_of([row], "m")
        {'d/test/p6/original/dice': 0.8}
    """
    metrics: dict[str, float] = {}
    for row in rows:
        if row["model_id"] == model_id:
            for figure in FIGURES:
                value = row.get(figure)
                if value is not None and math.isfinite(value):
                    metrics[_unique_name(f"{_cell(row)}/{figure}", metrics)] = float(value)
    return metrics


def _cell(row: Mapping[str, Any]) -> str:
    source = [] if row["prompts"] == "released" else [row["prompts"]]
    parts = [row["dataset"], row["split"], *source, row["prompt_type"], row["probe"]]
    return "/".join(str(p) for p in (*parts, row["attribute"]) if p)


def _tags(assessment: Assessment, model_id: str) -> dict[str, str]:
    """Outcomes of expectations, and the language verdicts with their reasons."""
    tags: dict[str, str] = {}
    for spoken in assessment.language:
        if spoken.model_id == model_id:
            source = [] if spoken.prompts == "released" else [spoken.prompts]
            name = "/".join(["language", spoken.dataset, *source, spoken.prompt_type])
            said = (spoken.language, spoken.steadiness, spoken.refusal)
            text = f"{', '.join(word for word in said if word != 'not asked')}. {spoken.reason}"
            tags[_unique_name(name, tags)] = text[:MAX_TEXT]
    for v in assessment.verdicts:
        if v.model_id == model_id:
            cell = _cell({k: getattr(v, k) for k in _CELL})
            role = "verdict" if v.binding else "answer"
            tags[_unique_name(f"{role}/{cell}/{v.kind}.{v.of}", tags)] = v.verdict
    return tags


def _unique_name(name: str, taken: Mapping[str, Any]) -> str:
    """A name that every tracker accepts and that is not in `taken`.

    Names that differ only in forbidden letters, or beyond the longest name, get a piece of a hash.

    Example:
        >>> _unique_name("a/größe", {})
        'a/gr_e'
    """
    clean = _FORBIDDEN.sub("_", name)
    if len(clean) <= MAX_NAME and clean not in taken:
        return clean
    # Equal names happen too: two expectations of one kind on one figure.
    digest = hashlib.sha256(f"{name}\0{len(taken)}".encode()).hexdigest()[:8]
    return f"{clean[: MAX_NAME - 9]}-{digest}"

"""What trackers are told of a model in a run: parameters, metrics, tags and files.

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

from harness.stats.assessment import Assessment
from harness.store import RunStore

MOST_LETTERS = 250
"""Longest name that every tracker takes."""
MOST_TEXT = 500
"""Longest value of a parameter or tag; what is cut stands in the files."""

FIGURES = (
    *("relative_change_percent", "relative_change_low_percent", "relative_change_high_percent"),
    *("dice", "dice_low", "dice_high", "agreement"),
)
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_\-./ ]+")
_CARD = ("title", "paper", "licence", "architecture", "prompt_type", "threshold")
_ENTRY = ("name", "model_id", "weights_sha256", "random_weights", "device", "precision")


@dataclass(frozen=True)
class Tracked:
    """One model of a run, as trackers see it.

    Attributes:
        model_id: Key of the model.
        name: Of the tracker's run.
        suite: Name of the suite.
        params: What the run was made with.
        metrics: Figures of the summary.
        tags: Verdicts, and the language verdict of each dataset.
        files: Summary and verdicts of the whole run.
    """

    model_id: str
    name: str
    suite: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    files: tuple[Path, ...]


def tracked(store: RunStore) -> Iterator[Tracked]:
    """What is said of each model that the run's last command asked for.

    Raises:
        RunError: The run was not summarised.
    """
    found, manifest = Assessment.read(store.folder), store.manifest
    suite = store.suite()
    asked = manifest.get("evaluated", [entry["model_id"] for entry in manifest["models"]])
    names = ("summary.md", "summary.json", "verdicts.json")
    for entry in manifest["models"]:
        if entry["model_id"] in asked:
            yield Tracked(
                model_id=entry["model_id"],
                name=f"{suite.name}/{entry['name']}",
                suite=suite.name,
                params=params_of(manifest, entry, found, {"name": suite.name, "seed": suite.seed}),
                metrics=metrics_of(found.summary.rows(named=True), entry["model_id"]),
                tags=tags_of(found, entry["model_id"]),
                files=tuple(store.folder / name for name in names),
            )


def params_of(
    manifest: Mapping[str, Any],
    entry: Mapping[str, Any],
    found: Assessment,
    suite: Mapping[str, Any],
) -> dict[str, str]:
    """What the run was made with; what is not known is left out."""
    own = found.summary.filter(found.summary["model_id"] == entry["model_id"])
    card = entry.get("card", {})
    values: dict[str, Any] = {f"suite.{k}": v for k, v in suite.items()}
    values |= {f"model.{k}": entry.get(k) for k in (*_ENTRY, "batch_size")}
    values |= {f"card.{k}": card.get(k) for k in _CARD}
    values |= {"card.trained_on": ", ".join(entry.get("trained_on", []))}
    values |= {k: manifest.get(k) for k in ("plan_sha256", "data_sha256", "limit")}
    values |= {"harness": manifest.get("environment", {}).get("harness")}
    values |= {"metric_signature": "; ".join(own["signature"].unique().sort())}
    values |= {"verdict_signature": found.signature}
    return {k: str(v)[:MOST_TEXT] for k, v in values.items() if v not in (None, "")}


def metrics_of(rows: Sequence[Mapping[str, Any]], model_id: str) -> dict[str, float]:
    """Figures of a model's summary rows that are defined.

    Example:
        >>> row = {"model_id": "m", "dataset": "d", "split": "test", "prompts": "released"}
        >>> row |= {"prompt_type": "p6", "probe": "original", "attribute": None, "dice": 0.8}
        >>> metrics_of([row], "m")
        {'d/test/p6/original/dice': 0.8}
    """
    found: dict[str, float] = {}
    for row in rows:
        if row["model_id"] == model_id:
            for figure in FIGURES:
                value = row.get(figure)
                if value is not None and math.isfinite(value):
                    found[_free(f"{_cell(row)}/{figure}", found)] = float(value)
    return found


def _cell(row: Mapping[str, Any]) -> str:
    source = [] if row["prompts"] == "released" else [row["prompts"]]
    parts = [row["dataset"], row["split"], *source, row["prompt_type"], row["probe"]]
    return "/".join(str(p) for p in (*parts, row["attribute"]) if p)


def tags_of(found: Assessment, model_id: str) -> dict[str, str]:
    """Outcomes of expectations, and the language verdicts with their reasons."""
    tags: dict[str, str] = {}
    for spoken in found.language:
        if spoken.model_id == model_id:
            source = [] if spoken.prompts == "released" else [spoken.prompts]
            name = "/".join(["language", spoken.dataset, *source, spoken.prompt_type])
            text = f"{spoken.language}, {spoken.steadiness}. {spoken.reason}"
            tags[_free(name, tags)] = text[:MOST_TEXT]
    for v in found.verdicts:
        if v.model_id == model_id:
            cell = _cell({k: getattr(v, k) for k in _CELL})
            role = "verdict" if v.binding else "answer"
            tags[_free(f"{role}/{cell}/{v.kind}.{v.of}", tags)] = v.verdict
    return tags


_CELL = ("dataset", "split", "prompts", "prompt_type", "probe", "attribute")


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """A name that every tracker accepts and that nothing else has.

    What differs only in forbidden letters, or beyond the longest name, is told apart by a
    piece of its hash.

    Example:
        >>> _free("a/größe", {})
        'a/gr_e'
    """
    clean = _FORBIDDEN.sub("_", name)
    if len(clean) <= MOST_LETTERS and clean not in taken:
        return clean
    # Equal names happen too: two expectations of one kind on one figure.
    digest = hashlib.sha256(f"{name}\0{len(taken)}".encode()).hexdigest()[:8]
    return f"{clean[: MOST_LETTERS - 9]}-{digest}"

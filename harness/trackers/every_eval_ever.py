"""A run as records of Every Eval Ever, one JSON file a model, which its validator accepts.

Conventions: figures, limits and counts are those of a model card (`harness.trackers.exports`).
What a run does not know is left out. Where the format wants it all the same, the record says
`NOT_STATED`: who made a model, who evaluated it. Every value of ``additional_details`` is text.

Source: J. Batzner et al., "Every Eval Ever: A Unifying Schema and Community Repository for AI
Evaluation Results", 2026, arXiv 2606.14516; schema 0.3.0 of the package `every-eval-ever`.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from harness.cards import load_model_card, model_names, plain_name
from harness.errors import RunError, UsageError, choose
from harness.files.writing import replace_together
from harness.report.loaded import LoadedRun
from harness.report.markdown import limit_note
from harness.trackers.exports import (
    DefinedFigure,
    defined_figures,
    folder_name,
    model_name,
    publishable_models,
    task_names,
)

SCHEMA = "0.3.0"
NOT_STATED = "not-stated"
"""In a path and an id, where the format refuses "unknown"."""
RELATIONSHIPS = ("first_party", "third_party", "collaborative", "other")
HOUSE = "vlsm-harness"

# Names that the format, or a disk, takes for something else.
_TAKEN = {"data", "unknown", "con", "prn", "aux", "nul"}
_TAKEN |= {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}

_METRICS: dict[str, dict[str, Any]] = {
    "dice": {
        "evaluation_description": "Mean Dice of the masks for the data set's own prompts.",
        "metric_id": "dice",
        "metric_name": "Dice",
        "metric_kind": "dice",
        "metric_unit": "proportion",
        "lower_is_better": False,
        "score_type": "continuous",
        "min_score": 0,
        "max_score": 1,
    },
    "relative_change": {
        "evaluation_description": "100 (mean Dice after - mean Dice before a change of the prompt) "
        "/ mean Dice before, over the same samples, against each sample's own mask.",
        "metric_id": f"{HOUSE}.relative_change",
        "metric_name": "Relative change of Dice",
        "metric_kind": "relative_change",
        "metric_unit": "percent",
        # The format wants a direction of every metric.
        "lower_is_better": False,
        "score_type": "continuous",
        "min_score": -100,
        "max_score": "Infinity",
        "additional_details": {
            "direction": "Neither: 0 is right where the change keeps the meaning; where it changes "
            "the meaning, a model that follows its prompt leaves its target."
        },
    },
    "refusal_rate": {
        "evaluation_description": "Share of prompts for what is not in the picture that are "
        "answered with a mask that is empty but for a few pixels.",
        "metric_id": f"{HOUSE}.refusal_rate",
        "metric_name": "Refusal rate",
        "metric_kind": "rate",
        "metric_unit": "proportion",
        "lower_is_better": False,
        "score_type": "continuous",
        "min_score": 0,
        "max_score": 1,
    },
}


@dataclass(frozen=True)
class Provenance:
    """What no run knows of itself, as the one who publishes it states it; None is not stated.

    `developer` made the models, `organization` evaluated them, `relationship` is one of
    `RELATIONSHIPS`, of the second to the first.
    """

    developer: str | None = None
    organization: str | None = None
    relationship: str | None = None

    def __post_init__(self) -> None:
        if self.developer is not None:
            _check_developer(self.developer)
        if self.relationship is not None:
            where = "--relationship"
            choose(self.relationship, RELATIONSHIPS, kind="word", where=where, error=UsageError)


def _check_developer(name: str) -> None:
    try:
        if _portable(plain_name(name)) == name:
            return
        problem = "Every Eval Ever takes the name for something else"
    except ValueError as found:
        problem = str(found)
    raise UsageError(
        f"--developer {name!r}: {problem}. It is the first part of the models' ids, such as the "
        "'me' of 'me/clipseg-polyps'. Correct it, or leave it out."
    )


def export_records(
    run: LoadedRun,
    folder: Path,
    *,
    model: str | None = None,
    provenance: Provenance | None = None,
) -> tuple[list[Path], list[str]]:
    """A record for each model of a run, and remarks on what the records leave open.

    A record lies where the format's datastore has it: ``data/COLLECTION/DEVELOPER/MODEL/UUID.json``
    below `folder`. The same run exported again replaces its records.

    Raises:
        RunError: The run is incomplete, a model's weights are random, or it has no figure.
        UsageError: No model has that name.
    """
    stated = provenance or Provenance()
    written: dict[Path, bytes] = {}
    for entry in publishable_models(run, model):
        record = _record(run, entry, stated)
        if not record["evaluation_results"]:
            raise RunError(
                f"{entry['name']}: none of its figures is defined. A record holds one at least. "
                "Look at the reasons in summary.md, or name other models by --model."
            )
        place = Path("data", f"{HOUSE}_{run.suite.name}", *record["model_info"]["id"].split("/"))
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        written[folder / place / f"{_uuid(run, entry)}.json"] = text.encode()
    replace_together(written)
    return list(written), list(_remarks(written, stated))


def _remarks(written: Iterable[Path], stated: Provenance) -> Iterable[str]:
    open_questions = {
        "--organization (who evaluated)": stated.organization is None,
        "--relationship (of that to the models' makers)": stated.relationship is None,
        "--developer (who made the models)": any(NOT_STATED in path.parts for path in written),
    }
    if missing := [option for option, is_open in open_questions.items() if is_open]:
        yield (
            f"The records say '{NOT_STATED}' for what the run does not know. State it before you "
            f"publish them: {', '.join(missing)}."
        )


def _uuid(run: LoadedRun, entry: Mapping[str, Any]) -> uuid.UUID:
    """Of the run's content, so that it stays the same; the format wants version 4."""
    of = [entry["model_id"], *(str(run.manifest.get(k)) for k in ("plan_sha256", "data_sha256"))]
    digest = hashlib.sha256("\0".join(of).encode()).digest()
    return uuid.UUID(bytes=digest[:16], version=4)


def _portable(name: str) -> str:
    """A name that is one folder on every disk and means nothing to the format."""
    name = folder_name(name).rstrip(". ")
    return f"_{name}" if name.partition(".")[0].lower() in _TAKEN else name


def _record(run: LoadedRun, entry: Mapping[str, Any], stated: Provenance) -> dict[str, Any]:
    now = str(int(time.time()))
    about = _model_info(run, entry, stated)
    figures = list(defined_figures(run, entry["model_id"]))
    began = run.manifest.get("environment", {}).get("at")
    at = {} if began is None else {"evaluation_timestamp": _epoch(began)}
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{HOUSE}_{run.suite.name}/{about['id']}/{now}",
        **at,
        "retrieved_timestamp": now,
        "source_metadata": _source(run, stated),
        "eval_library": _library(run),
        "model_info": about,
        "evaluation_results": [
            _result(run, figure, name)
            for name, figure in zip(task_names(figures), figures, strict=True)
        ],
    }


def _epoch(at: str) -> str:
    return str(int(datetime.fromisoformat(at).timestamp()))


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """As ``additional_details`` wants them; what is not known is left out."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in values.items()
        if value not in (None, "", [], {})
    }


def _source(run: LoadedRun, stated: Provenance) -> dict[str, Any]:
    given = {"organization": stated.organization, "relationship": stated.relationship}
    missing = [name for name, value in given.items() if value is None]
    details = {
        "suite_title": run.title,
        NOT_STATED: ", ".join(missing),
        "limit": limit_note(run.manifest),
        "undefined": "Figures that are not defined are left out.",
    }
    return {
        "source_name": f"{HOUSE}, suite {run.suite.name}",
        "source_type": "evaluation_run",
        "source_organization_name": stated.organization or NOT_STATED,
        "evaluator_relationship": stated.relationship or "other",
        "additional_details": _texts(details),
    }


def _library(run: LoadedRun) -> dict[str, Any]:
    known = run.manifest.get("environment", {})
    details = {key: known.get(key) for key in ("git_commit", "python", "libraries")}
    details |= {key: run.manifest.get(key) for key in ("plan_sha256", "data_sha256")}
    return {
        "name": HOUSE,
        "version": known.get("harness", "unknown"),
        "additional_details": _texts(details),
    }


def _model_info(run: LoadedRun, entry: Mapping[str, Any], stated: Provenance) -> dict[str, Any]:
    is_shipped = entry.get("weights_sha256") in _shipped_weights()
    developer = HOUSE if is_shipped else stated.developer
    card = entry.get("card", {})
    details = {
        "deployment_type": "unknown" if "imported" in entry else "self_deployed",
        "model_availability": "open_weights" if is_shipped else "unknown",
        "model_id": entry["model_id"],
        **{key: card.get(key) for key in ("title", "paper", "licence", "architecture")},
        **{key: entry.get(key) for key in ("weights_sha256", "trained_on", "seeds", "notes")},
        **{key: entry.get(key) for key in ("threshold", "device", "precision", "batch_size")},
        "control": "reads no prompt" if entry.get("control") else None,
    }
    name = _portable(model_name(run, entry))
    about = {
        "name": entry["name"],
        "id": f"{developer or NOT_STATED}/{name}",
        "developer": developer,
        "inference_engine": _engine(run, entry),
        "additional_details": _texts(details),
    }
    return {key: value for key, value in about.items() if value is not None}


def _engine(run: LoadedRun, entry: Mapping[str, Any]) -> dict[str, str] | None:
    name = entry.get("backend")
    versions = run.manifest.get("environment", {}).get("libraries", {})
    return None if name is None else _texts({"name": name, "version": versions.get(name)})


@cache
def _shipped_weights() -> set[str]:
    """Digests of the weights that ship, whose makers are known."""
    checkpoints = [load_model_card(name).card.checkpoint for name in model_names()]
    return {one.sha256 for one in checkpoints if one is not None and one.sha256}


def _result(run: LoadedRun, figure: DefinedFigure, name: str) -> dict[str, Any]:
    row = figure.row
    probe = "/".join(row[key] for key in ("probe", "attribute") if row[key] is not None)
    details = {
        key: row.get(key)
        for key in ("split", "prompts", "prompt_type", "probe", "attribute", "perturbation")
    }
    details |= {key: row.get(key) for key in ("meaning", "expected_mask", "cluster_kind")}
    details |= {"n_clusters": figure.n_clusters, "signature": row["signature"]}
    details |= {key: row.get(key) for key in ("n_failed", "n_not_applicable") if row.get(key)}
    details["remarks"] = "; ".join(row.get("notes") or ())
    return {
        "evaluation_result_id": name,
        "evaluation_name": f"{row['dataset']}: {probe}",
        "source_data": _data(run, row["dataset"]),
        "metric_config": _METRICS[figure.metric],
        "score_details": {
            "score": figure.value,
            "details": _texts(details),
            "uncertainty": _uncertainty(run, figure),
        },
    }


def _data(run: LoadedRun, dataset: str) -> dict[str, Any]:
    """Where a data set comes from, as its card says; an older run did not keep it."""
    origin = run.manifest.get("origins", {}).get(dataset, {})
    source = origin.get("source", "")
    is_link = source.startswith(("https://", "http://"))
    kind: Literal["url", "other"] = "url" if is_link else "other"
    details = {
        "source": None if is_link else source,
        "licence": origin.get("licence"),
        "modality": run.manifest.get("modalities", {}).get(dataset),
        "private": "yes" if dataset in run.private_sets else "no",
        "limit": run.manifest.get("limit"),
    }
    return {
        "dataset_name": dataset,
        "source_type": kind,
        **({"url": [source]} if is_link else {}),
        "additional_details": _texts(details),
    }


def _uncertainty(run: LoadedRun, figure: DefinedFigure) -> dict[str, Any]:
    """The 95 % limits, and how they were found (`harness/stats/README.md`)."""
    of_rate = figure.metric == "refusal_rate"
    count: dict[str, Any] = {"num_samples": figure.n_samples}
    if figure.limits.keys() != {"low", "high"}:
        return count
    if not of_rate:
        count["num_bootstrap_samples"] = run.suite.statistics.draws
    method = (
        "Wilson's limits for the effective number of samples, exact where all samples agree"
        if of_rate
        else f"studentised bootstrap, resampling {figure.row.get('resampled') or 'clusters'}"
    )
    limits = {
        "lower": figure.limits["low"],
        "upper": figure.limits["high"],
        "confidence_level": 0.95,
        "method": method,
    }
    return {"confidence_interval": limits, **count}

"""A run in the forms of other places: cases for a spreadsheet, a hub's model card, Croissant.

What goes to Every Eval Ever stands in `harness.trackers.every_eval_ever`.

Conventions: text of strangers is data in every form: YAML and JSON are written by their
libraries, Markdown is escaped, no cell of a CSV file is a formula. Undefined figures are left
out. Dice is in [0, 1], changes are in percent.

Source: the hub's model index and ``.eval_results/*.yaml`` as `huggingface_hub` writes them;
M. Akhtar et al., "Croissant: A Metadata Format for ML-Ready Datasets", 2024, arXiv 2403.19546.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from harness.errors import RunError, UsageError
from harness.files.writing import parquet_bytes, replace_together
from harness.report.escape import escaped
from harness.report.loaded import LoadedRun
from harness.report.markdown import limit_note
from harness.report.sheet import csv_text

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

    from harness.cards import DatasetCard
    from harness.plan.build import PlannedSet

METRICS = {
    "dice": "Dice",
    "relative_change": "relative change of Dice (%)",
    "refusal_rate": "refusal rate",
}
"""Figures of the summary that a model card shows -> how they are called there.

Dice stands for the original prompts alone: after another prompt it is no grade, and a high one
may mean that the model ignores the prompt.
"""
_UNITS = {"relative_change": "_percent"}
_CELL = ("split", "prompts", "prompt_type", "probe", "attribute")


class DefinedFigure(NamedTuple):
    """A figure of the summary that has a value."""

    row: Mapping[str, Any]  # its row of the summary
    metric: str  # a key of `METRICS`
    value: float  # rounded to four digits; so are the limits
    limits: Mapping[str, float]  # ``low`` and ``high``, as far as they are defined
    n_samples: int
    n_clusters: int

    @property
    def conditions(self) -> dict[str, Any]:
        """What was asked, its limits and its counts, but for the split."""
        asked = {key: self.row[key] for key in _CELL[1:] if self.row[key] is not None}
        counts = {"n_samples": self.n_samples, "n_clusters": self.n_clusters}
        return asked | dict(self.limits) | counts | {"signature": self.row["signature"]}


def export_cases(run: LoadedRun, out: Path) -> list[Path]:
    """Every case beside its original as one CSV file; columns of `RunData.cases`."""
    replace_together({out: csv_text(run.cases()).encode()})
    return [out]


def export_cards(
    run: LoadedRun, folder: Path, *, model: str | None = None, benchmark: str | None = None
) -> list[Path]:
    """A hub's files for each model of a run, below a folder of its name.

    ``README.md`` has the model index in its head and the verdicts as text. With `benchmark`, the
    hub id of a data set that lists such tasks, ``.eval_results/vlsm-harness.yaml`` has the figures
    under the names ``DATASET.SPLIT.PROBE[.ATTRIBUTE].FIGURE``.

    Raises:
        RunError: The run is incomplete, or a model's weights are random.
        UsageError: No model has that name, or `benchmark` is no id of a hub.
    """
    _check_id(benchmark)
    written: dict[Path, bytes] = {}
    for entry in publishable_models(run, model):
        own = folder / folder_name(model_name(run, entry))
        written[own / "README.md"] = _model_card(run, entry).encode()
        if benchmark is not None:
            written[own / ".eval_results" / "vlsm-harness.yaml"] = _entries(run, entry, benchmark)
    replace_together(written)
    return list(written)


def _check_id(benchmark: str | None) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        if benchmark is not None:
            validate_repo_id(benchmark)
    except HFValidationError as problem:
        raise UsageError(
            f"--benchmark {benchmark}: {str(problem).partition('.')[0]}. The id of a data set on "
            "the hub is needed, such as me/prompt-robustness. Correct it."
        ) from None


def publishable_models(run: LoadedRun, model: str | None) -> list[Mapping[str, Any]]:
    """Entries of a run's models, of that name alone where one is given.

    Raises:
        RunError: The run is incomplete, or a model's weights are random.
        UsageError: No model has that name.
    """
    if run.manifest.get("status") != "complete":
        raise RunError(
            f"{run.folder}: the run is {run.manifest.get('status', 'unfinished')}. Figures that "
            "are published need every case. Give the command of the run again: it goes on."
        )
    chosen = [m for m in run.models if model in {None, m["name"], m["model_id"]}]
    if not chosen:
        known = ", ".join(sorted(m["name"] for m in run.models))
        raise UsageError(
            f"--model {model}: the run has no such model. It has: {known}. Name one of them."
        )
    for entry in chosen:
        if entry.get("random_weights"):
            raise RunError(
                f"{entry['name']}: its weights are random. Figures of a model that was trained are "
                "needed. Run it with weights, or name the others by --model."
            )
    return chosen


def model_name(run: LoadedRun, entry: Mapping[str, Any]) -> str:
    """What a model is called elsewhere: its name, or its id where two share a name."""
    names = [model["name"] for model in run.models]
    return str(entry["name"] if names.count(entry["name"]) == 1 else entry["model_id"])


def folder_name(name: str) -> str:
    """A name that is one folder and stays in its parent."""
    kept = "".join(c if c.isalnum() or c in "-_.@" else "_" for c in name)
    return kept.lstrip(".") or "model"


def defined_figures(run: LoadedRun, model_id: str) -> Iterator[DefinedFigure]:
    """The figures of `METRICS` that have a value, in the summary's order."""
    own = run.summary.filter(pl.col("model_id") == model_id)
    for row in own.iter_rows(named=True):
        for metric in _asked_of(row):
            unit = _UNITS.get(metric, "")
            ends = {end: row[f"{metric}_{end}{unit}"] for end in ("low", "high")}
            value = row[metric + unit]
            of = "_refusal" if metric == "refusal_rate" else ""
            if is_defined(value):
                yield DefinedFigure(
                    row,
                    metric,
                    _rounded(value),
                    {end: _rounded(limit) for end, limit in ends.items() if is_defined(limit)},
                    row[f"n_samples{of}"],
                    row[f"n_clusters{of}"],
                )


def task_names(figures: Sequence[DefinedFigure]) -> list[str]:
    """What each figure answers, as ``DATASET.SPLIT.PROBE[.ATTRIBUTE].FIGURE``, no two alike.

    Where these are alike, source and type of the prompts follow the split.
    """
    long = ("dataset", "split", "prompts", "prompt_type", "probe", "attribute")
    short = ("dataset", "split", "probe", "attribute")
    names = [_dotted(figure, short) for figure in figures]
    return [
        name if names.count(name) == 1 else _dotted(figure, long)
        for name, figure in zip(names, figures, strict=True)
    ]


def _dotted(figure: DefinedFigure, columns: Sequence[str]) -> str:
    parts = [figure.row[column] for column in columns if figure.row[column] is not None]
    return ".".join([*parts, figure.metric])


def is_defined(value: float | None) -> bool:
    """Whether a cell of the summary holds a number."""
    return value is not None and math.isfinite(value)


def _asked_of(row: Mapping[str, Any]) -> Sequence[str]:
    if row["probe"] == "original":
        return ("dice", "refusal_rate")
    return ("relative_change", "refusal_rate")


def _rounded(value: float) -> float:
    return float(f"{value:.4g}") + 0.0


def _model_card(run: LoadedRun, entry: Mapping[str, Any]) -> str:
    from huggingface_hub import ModelCardData

    card = entry.get("card", {})
    data = ModelCardData(
        model_name=entry["name"],
        tags=["image-segmentation", "vision-language", "vlsm-harness"],
        eval_results=list(_results(run, entry["model_id"])),
    )
    spoken = [v for v in run.assessment.language if v.model_id == entry["model_id"]]
    harness = run.manifest.get("environment", {}).get("harness", "?")
    lines = [
        "---",
        data.to_yaml().rstrip(),
        "---",
        "",
        f"# {escaped(card.get('title') or entry['name'])}",
        "",
        f"Audited by vlsm-harness {escaped(harness)}, suite {escaped(run.suite.name)}, model id "
        f"`{entry['model_id']}`. Figures, limits and counts are in the head of this file.",
        *([] if (limited := limit_note(run.manifest)) is None else ["", limited]),
        "",
        "## What it listens to",
        "",
        *(f"- {escaped(v.reason)}" for v in spoken),
        *(["No verdict was asked for."] if not spoken else []),
    ]
    return "\n".join(lines) + "\n"


def _results(run: LoadedRun, model_id: str) -> "Iterator[EvalResult]":
    from huggingface_hub import EvalResult

    for figure in defined_figures(run, model_id):
        row = figure.row
        probe = "/".join(row[key] for key in ("probe", "attribute") if row[key] is not None)
        yield EvalResult(
            task_type="image-segmentation",
            task_name="Segmentation by a prompt",
            dataset_type=row["dataset"],
            dataset_name=row["dataset"],
            dataset_split=row["split"],
            metric_type=figure.metric,
            metric_name=f"{METRICS[figure.metric]}, {probe}",
            metric_value=figure.value,
            metric_args=figure.conditions,
        )


def _entries(run: LoadedRun, entry: Mapping[str, Any], benchmark: str) -> bytes:
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    found = []
    figures = list(defined_figures(run, entry["model_id"]))
    for name, figure in zip(task_names(figures), figures, strict=True):
        notes = {k: v for k, v in figure.conditions.items() if k not in ("probe", "attribute")}
        notes |= {"limit": run.manifest["limit"]} if limit_note(run.manifest) else {}
        found.append(
            EvalResultEntry(
                dataset_id=benchmark,
                task_id=name,
                value=figure.value,
                notes=", ".join(f"{k}: {v}" for k, v in notes.items()),
            )
        )
    plain = eval_result_entries_to_yaml(found)
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode()


def export_croissant(
    run: LoadedRun, sets: "Sequence[PlannedSet]", folder: Path
) -> tuple[list[Path], list[str]]:
    """What the data sets of a run hold, as Croissant: one folder each, and remarks.

    ``samples.parquet`` has one row a prompt: paths of the picture and the mask, relative to the
    data set's own folder, cluster and text. Beside it ``croissant.json`` describes it. Both belong
    into that folder when it is published.

    Raises:
        UsageError: `mlcroissant` is not installed.
    """
    if find_spec("mlcroissant") is None:
        raise UsageError(
            "--to croissant: the package 'mlcroissant' is not installed. It is an optional extra. "
            "Install it: pip install 'vlsm-harness[croissant]'."
        )
    written: dict[Path, bytes] = {}
    by_name: dict[str, list[PlannedSet]] = {}
    for planned in sets:
        by_name.setdefault(planned.card.name, []).append(planned)
    for name, own in by_name.items():
        # Of a CSV file the format's own reader takes the empty prompt, and "None", for nothing.
        table = parquet_bytes(_samples(own))
        written[folder / name / "samples.parquet"] = table
        written[folder / name / "croissant.json"] = _croissant(own[0], table).encode()
    replace_together(written)
    remarks = [
        f"{name}: {_privacy(own[0].card)}. The files hold its prompts and the names of its "
        "pictures. Do not publish them."
        for name, own in by_name.items()
        if name in run.private_sets
    ]
    return list(written), remarks


def _privacy(card: "DatasetCard") -> str:
    is_said = "private" in card.model_fields_set
    why = "its card calls it private" if is_said else "private, as its card says nothing else"
    is_licensed = "licence" in card.model_fields_set
    return f"{why} ({f'licence: {card.licence}' if is_licensed else 'it states no licence'})"


def _samples(sets: "Sequence[PlannedSet]") -> pl.DataFrame:
    from harness.data.layout import dataset_folder

    rows = [
        {
            "split": sample.split,
            "sample_id": sample.sample_id,
            "image": sample.image.relative_to(dataset_folder(one.card, one.root)).as_posix(),
            "mask": sample.mask.relative_to(dataset_folder(one.card, one.root)).as_posix(),
            "cluster_id": sample.cluster_id,
            "prompt_type": kind,
            "prompt": prompt.text,
        }
        for one in sets
        for sample in one.samples
        for kind, prompts in sample.prompts.items()
        for prompt in prompts
    ]
    return pl.DataFrame(rows, infer_schema_length=None).unique(maintain_order=True)


_COLUMNS = {
    "split": "Part of the data set.",
    "sample_id": "Name of the sample: of its mask.",
    "image": "File of the picture.",
    "mask": "File of the true mask.",
    "cluster_id": "Samples that share it are not independent of each other.",
    "prompt_type": "Which of the sample's texts it is.",
    "prompt": "The text; empty is the empty prompt.",
}


def _croissant(planned: "PlannedSet", table: bytes) -> str:
    """The description as JSON-LD, by the format's own library."""
    import json

    import mlcroissant as mlc

    card = planned.card
    fields = [
        mlc.Field(
            id=f"samples/{name}",
            name=name,
            description=text,
            data_types=[mlc.DataType.TEXT],
            source=mlc.Source(file_object="samples.parquet", extract=mlc.Extract(column=name)),
        )
        for name, text in _COLUMNS.items()
    ]
    found = mlc.Metadata(
        name=card.name,
        description=f"{card.title or card.name}. {card.modality}.",
        url=card.source if card.source.startswith("https://") else None,
        license=[card.licence],
        cite_as=card.source,
        version="1.0.0",
        distribution=[
            mlc.FileObject(
                id="samples.parquet",
                name="samples.parquet",
                content_url="samples.parquet",
                encoding_formats=["application/x-parquet"],
                sha256=hashlib.sha256(table).hexdigest(),
            )
        ],
        record_sets=[mlc.RecordSet(id="samples", name="samples", fields=fields)],
    )
    return json.dumps(found.to_json(), indent=1, ensure_ascii=False, default=str) + "\n"

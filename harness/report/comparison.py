"""A comparison of models as tables for a terminal, Markdown, a page and JSON.

Conventions: differences are the first model minus the second. Tables show Dice and agreement as
fractions and relative changes in percent; JSON and Parquet hold both in points, as `harness.stats`
does. Figures are rounded for reading only; nothing here holds times.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from harness.files.writing import json_bytes, parquet_bytes, replace_together
from harness.report.escape import code, escaped
from harness.report.page import rendered
from harness.report.sheet import Sheet, bullets, figure_cell, markdown_lines, number
from harness.stats.comparison.common import CHANGE, ORIGINAL, STEADINESS, Coverage
from harness.stats.comparison.compare import COMPARISON_VERSION, HOW, Comparison, Rank
from harness.stats.pairs import SET_KEYS

_DIGITS = 10
_RANKED = {
    ORIGINAL: "Dice of the original prompts",
    STEADINESS: "Steadiness: agreement with the original's mask when the meaning stays",
}
_RANK_HEADER = ("rank", "model", "not shown to differ from", "value [95 %]", "first in %")
_OVERALL_HEADER = ("model", "mean over data sets", "first in %")
_DATASET_HEADER = ("data set", "first on it", "first without it", "tau, others", "tau, all")
_PAIR_HEADER = (
    "figure",
    "probe",
    "attribute",
    "first",
    "second",
    "difference [95 %]",
    "p",
    "not better %",
    "differs?",
)
_READING = (
    "Difference: the first model's figure less the second's, over the same cases; percentage "
    "points of relative change, fractions of Dice and of agreement.",
    "Brackets: 95 % limits of a studentised bootstrap that resamples the clusters (and words, "
    "where 10 or more were drawn) of both models together. They are not adjusted for the number "
    "of rows; p is, within a pair and dataset, and over all pairs for what makes ranks.",
    "Steadiness: mean agreement between the masks before and after edits that keep the meaning. "
    "A model that ignores its prompt is perfectly steady.",
    HOW,
    "First in %, not better %: the share of resamples of the clusters in which the model is first, "
    "and in which the first of the two is not better than the second; ties share. They say how far "
    "the order depends on the pictures that were drawn, and are no probabilities that a model is "
    "better: between equal models any share is as likely as any other.",
    "Tau: Kendall's tau-b, 1 for the same order of the models and -1 for the reverse. Others: "
    "between the data set's order and that of the mean of all others; all: between the order "
    "without the data set and that of all. With two models it is 1 or -1: who is first.",
)


def sections(found: Comparison) -> Iterator[Sheet]:
    """Ranks of each set and over data sets, then the differences of each pair of models."""
    for key, rows in found.ranks.group_by(SET_KEYS, maintain_order=True):
        for (figure,), own in rows.group_by("figure", maintain_order=True):
            yield _of_ranks(str(figure), key, own.rows(named=True))
    for (figure,), rows in found.overall.group_by("figure", maintain_order=True):
        yield _overall(str(figure), rows.rows(named=True))
        own = found.datasets.filter(pl.col("figure") == figure)
        yield _over_datasets(str(figure), own.rows(named=True))
    differences = found.differences
    for (first, second), pair in differences.group_by("first", "second", maintain_order=True):
        for key, own in pair.group_by(SET_KEYS, maintain_order=True):
            yield _of_pair(f"{first} less {second}", key, own.rows(named=True))


def _of_ranks(figure: str, key: Sequence[Any], rows: Sequence[dict[str, Any]]) -> Sheet:
    cells = tuple(
        (
            Rank(row["rank"], row["last_rank"], ()).text if row["rank"] else "-",
            row["model"],
            ", ".join(row["tied_with"]) or "-",
            figure_cell(row["value"], 3, row["low"], row["high"]),
            _share_text(row["rank_1_share"]),
        )
        for row in rows
    )
    reasons = dict.fromkeys(f"{row['model']}: {row['reason']}" for row in rows if row["reason"])
    return Sheet(
        name="ranks",
        title=f"{_RANKED[figure]}, {_set_text(key)}",
        lead=_behind(rows[0]) + "".join(f" Not ranked: {text}." for text in reasons),
        header=_RANK_HEADER,
        rows=cells,
        n_text=3,
    )


def _overall(figure: str, rows: Sequence[dict[str, Any]]) -> Sheet:
    return Sheet(
        name="ranks-overall",
        title=f"{_RANKED[figure]}, mean of {rows[0]['n_datasets']} data sets",
        lead="Models with a rank in every set; data sets weigh the same.",
        header=_OVERALL_HEADER,
        rows=tuple(
            (row["model"], number(row["value"], 3), _share_text(row["rank_1_share"]))
            for row in rows
        ),
        n_text=1,
    )


def _over_datasets(figure: str, rows: Sequence[dict[str, Any]]) -> Sheet:
    moved = [row["dataset"] for row in rows if row["first_without"] != rows[0]["first_of_all"]]
    first = ", ".join(rows[0]["first_of_all"])
    lead = f"First over all: {first}; " + (
        f"another without {', '.join(moved)}."
        if moved
        else "the same whichever data set is left out."
    )
    return Sheet(
        name="ranks-by-data-set",
        title=f"{_RANKED[figure]}: with and without each data set",
        lead=lead,
        header=_DATASET_HEADER,
        rows=tuple(
            (
                row["dataset"],
                ", ".join(row["first"]),
                ", ".join(row["first_without"]),
                number(row["tau_others"], 2),
                number(row["tau_whole"], 2),
            )
            for row in rows
        ),
        n_text=3,
    )


def _share_text(share: float | None) -> str:
    return number(None if share is None else 100 * share, 1)


def _of_pair(title: str, key: Sequence[Any], rows: Sequence[dict[str, Any]]) -> Sheet:
    return Sheet(
        name="differences",
        title=f"{title}, {_set_text(key)}",
        lead=_behind(rows[0]),
        header=_PAIR_HEADER,
        rows=tuple(_cells(row) for row in rows),
        n_text=3,
    )


def _behind(row: dict[str, Any]) -> str:
    return f"{row['n_samples']} samples, {row['n_clusters']} clusters."


def _set_text(key: Sequence[Any]) -> str:
    dataset, split, prompts, prompt_type = key
    words = "" if prompts == "released" else f", {prompts} prompts"
    return f"{dataset} ({split}, {prompt_type}{words})"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    digits, scale = (1, 1.0) if row["figure"] == CHANGE else (3, 0.01)
    columns = ("value_first", "value_second", "difference", "low", "high")
    first, second, difference, low, high = (scale * row[name] for name in columns)
    shown = {True: "yes", False: "not shown", None: row["reason"] or "-"}[row["differs"]]
    note = f" ({row['note']})" if row["note"] else ""
    figure, over_all = {
        CHANGE: ("change %", ""),
        ORIGINAL: ("Dice", "original prompts"),
        STEADINESS: ("agreement", "all that keep the meaning"),
    }[row["figure"]]
    return (
        figure,
        row["probe"] or over_all,
        row["attribute"] or "whole prompt",
        number(first, digits),
        number(second, digits),
        figure_cell(difference, digits, low, high),
        _p_text(row["p_adjusted"]),
        _share_text(row["not_better_share"]),
        shown + note,
    )


def _p_text(p: float) -> str:
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def coverage_sentences(coverage: Sequence[Coverage]) -> Iterator[str]:
    """What is compared, and what was left out and why, a sentence each; not escaped."""
    first = coverage[0]
    plans = {c.plan_sha256 for c in coverage}
    if len(plans) == 1:
        yield f"One plan ({first.plan_sha256[:12]}): {first.n_planned} cases of each model."
    else:
        yield "The plans differ: only the cases that stand in every plan are compared."
    runs: dict[tuple[str, int, int, int], list[str]] = {}
    for c in coverage:
        runs.setdefault((c.run, c.n_planned, c.n_common, c.n_compared), []).append(c.label)
    for (run, n_planned, n_common, n_compared), labels in runs.items():
        yield (
            f"{', '.join(labels)} ({run}): {n_compared} of {n_planned} cases are compared; "
            f"{n_planned - n_common} are not in every plan, {n_common - n_compared} have no Dice "
            "for every model (failed, missing, undefined or cut away)."
        )
    yield from (f"{c.label}: {c.note}." for c in coverage if c.note)


def coverage_lines(found: Comparison) -> Iterator[str]:
    """The same, and whether so few draws can show anything."""
    yield from coverage_sentences(found.coverage)
    if found.n_tests_too_many:
        yield (
            f"With so few draws none of {found.n_tests_too_many} tests of one family can be "
            "significant after correction: give more --draws."
        )


def comparison_markdown(found: Comparison) -> str:
    """The text of ``comparison.md``."""
    lines = ["# Comparison of models", ""]
    lines += bullets([*map(escaped, coverage_lines(found)), code(found.signature)])
    for section in sections(found):
        lines += ["", *markdown_lines(section)]
    lines += ["", "## How to read this", "", *bullets(_READING)]
    return "\n".join(lines) + "\n"


def comparison_html(found: Comparison) -> str:
    """The text of ``comparison.html``."""
    return rendered(
        "comparison.html.j2",
        title="Comparison of models",
        sheets=list(sections(found)),
        coverage=[*coverage_lines(found), found.signature],
        reading=_READING,
    )


def comparison_json(found: Comparison) -> str:
    """The same for programs: undefined figures are null."""
    return json.dumps(_content(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _content(found: Comparison) -> dict[str, Any]:
    return {
        "version": COMPARISON_VERSION,
        "signature": found.signature,
        "coverage": [c._asdict() for c in found.coverage],
        "ranks": _records(found.ranks),
        "overall": _records(found.overall),
        "datasets": _records(found.datasets),
        "differences": _records(found.differences),
    }


def _records(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return [{k: _plain(v) for k, v in row.items()} for row in frame.iter_rows(named=True)]


def _plain(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    # Adding 0 turns -0.0, a matter of rounding, into 0.0.
    return float(f"{value:.{_DIGITS}g}") + 0.0 if math.isfinite(value) else None


def write_comparison(found: Comparison, folder: Path) -> list[Path]:
    """Write ``comparison.{md,html,json}``, ``differences.parquet`` and ``ranks.parquet``."""
    content = {
        "comparison.md": comparison_markdown(found).encode(),
        "comparison.html": comparison_html(found).encode(),
        "comparison.json": json_bytes(_content(found)),
        "differences.parquet": parquet_bytes(found.differences),
        "ranks.parquet": parquet_bytes(found.ranks),
    }
    replace_together({folder / name: data for name, data in content.items()})
    return [folder / name for name in content]

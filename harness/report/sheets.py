"""The tables of a report, from the frames of a run.

Conventions: a sheet shows at most `MOST_ROWS` rows and says so; its files hold all. Percent and
points have one decimal, Dice and agreement three; brackets are 95 % limits, unadjusted.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from harness.report.headline import most_telling
from harness.report.run_data import RunData
from harness.report.sheet import Sheet, count_cell, figure_cell, interval, number, text_cells
from harness.report.table import (
    AWAY,
    ORIGINAL,
    REFUSAL_HEADER,
    SURFACE_HEADER,
    has_surface,
    refusal_cells,
    refusal_names,
)
from harness.runs.store import NO_ANSWER
from harness.stats.language import WHOLE, LanguageVerdict
from harness.stats.refusal import FIGURES
from harness.stats.verdicts import answer_text, expectation_text

MOST_ROWS = 1500
MOST_WORDS = 200
Row = Mapping[str, Any]


def _sheet(
    name: str, title: str, header: Sequence[str], rows: Iterator[tuple[str, ...]], n_text: int,
    data: pl.DataFrame, most: int = MOST_ROWS,
) -> Sheet:  # fmt: skip
    found = [row for _, row in zip(range(most), rows, strict=False)]
    if data.height > most:
        title = f"{title}: the first {most:,} of {data.height:,} rows; the CSV holds all"
    return Sheet(name, title, tuple(header), tuple(found), n_text, data)


def overview_sheet(run: RunData) -> Sheet:
    """A row a model: of the data set that says most, what it hears, refuses and keeps."""
    found = [v for v in most_telling(run.assessment.language) if v.is_asked]
    names = sorted({e.attribute or WHOLE for v in found for e in v.evidence}, key=_whole_last)
    one_set = len({v.dataset for v in found}) == 1
    header = ("model", *([] if one_set else ["data set"]), *names, "not there", "same meaning",
              "Dice [95 %]", "clusters")  # fmt: skip
    rows = (
        (
            *text_cells((v.model, *([] if one_set else [v.dataset]))),
            *(_heard(v, name) for name in names),
            _refused(v), v.steadiness, _dice_on(v, run.summary),
            count_cell(max((e.n_clusters for e in v.evidence), default=None)),
        )
        for v in found
    )  # fmt: skip
    on = f" on {found[0].dataset}" if one_set else ""
    title = f"What each model hears{on}: the change of Dice in % that shows it best"
    return _sheet("overview", title, header, rows, len(header) - 2, run.language)


def _whole_last(name: str) -> tuple[bool, str]:
    return name == WHOLE, name


def _refused(verdict: LanguageVerdict) -> str:
    rate = 100 * verdict.refusal_rate[0]
    return f"{verdict.refusal} {number(rate, 0)} %" if math.isfinite(rate) else verdict.refusal


def _dice_on(verdict: LanguageVerdict, summary: pl.DataFrame) -> str:
    """Of the original prompts; from the lowest to the highest where the set has several splits."""
    keys = ("model_id", "dataset", "prompts", "prompt_type")
    own = summary.filter(
        pl.col("probe") == ORIGINAL, *(pl.col(k) == getattr(verdict, k) for k in keys)
    ).sort("dice")
    if own.height == 1:
        return interval(own.row(0, named=True), "dice", "", 3)
    least, most = (number(own["dice"][n], 3) for n in (0, -1))
    return f"{least} to {most}"


def _heard(verdict: LanguageVerdict, name: str) -> str:
    """The state of an attribute, and the largest change that its probes show."""
    states = {"heard": verdict.heard, "unheard": verdict.unheard, "?": verdict.unclear}
    word = next((word for word, names in states.items() if name in names), "-")
    own = (e for e in verdict.evidence if (e.attribute or WHOLE) == name)
    known = [e.change[0] for e in own if math.isfinite(e.change[0])]
    return f"{word} {number(max(known, key=abs), 0)}" if known else word


def originals_sheet(summary: pl.DataFrame) -> Sheet:
    """Dice of the original prompts."""
    rows = summary.filter(pl.col("probe") == ORIGINAL)
    header = ("model", "data set", "split", "type", "prompts", "Dice [95 %]", "samples",
              "clusters", "empty masks, %")  # fmt: skip
    cells = (
        (
            *text_cells(r[k] for k in ("model", "dataset", "split", "prompt_type", "prompts")),
            interval(r, "dice", "", 3), count_cell(r["n_samples"]), count_cell(r["n_clusters"]),
            figure_cell(100 * r["originals_empty_share"], 1),
        )
        for r in rows.iter_rows(named=True)
    )  # fmt: skip
    return _sheet("originals", "Dice of the original prompts", header, cells, 5, rows)


def probes_sheet(summary: pl.DataFrame) -> Sheet:
    """Every probe on every set."""
    rows = summary.filter(~pl.col("probe").is_in([ORIGINAL, AWAY]), pl.col("n_cases") > 0)
    header = ("model", "data set", "split", "type", "probe", "attribute", "meaning", "holds?",
              "change % [95 %]", "points", "Dice after", "agreement", "smallest visible %",
              "samples", "clusters", "not applicable", "prompts cut")  # fmt: skip
    keys = ("model", "dataset", "split", "prompt_type", "probe", "attribute", "meaning")
    cells = (
        (
            *text_cells(r[k] for k in keys), answer_text(r["expectation"], r["verdict"]),
            _change(r),
            figure_cell(r["change_points"], 1), figure_cell(r["dice"], 3),
            figure_cell(r["agreement"], 3), figure_cell(r["smallest_effect_percent"], 1),
            count_cell(r["n_samples"]), count_cell(r["n_clusters"]),
            count_cell(r["n_not_applicable"]), count_cell(r["n_truncated"]),
        )
        for r in rows.iter_rows(named=True)
    )  # fmt: skip
    return _sheet("probes", "Every probe", header, cells, 8, summary)


def _change(row: Row) -> str:
    if row["reason"]:
        return str(row["reason"])
    return interval(row, "relative_change", "_percent", 1)


def away_sheet(summary: pl.DataFrame) -> Sheet:
    """Dice away from the sets of training."""
    rows = summary.filter(pl.col("probe") == AWAY)
    header = ("model", "data set", "split", "against", "control", "change % [95 %]",
              "control's change %", "beyond it [95 %]", "Dice", "samples")  # fmt: skip
    cells = (
        (
            *text_cells(r[k] for k in ("model", "dataset", "split", "in_distribution", "control")),
            _change(r), figure_cell(r["control_change_percent"], 1),
            interval(r, "beyond_control", "_percent", 1), figure_cell(r["dice"], 3),
            count_cell(r["n_samples"]),
        )
        for r in rows.iter_rows(named=True)
    )  # fmt: skip
    return _sheet("away", "Away from the sets of training", header, cells, 5, rows)


def expectations_sheet(run: RunData) -> Sheet:
    """Every expectation with its verdict: failures that bind first."""
    order = {"fails": 0, "inconclusive": 1, "holds": 2}
    found = sorted(run.assessment.verdicts, key=lambda v: (not v.binding, order[v.verdict]))
    header = ("model", "data set", "split", "probe", "attribute", "expectation", "binding",
              "verdict", "why", "p, corrected", "flips at", "clusters")  # fmt: skip
    cells = (
        (
            *text_cells((v.model, v.dataset, v.split, v.probe, v.attribute, expectation_text(v))),
            "yes" if v.binding else "no", v.verdict, v.reason,
            figure_cell(v.p_adjusted, 4), figure_cell(v.flips_at, 2), count_cell(v.n_clusters),
        )
        for v in found
    )  # fmt: skip
    return _sheet("expectations", "Expectations and verdicts", header, cells, 9, run.verdicts)


def language_sheet(run: RunData) -> Sheet:
    """Language verdicts with what blocks and confounds them."""
    found = [v for v in run.assessment.language if v.is_asked]
    header = ("model", "data set", "type", "language", "steadiness", "refusal", "why",
              "read beside it")  # fmt: skip
    cells = (
        text_cells(
            (
                v.model, v.dataset, v.prompt_type, v.language, v.steadiness, v.refusal, v.reason,
                " ".join((*v.blocking, *v.confounds)) or "-",
            )
        )
        for v in found
    )  # fmt: skip
    data = run.language.drop("evidence", "refusals") if run.language.height else run.language
    return _sheet("language", "Language verdicts", header, cells, 8, data)


def refusal_sheet(summary: pl.DataFrame) -> Sheet:
    """What prompts for absent things are answered."""
    rows = summary.filter(pl.col("n_samples_refusal") > 0)
    header = ("model", "data set", "split", *REFUSAL_HEADER)
    cells = (
        text_cells((r["model"], r["dataset"], r["split"], *refusal_names(r)))
        + tuple(refusal_cells(r))
        for r in rows.iter_rows(named=True)
    )
    kept = (*("model", "model_id", "dataset", "split", "prompts", "prompt_type", "probe"),
            "absent_kind", *(c for c in rows.columns if c.startswith(FIGURES)),
            "elsewhere_share", "n_samples_refusal", "n_clusters_refusal",
            "n_samples_present")  # fmt: skip
    return _sheet("refusal", "What is not there", header, cells, 5, rows.select(kept))


def words_sheet(effects: pl.DataFrame, names: Mapping[str, str]) -> Sheet:
    """The change that each random word makes."""
    header = ("model", "data set", "split", "probe", "attribute", "word", "change %",
              "Dice before", "Dice after", "cases")  # fmt: skip
    rows = effects.sort("change_percent", "model_id", "word", nulls_last=True)
    cells = (
        (
            *text_cells((names.get(r["model_id"], r["model_id"]), r["dataset"], r["split"],
                         r["probe"], r["attribute"], r["word"])),
            figure_cell(r["change_percent"], 1), figure_cell(r["before"], 3),
            figure_cell(r["after"], 3), count_cell(r["n_cases"]),
        )
        for r in rows.iter_rows(named=True)
    )  # fmt: skip
    return _sheet("words", "Random words, worst first", header, cells, 6, rows, MOST_WORDS)


def subgroups_sheet(groups: pl.DataFrame, names: Mapping[str, str]) -> Sheet:
    """Dice and its change in sub-groups."""
    header = ("model", "by", "group", "meaning", "change %", "Dice before", "Dice after", "samples")
    cells = (
        (
            *text_cells((names.get(r["model_id"], r["model_id"]), r["grouping"], r["group"],
                         r["meaning"])),
            figure_cell(None if r["meaning"] == "original" else r["change_percent"], 1),
            figure_cell(r["dice_original"], 3), figure_cell(r["dice"], 3),
            count_cell(r["n_samples"]),
        )
        for r in groups.iter_rows(named=True)
    )  # fmt: skip
    return _sheet("subgroups", "Sub-groups of the samples", header, cells, 4, groups)


def surface_sheet(summary: pl.DataFrame) -> Sheet:
    """Mean distances between contours, with the cases that have none."""
    rows = [r for r in summary.iter_rows(named=True) if has_surface(r)]
    keys = ("model", "dataset", "split", "prompt_type", "probe", "attribute")
    header = ("model", "data set", "split", "type", *SURFACE_HEADER)
    cells = (
        (
            *text_cells(r[k] for k in keys), figure_cell(r["hausdorff_px"], 1),
            figure_cell(r["hd95_px"], 1), figure_cell(r["nsd"], 3),
            count_cell(r["n_surface"]), count_cell(r["n_one_empty"]),
        )
        for r in rows
    )  # fmt: skip
    data = pl.DataFrame(rows, schema=summary.schema)
    return _sheet("surface", "Distances between contours", header, cells, 6, data)


def not_applicable_sheet(rows: pl.DataFrame) -> Sheet:
    """What did not apply, and why."""
    keys = ("dataset", "split", "prompt_type", "probe", "attribute", "reason")
    header = ("data set", "split", "type", "probe", "attribute", "why", "samples")
    ordered = rows.sort("n_samples", *keys, descending=[True, *[False] * len(keys)])
    cells = (
        (*text_cells(r[k] for k in keys), count_cell(r["n_samples"]))
        for r in ordered.iter_rows(named=True)
    )
    return _sheet("not-applicable", "What did not apply", header, cells, 6, ordered)


def failures_sheet(rows: pl.DataFrame, names: Mapping[str, str]) -> Sheet:
    """What failed or has no answer, and how often."""
    header = ("model", "error", "cases")
    cells = (
        (*text_cells((names.get(r["model_id"], r["model_id"]), r["error"])), count_cell(r["n"]))
        for r in rows.iter_rows(named=True)
    )
    return _sheet("failures", "What failed", header, cells, 2, rows)


def failures(scores: pl.LazyFrame) -> pl.DataFrame:
    """Errors with their number of cases, most first; cases without an answer beside empty masks."""
    told = scores.filter(pl.col("error").is_not_null())
    failed = told.group_by("model_id", "error").agg(n=pl.len()).collect(engine="streaming")
    silent = failed.filter(pl.col("error") == NO_ANSWER)["model_id"].to_list()
    if silent:
        empty = scores.filter(pl.col("model_id").is_in(silent), pl.col("error").is_null())
        counted = empty.group_by("model_id").agg(n=(pl.col("n_pred") == 0).sum())
        said = pl.lit("no error: an empty mask, as an answer").alias("error")
        beside = counted.select("model_id", said, pl.col("n").cast(pl.UInt32))
        failed = pl.concat([failed, beside.collect(engine="streaming")])
    return failed.sort("n", "model_id", "error", descending=[True, False, False])

"""The tables of a report, from the frames of a run.

Conventions: a sheet shows at most `MOST_ROWS` rows and says so; its files hold all. Percent and
points have one decimal, Dice and agreement three; brackets are 95 % limits, unadjusted.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from harness.records import Meaning
from harness.report.headline import most_telling, would_refuse, would_steady, would_tell
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
from harness.stats.assessment import Assessment
from harness.stats.flips import Flip
from harness.stats.language import WHOLE, Evidence, LanguageVerdict, name_of
from harness.stats.refusal import FIGURES
from harness.stats.verdicts import (
    FEW,
    Verdict,
    answer_text,
    expectation_text,
    simulated_coverage,
)

KEYS = ("model_id", "dataset", "prompts", "prompt_type")
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


def overview_sheet(found: Assessment) -> Sheet:
    """A row a model: of the data set that says most, what it hears, refuses and keeps.

    After a semicolon stands what would tell where a cell cannot, and what intervals over few
    clusters cover.
    """
    spoken = [v for v in most_telling(found.language) if v.is_asked]
    names = sorted({name_of(e) for v in spoken for e in v.evidence}, key=_whole_last)
    one_set = len({v.dataset for v in spoken}) == 1
    opposites = _opposites(found.summary)
    header = ("model", *([] if one_set else ["data set"]), *names, "not there", "same meaning",
              "Dice", "clusters")  # fmt: skip
    rows = (
        (
            *text_cells((v.model, *([] if one_set else [v.dataset]))),
            *(_heard(v, name, opposites) for name in names),
            _refused(v), _steady(v, found.verdicts),
            _dice_on(v, found.summary), _few(v),
        )
        for v in spoken
    )  # fmt: skip
    on = f" on {spoken[0].dataset}" if one_set else ""
    title = f"What each model hears{on}: the change of Dice in %"
    return _sheet("overview", title, header, rows, len(header), pl.DataFrame())


OVERVIEW_NOTE = (
    "Heard, unheard (moved, unmoved where no other target is known): by the verdict, with the "
    "change when the word becomes its opposite, or of what else shows it the largest. “?”: cannot "
    "tell, with what would: ≈ N clusters, were the figures to stay as they are; “moves elsewhere”: "
    "the mask moves, and not where the word points; “names no target”: the changed prompt "
    "describes nothing in its picture. Not there: the share of prompts for absent things that is "
    "answered with an empty mask. Dice: of the original prompts, with its interval, or from the "
    "lowest split to the highest. Clusters: independent pictures behind a change, and up to 50 the "
    "percentage of simulated studies in which 95 % intervals over so few held the truth "
    "(reports/statistics.md)."
)


def flips_sheet(found: Assessment) -> tuple[Sheet, list[list[Flip | None]]]:
    """Where the verdicts of the overview would be others, and the curves behind its cells."""
    spoken = [v for v in most_telling(found.language) if v.flips]
    order = {"language": 0, WHOLE: 2, "refusal": 3, "steadiness": 4}
    names = sorted({c.of for v in spoken for c in v.flips}, key=lambda n: (order.get(n, 1), n))
    curves = [[{c.of: c for c in v.flips}.get(name) for name in names] for v in spoken]
    rows = (
        (*text_cells([v.model]), *("-" if curve is None else curve.text() for curve in own))
        for v, own in zip(spoken, curves, strict=True)
    )
    header = ("model", *(_judged(name, curves, k) for k, name in enumerate(names)))
    title = "Margins at which the verdicts would be others"
    return _sheet("flips", title, header, rows, len(header), pl.DataFrame()), curves


FLIPS_NOTE = (
    "Each verdict over the margin that it is judged with (in brackets, and the mark on the bar; in "
    "percent, the bar by its square root): shown to go beyond it up to one margin, shown to stay "
    "within it from another on, and open between them. “To 40”: it would be open from 40 % on. Of "
    "what is not there the bound on the refusal rate is moved. Words flip together, as one margin "
    "is moved for all; those that keep the meaning each with the others as they are."
)


def _judged(name: str, curves: Sequence[Sequence[Flip | None]], place: int) -> str:
    """The head of a column: what is judged, and the margin or bound of the suite."""
    called = {"refusal": "not there", "steadiness": "same meaning", "language": "any word"}
    one = next(curve for own in curves if (curve := own[place]) is not None)
    judged_at = 100 * one.judged_at if one.unit == "fraction" else one.judged_at
    return f"{called.get(name, name)} ({judged_at:g}\u00a0%)"


def _whole_last(name: str) -> tuple[bool, str]:
    return name == WHOLE, name


def _refused(verdict: LanguageVerdict) -> str:
    rate = 100 * verdict.refusal_rate[0]
    word = "?" if verdict.refusal == "cannot tell" else verdict.refusal
    if word == "?":
        return f"? {number(rate, 0)} %; {would_refuse(verdict)}"
    return f"{word}; {number(rate, 0)} %" if math.isfinite(rate) else word


def _steady(verdict: LanguageVerdict, outcomes: Sequence[Verdict]) -> str:
    if verdict.steadiness != "cannot tell":
        return verdict.steadiness
    keys = ("model_id", "dataset", "prompts", "prompt_type")
    own = (
        v
        for v in outcomes
        if v.meaning == Meaning.PRESERVED
        and all(getattr(v, k) == getattr(verdict, k) for k in keys)
    )
    return f"?; {would_steady(own)}"


def _few(verdict: LanguageVerdict) -> str:
    count = max((e.n_clusters for e in verdict.evidence), default=verdict.n_clusters)
    covered = simulated_coverage(verdict.n_clusters) if 0 < verdict.n_clusters <= FEW else None
    text = count_cell(count or None)
    return f"{text}; {covered[0]:.0f} to {covered[1]:.0f} %" if covered else text


def _dice_on(verdict: LanguageVerdict, summary: pl.DataFrame) -> str:
    """Of the original prompts; from the lowest to the highest where the set has several splits."""
    own = summary.filter(
        pl.col("probe") == ORIGINAL, *(pl.col(k) == getattr(verdict, k) for k in KEYS)
    ).sort("dice")
    if own.height == 1:
        return interval(own.row(0, named=True), "dice", "", 3)
    if own.is_empty():
        return "-"
    least, most = (number(own["dice"][n], 3) for n in (0, -1))
    return f"{least} to {most}"


def _opposites(summary: pl.DataFrame) -> set[tuple[str, ...]]:
    """Data set, split and probe where a word becomes its opposite."""
    rows = summary.filter(pl.col("perturbation") == "antonym")
    return set(rows.select("dataset", "split", "probe").iter_rows())


def _heard(verdict: LanguageVerdict, name: str, opposites: Collection[tuple[str, ...]]) -> str:
    """The state of an attribute, with a change that shows it: under its opposite, if that does."""
    yes, no = ("heard", "unheard") if verdict.named_targets else ("moved", "unmoved")
    states = {yes: verdict.heard, no: verdict.unheard, "?": verdict.unclear}
    word = next((word for word, names in states.items() if name in names), "-")
    own = [e for e in verdict.evidence if name_of(e) == name and math.isfinite(e.change[0])]
    state = {yes: "heard", no: "unheard"}.get(word, "unclear")

    def shows(evidence: Evidence) -> tuple[bool, bool, bool, float]:
        is_opposite = (verdict.dataset, evidence.split, evidence.probe) in opposites
        is_alone = is_opposite and evidence.split == name
        return evidence.state == state, is_alone, is_opposite, abs(evidence.change[0])

    text = f"{word} {number(max(own, key=shows).change[0], 0)}" if own else word
    return f"{text}; {would_tell(verdict, name)}" if word == "?" else text


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
    header = ("model", "data set", "split", "type", "probe", "attribute", "meaning", "answer",
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
    nested = [c for c in ("evidence", "refusals", "flips") if c in run.language.columns]
    data = run.language.drop(nested)
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

"""The tables of a summary, as the terminal and the Markdown page show them.

Conventions: figures are rounded for reading only; an undefined figure is ``-`` and
its reason stands in the notes. Nothing is escaped here.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from harness.report.sheet import Sheet, figure_cell, interval, number, renderable
from harness.stats.language import LanguageVerdict, shortened
from harness.stats.verdicts import Verdict, answer_text, expectation_text

if TYPE_CHECKING:
    from rich.console import Group

AWAY = "out_of_distribution"
ORIGINAL = "original"

PROBE_HEADER = (
    *("probe", "attribute"),
    *("change % [95 %]", "points", "agree", "answer", "n (clusters)", "n/a"),
)
REFUSAL_HEADER = (
    *("probe", "kind"),
    *("refusal rate [95 %]", "painted, %", "aligned", "MCC [95 %]", "Dice x MCC", "missed"),
    "n (clusters)",
)
REFUSAL_LEAD = (
    "Prompts whose right mask is empty. Refusal rate: share whose mask is nearly empty. Painted: "
    "share of the picture; aligned: of that, the share on the mask of the original prompt (right "
    "place, wrong word). MCC: of painting something with the target being there, over these and "
    "their originals; 0 where every prompt is answered alike. Missed: originals whose target "
    "is there and whose mask is nearly empty."
)
SURFACE_HEADER = (
    *("probe", "attribute"),
    *("Hausdorff, px", "hd95, px", "nsd", "two masks", "one mask empty"),
)
SURFACE_LEAD = (
    "Means over cases, in pixels of the compared masks. Distances are of the cases with two masks: "
    "where one is empty (a missed lesion, or a mask where none should be) there is none; nsd is 0."
)
AWAY_HEADER = (
    "dataset",
    *("change % [95 %]", "control", "beyond it [95 %]", "Dice", "samples (clusters)"),
)

Row = dict[str, Any]


def sections(summary: pl.DataFrame, verdicts: Sequence[Verdict] = ()) -> Iterator[Sheet]:
    """A section for each model and dataset, then one a model for the other datasets.

    Of `verdicts` those that bind stand in the notes.
    """
    ids = summary.select("model", "model_id").unique()["model"].to_list()
    for (name, model_id), rows in _grouped(summary, ["model", "model_id"]):
        model = name if ids.count(name) == 1 else model_id
        inside = rows.filter(pl.col("probe") != AWAY)
        for _, one in _grouped(inside, ["dataset", "split", "prompts", "prompt_type"]):
            yield _of_dataset(model, one.rows(named=True), verdicts)
            if asked := [r for r in one.rows(named=True) if r["n_samples_refusal"]]:
                yield _of_refusal(model, asked)
            if measured := [r for r in one.rows(named=True) if has_surface(r)]:
                yield _of_surface(model, measured)
        away = rows.filter(pl.col("probe") == AWAY).rows(named=True)
        if away:
            yield _of_away(model, away)


def tables(summary: pl.DataFrame) -> "Iterator[Group]":
    """One renderable a section: title, lead, table; its notes stand in the Markdown file."""
    return map(renderable, sections(summary))


def _grouped(frame: pl.DataFrame, keys: list[str]) -> Iterator[tuple[Any, pl.DataFrame]]:
    return iter(frame.group_by(keys, maintain_order=True))


_SET = ("model_id", "dataset", "split", "prompts", "prompt_type")


def _of_dataset(model: str, rows: list[Row], verdicts: Sequence[Verdict]) -> Sheet:
    first = rows[0]
    original = next((r for r in rows if r["probe"] == ORIGINAL), first)
    probes = [r for r in rows if r["probe"] != ORIGINAL]
    lead = (
        f"Dice of the original prompts: {interval(original, 'dice', '', 3)}; "
        f"{original['n_samples']} samples, "
        f"{original['n_clusters']} clusters ({first['cluster_kind']})."
    )
    return Sheet(
        name="probes",
        title=f"{model} on {first['dataset']} ({_which(first)})",
        lead=lead,
        header=PROBE_HEADER,
        rows=tuple(_probe_cells(r) for r in probes),
        n_text=2,
        notes=(*_shared_notes({_label(r): _facts(r) for r in rows}), *_bound(first, verdicts)),
    )


def _of_refusal(model: str, rows: list[Row]) -> Sheet:
    return Sheet(
        name="refusal",
        title=f"{model} on {rows[0]['dataset']} ({_which(rows[0])}): what is not there",
        lead=REFUSAL_LEAD,
        header=REFUSAL_HEADER,
        rows=tuple((*refusal_names(r), *refusal_cells(r)) for r in rows),
        n_text=2,
    )


def refusal_names(row: Row) -> tuple[str, str]:
    """The probe, or that the own mask is empty, and the kind of what is absent."""
    probe = "own mask empty" if row["probe"] == ORIGINAL else _label(row)
    return probe, row["absent_kind"] or "-"


def refusal_cells(row: Row) -> tuple[str, ...]:
    """What prompts for absent things are answered, under `REFUSAL_HEADER`."""
    return (
        interval(row, "refusal_rate", "", 3),
        figure_cell(100 * row["false_positive_area"], 2),
        figure_cell(row["aligned_share"], 3),
        interval(row, "mcc", "", 3),
        figure_cell(row["dice_mcc"], 3),
        figure_cell(row["miss_rate"], 3),
        f"{row['n_samples_refusal']} ({row['n_clusters_refusal']})",
    )


CURVE_LEAD = (
    "Dice, missed and MCC: of the original prompts and those for what is not there. Chosen: where "
    "validation data have the best Dice, a split called val or each half of the clusters."
)


def curve_sheets(curve: pl.DataFrame, names: Mapping[str, str]) -> Iterator[Sheet]:
    """Refusal against Dice over thresholds, a table for each model and data set."""
    for (model_id, dataset), rows in _grouped(curve, ["model_id", "dataset"]):
        yield Sheet(
            name="thresholds",
            title=f"{names.get(str(model_id), str(model_id))!s} on {dataset!s}: over thresholds",
            lead=CURVE_LEAD,
            header=("threshold", "verdict", "Dice", "missed", "refusal rate [95 %]", "Dice x MCC"),
            rows=tuple(_curve_cells(row) for row in rows.iter_rows(named=True)),
            n_text=2,
            data=rows,
            notes=(curve_note(rows),),
        )


def _curve_cells(row: Row) -> tuple[str, ...]:
    chosen = f" (chosen {row['chosen']} of {row['n_choices']})" if row["chosen"] else ""
    return (
        f"{row['threshold']:.2f}{chosen}",
        row["refusal"],
        number(row["dice"], 3),
        number(row["miss_rate"], 3),
        interval(row, "refusal_rate", "", 3),
        number(row["dice_mcc"], 3),
    )


def curve_note(rows: pl.DataFrame) -> str:
    """Over which thresholds each verdict on refusal stands."""
    ranges = []
    for verdict in dict.fromkeys(rows["refusal"]):
        own = rows.filter(pl.col("refusal") == verdict)["threshold"].to_list()
        ends = f"{own[0]:.2f} to {own[-1]:.2f}"
        ranges.append(f"{verdict} at {len(own)} of {rows.height} ({ends})")
    one = "the verdict stands over the whole range" if len(ranges) == 1 else "it changes"
    return f"Refusal over thresholds: {one}: {', '.join(ranges)}."


def has_surface(row: Row) -> bool:
    """Whether the contours of a row's masks were compared."""
    return bool(row["n_surface"] or row["n_one_empty"])


def _of_surface(model: str, rows: list[Row]) -> Sheet:
    return Sheet(
        name="surface",
        title=f"{model} on {rows[0]['dataset']} ({_which(rows[0])}): distances between contours",
        lead=SURFACE_LEAD,
        header=SURFACE_HEADER,
        rows=tuple(
            (
                *(r["probe"], r["attribute"] or "whole prompt"),
                *(number(r["hausdorff_px"], 1), number(r["hd95_px"], 1), number(r["nsd"], 3)),
                *(str(r["n_surface"]), str(r["n_one_empty"])),
            )
            for r in rows
        ),
        n_text=2,
    )


def _bound(row: Row, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """What binding verdicts say that do not hold: failures first."""
    own = [v for v in verdicts if v.binding and all(getattr(v, k) == row[k] for k in _SET)]
    own = [v for v in own if v.verdict != "holds"]
    for verdict in sorted(own, key=lambda v: v.verdict != "fails"):
        label = " ".join(filter(None, (verdict.probe, verdict.attribute)))
        yield f"{label}: {expectation_text(verdict)} {_IN_WORDS[verdict.verdict]}. {_why(verdict)}"


_IN_WORDS = {"fails": "fails", "inconclusive": "is open"}


def _why(verdict: Verdict) -> str:
    """The reason; of an open invariance what the table does not show."""
    is_open = verdict.verdict == "inconclusive" and verdict.test != "none"
    last = verdict.reason.rpartition("; ")[2]
    return (
        last[:1].upper() + last[1:] if is_open and verdict.kind == "invariance" else verdict.reason
    )


def _which(row: Row) -> str:
    """Split and prompts; the released ones go without saying."""
    source = [] if row["prompts"] == "released" else [f"{row['prompts']} prompts"]
    return ", ".join([row["split"], row["prompt_type"], *source])


def _label(row: Row) -> str:
    if row["probe"] == ORIGINAL:
        return "original prompts"
    return " ".join(filter(None, (row["probe"], row["attribute"])))


def _probe_cells(row: Row) -> tuple[str, ...]:
    return (
        row["probe"],
        row["attribute"] or "whole prompt",
        _change(row),
        number(row["change_points"], 1),
        number(row["agreement"], 3),
        answer_text(row["expectation"], row["verdict"]),
        f"{row['n_samples']} ({row['n_clusters']})",
        str(row["n_not_applicable"]),
    )


def _change(row: Row) -> str:
    """The figure, or in its place why there is none."""
    if not row["n_cases"]:
        return "not applicable"
    return str(row["reason"] or interval(row, "relative_change", "_percent", 1))


_COUNTED = {
    "n_failed": "cases failed",
    "n_original_lost": "cases have no original to compare with",
    "n_missing": "cases are not scored yet",
    "n_undefined": "cases have no Dice, both masks being empty",
    "n_both_empty": "cases with an empty mask before and after",
    "n_truncated": "cases whose prompt, or whose original, the model's token limit cuts",
    "n_cut_away": "edits left out: the model's token limit cuts them away",
    "n_same_tokens": "edits leave the tokens as they were: the model cannot see them",
}


def _facts(row: Row) -> list[str]:
    """What must be known beside a row: reasons, limits, and everything that was left out."""
    if not row["n_cases"]:
        return [f"applies to no sample: {row['not_applicable']}"]
    facts = [row["reason"]] if row["reason"] else []
    facts += row["notes"]
    if row["n_not_applicable"]:
        facts.append(f"not applicable to {row['n_not_applicable']}: {row['not_applicable']}")
    facts += [f"{row[count]} {text}" for count, text in _COUNTED.items() if row[count]]
    if row["probe"] == ORIGINAL and row["originals_empty_share"] > 0:
        share = number(100 * row["originals_empty_share"], 1)
        facts.append(f"{share} % of the masks are empty although there is a target")
    if row["n_samples_named"]:
        named = f"Dice with the named target's mask {number(row['dice_named'], 3)}"
        facts.append(f"{named} ({row['n_samples_named']} samples)")
    if row["catastrophic_share"] is not None and row["catastrophic_share"] >= 0.01:
        share = number(100 * row["catastrophic_share"], 1)
        facts.append(f"{share} % of the variants lose more than half of their Dice")
    return facts


def _shared_notes(facts: Mapping[str, list[str]]) -> tuple[str, ...]:
    """One sentence a fact, with all rows that share it."""
    rows_of: dict[str, list[str]] = {}
    for label, texts in facts.items():
        for text in texts:
            rows_of.setdefault(text, []).append(label)
    return tuple(
        f"{'all rows' if len(labels) == len(facts) > 1 else shortened(labels)}: {text}."
        for text, labels in rows_of.items()
    )


def _of_away(model: str, rows: list[Row]) -> Sheet:
    measured = [r for r in rows if r["in_distribution"]]
    labels = _set_labels(rows)
    notes = _shared_notes({x: _away_facts(r) for x, r in zip(labels, rows, strict=True)})
    controls = sorted({r["control"] for r in rows if r["control"]})
    return Sheet(
        name="away",
        title=f"{model} away from its training data",
        lead=_against(measured[0]) if measured else "",
        header=AWAY_HEADER,
        rows=tuple(map(_away_cells, labels, rows)) if measured else (),
        n_text=1,
        notes=(*notes, *(f"The control is {name}, on the same sets." for name in controls)),
    )


def _set_labels(rows: list[Row]) -> list[str]:
    """The shortest names that tell the sets apart."""
    keys = ("dataset", "split", "prompt_type", "prompts")
    for n in range(1, len(keys) + 1):
        labels = [" ".join(row[k] for k in keys[:n]) for row in rows]
        if len(set(labels)) == len(rows):
            break
    return labels


def _against(row: Row) -> str:
    dice = interval(row, "reference_dice", "", 3)
    return f"Against the mean of {row['in_distribution']}: Dice {dice}."


def _away_facts(row: Row) -> list[str]:
    facts = [row["reason"]] if row["reason"] else []
    facts += row["notes"]
    if row["harmonic_dice"] is not None and math.isfinite(row["harmonic_dice"]):
        both = number(row["harmonic_dice"], 3)
        facts.append(f"harmonic mean of Dice there and on the training data's tests {both}")
    if row["n_shared_images"]:
        facts.append(f"{row['n_shared_images']} images left out that training sets also hold")
    return facts


def _away_cells(label: str, row: Row) -> tuple[str, ...]:
    return (
        label,
        interval(row, "relative_change", "_percent", 1),
        number(row["control_change_percent"], 1),
        interval(row, "beyond_control", "_percent", 1),
        number(row["dice"], 3),
        "-" if row["n_samples"] is None else f"{row['n_samples']} ({row['n_clusters']})",
    )


LINE = 99
"""Characters of a verdict's line; the sentence with its evidence stands in the report."""


def verdict_line(verdict: LanguageVerdict) -> str:
    """A verdict in one short line: language use, refusal, steadiness.

    Example:
        >>> verdict_line(LanguageVerdict(
        ...     "m@1", "m", "d", "released", "p6", "listening", "brittle", "", True,
        ...     heard=("color", "size"), refusal="hallucinates",
        ... ))
        'm: listening (color, size); hallucinates; brittle'
    """
    names = {"listening": verdict.heard, "moved here": verdict.heard}
    names |= {"cannot tell": verdict.unclear}
    own = names.get(verdict.language, ())
    asked = {"not asked": [], "cannot tell": ["refusal undecided"]}
    rest = asked.get(verdict.refusal, [verdict.refusal])
    rest = [
        *rest,
        {"cannot tell": "steadiness undecided"}.get(verdict.steadiness, verdict.steadiness),
    ]
    for shown in (", ".join(own), f"{len(own)} attributes"):
        what = f"{verdict.language} ({shown})" if own else verdict.language
        line = f"{verdict.model}: {'; '.join([what, *rest])}"
        if len(line) <= LINE:
            break
    return line


def deciding_table(
    summary: pl.DataFrame, language: Sequence[LanguageVerdict] = (), *, intervals: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a model a row; a deciding attribute a column, refusal, Dice on whole sets.

    The refusal rate of `language` is a column, in percent. A narrow page has no room for limits:
    without `intervals` each change stands alone.
    """
    deciding = summary.filter(
        pl.col("perturbation") == "antonym",
        pl.col("attribute") == pl.col("split"),
        pl.col("n_samples") > 0,
    ).rows(named=True)
    models = list(dict.fromkeys(row["model"] for row in deciding))
    cells = {(r["model"], r["attribute"]): _deciding_cell(r, intervals=intervals) for r in deciding}
    for verdict in language:
        if verdict.refusal != "not asked":
            limits = [100 * value for value in verdict.refusal_rate]
            cells[verdict.model, "refuses"] = _rounded(limits, intervals=intervals)
    originals = summary.filter(pl.col("probe") == "original", pl.col("split") == "test")
    for row in originals.iter_rows(named=True):
        cells[row["model"], f"Dice {row['dataset']}"] = number(row["dice"], 3)
    names = dict.fromkeys(name for _, name in cells)
    return ["model", *names], [[m, *(cells.get((m, name), "-") for name in names)] for m in models]


def _deciding_cell(row: Row, *, intervals: bool) -> str:
    """``-86 [-88, -80]``, or the change alone; as it stands where it is no number."""
    figures = [row[f"relative_change{end}_percent"] for end in ("", "_low", "_high")]
    if not math.isfinite(sum(figures)):
        return interval(row, "relative_change", "_percent", 1)
    return _rounded(figures, intervals=intervals)


def _rounded(figures: Sequence[float], *, intervals: bool) -> str:
    """A figure and its limits without decimals."""
    change, low, high = (str(round(value)) for value in figures)
    return f"{change} [{low}, {high}]" if intervals else change

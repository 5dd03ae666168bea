"""The summary of a run as Markdown: the overview first, then set by set.

Conventions: it reads as plain text at 100 columns, but for the tables of the overview. Every name
and reason is escaped. What all models of a set share is said once; all of it stands in
``verdicts.json``. The text holds no times, so equal runs give equal files.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from harness.data.readings import data_lines
from harness.plan.registration import sentence
from harness.report.escape import code, escaped
from harness.report.headline import most_telling
from harness.report.sheet import WIDTH, Sheet, bullets, markdown_lines, table_lines
from harness.report.sheets import FLIPS_NOTE, OVERVIEW_NOTE, flips_sheet, overview_sheet
from harness.report.table import (
    AWAY,
    CURVE_LEAD,
    REFUSAL_LEAD,
    SURFACE_LEAD,
    curve_sheets,
    has_surface,
    sections,
    verdict_line,
)
from harness.stats.assay import assay_lines
from harness.stats.assessment import Assessment
from harness.stats.language import OF_THE_UNHEARD, LanguageVerdict, shortened
from harness.stats.verdicts import coverage_note

_READING = (
    "Relative change: 100 (mean Dice after the change - mean Dice before) / mean Dice before, over "
    "the same samples, against each sample's own mask. Points: 100 times the difference of Dice.",
    "Brackets: 95 % limits of a studentised bootstrap that resamples clusters (and words, where "
    "10 or more were drawn). They are not adjusted for the number of rows.",
    "Answer: what the probe's first expectation asks, and if it holds, corrected for the number "
    "of tests of its kind on the model and dataset. Where a suite states none, prompts for what is "
    "not there are to be refused; of all others it is asked whether Dice stays unmoved, within "
    "the margin of the signature. After a change that does not keep the meaning that is no grade "
    "but an answer: yes says that the words do not matter here, no that they do, open that the "
    "data cannot tell. All verdicts, with reasons: verdicts.json.",
    "Agree: Dice between the masks before and after the change; needs no ground truth. A model can "
    "keep its Dice while moving its mask.",
)
_CAVEATS = {
    "random_word": "Random words: two things mix. The word is one the model hardly ever saw "
    "(out-of-vocabulary shock), so a large change need not mean that the attribute was used; "
    "and the rest of the prompt often still says enough (redundancy), so no change need not "
    "mean that it was not.",
    "empty": "Empty prompt: a model that was trained with prompts is given none. The paper's P0 "
    'column, "trained and tested with empty text", is a different measurement: do not compare.',
}
_UNHEARD = (
    "That a word changes nothing may be due to the data: the picture and the rest of the prompt "
    "may give the answer away. How far it moves the text embedding: verdicts.json."
)
_AWAY = (
    "Away from the training data: the change also measures how hard the other set is. Read it "
    "beside the control, which never sees a prompt."
)


def record_lines(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on what was run: a part of the data, something registered, how masks were read."""
    limited = limit_note(manifest)
    yield from () if limited is None else (limited,)
    if "registration" in manifest:
        text = sentence(manifest["registration"])
        yield f"{text[:1].upper()}{text[1:]}."
    yield from data_lines(manifest)


def limit_note(manifest: Mapping[str, Any]) -> str | None:
    """A sentence where the run was made with ``--limit``: its figures are of a part of the data."""
    if (limit := manifest.get("limit")) is None:
        return None
    return (
        f"The run was limited (--limit {limit}): it knows {limit} pictures of each data set at "
        "most, not the whole sets."
    )


def markdown(
    found: Assessment,
    *,
    title: str = "Audit of prompts",
    masks: Iterable[str] = (),
    curve: pl.DataFrame | None = None,
) -> str:
    """The text of ``summary.md``.

    `title` and `masks`, sentences on what was run and how true masks were read, may be any text.
    """
    summary = found.summary
    lines = [f"# {escaped(title)}", "", *_overview(found), *_facts(summary)]
    lines += [f"- {code(found.signature)}"] if found.verdicts else []
    lines += bullets(map(escaped, masks))
    inside = summary.filter(pl.col("probe") != AWAY)
    for key, rows in inside.group_by(SET, maintain_order=True):
        lines += ["", *_of_set(key, rows, found)]
    for section in sections(summary.filter(pl.col("probe") == AWAY)):
        lines += ["", *markdown_lines(section)]
    if curve is not None and curve.height:
        names = dict(summary.select("model_id", "model").unique().iter_rows())
        for sheet in curve_sheets(curve, names):
            lines += ["", *markdown_lines(replace(sheet, lead=""))]
    lines += ["", "## How to read this", ""]
    lines += bullets(_caveats(summary, has_curve=curve is not None and curve.height > 0))
    return "\n".join(lines) + "\n"


SET = ("dataset", "prompts", "prompt_type")
MOST_BLOCKING = 3
"""Sentences on what prevents a verdict that stand below it; verdicts.json has all."""


def _overview(found: Assessment) -> Iterator[str]:
    """What the first screen of the report shows, and which binding expectations fail."""
    overview, (flips, _) = overview_sheet(found), flips_sheet(found)
    if not overview.rows:
        return
    yield from ("## Overview", "")
    spoken = [v for v in most_telling(found.language) if v.is_asked]
    yield from bullets(escaped(verdict_line(v)) for v in spoken)
    failing: dict[str, list[str]] = {}
    for one in found.verdicts:
        if one.binding and one.verdict == "fails":
            failing.setdefault(one.probe, []).append(one.model)
    for probe, models in failing.items():
        told = f"{probe} fails where a failure is a fault: {shortened(dict.fromkeys(models))}."
        yield from bullets([escaped(told)])
    for sheet, note in ((overview, OVERVIEW_NOTE), (flips, FLIPS_NOTE)):
        if sheet.rows:
            yield ""
            rows = [tuple(map(escaped, row)) for row in sheet.rows]
            yield from table_lines([escaped(name) for name in sheet.header], rows, n_text=99)
            yield ""
            yield from bullets([f"{escaped(sheet.title)}. {note}"])
    if few := coverage_note(min((v.n_clusters for v in spoken), default=0)):
        yield from bullets([few])
    yield from ("", "## Models and sets", "")


def _of_set(key: tuple[Any, ...], rows: pl.DataFrame, found: Assessment) -> Iterator[str]:
    """What is said of each model, then its tables, split by split."""
    dataset, prompts, prompt_type = key
    source = "" if prompts == "released" else f", {prompts} prompts"
    yield f"## {escaped(f'{dataset} ({prompt_type}{source})')}"
    spoken = [v for v in found.language if v.is_asked and all(
        getattr(v, name) == value for name, value in zip(SET, key, strict=True))]  # fmt: skip
    if spoken:
        yield ""
        for verdict in spoken:
            yield from _of_language(verdict)
        yield from bullets(map(escaped, _stages(spoken)))
    for (split,), part in rows.group_by("split", maintain_order=True):
        yield from ("", f"### {escaped(split)}")
        yield from _of_split(part, found)


def _of_split(rows: pl.DataFrame, found: Assessment) -> Iterator[str]:
    """A table a model, and one for all of what is not there."""
    kinds: dict[str, list[Sheet]] = {}
    for sheet in sections(rows, found.verdicts):
        model = sheet.title.rpartition(f" on {rows['dataset'][0]} (")[0]
        kinds.setdefault(sheet.name, []).append(replace(sheet, title=model))
    common = _common([sheet.notes for sheet in kinds["probes"]])
    if common:
        yield ""
        yield from bullets(map(escaped, common))
    for sheet in kinds["probes"]:
        notes = _gathered(note for note in sheet.notes if note not in common)
        dice = sheet.lead.removeprefix("Dice of the original prompts: ").partition(" (")[0]
        title = f"{sheet.title}: Dice {dice}"
        yield from ("", *markdown_lines(replace(sheet, title=title, lead="", notes=notes), 4))
    for name, title in (("refusal", "What is not there"), ("surface", "Distances of contours")):
        if own := kinds.get(name):
            body = tuple((sheet.title, *row) for sheet in own for row in sheet.rows)
            header = ("model", *own[0].header)
            yield ""
            yield from markdown_lines(Sheet(name, title, header, body, own[0].n_text + 1), 4)


_LOST = re.compile(r"(.*): ([\d.]+ %) of the variants lose more than half of their Dice\.")


def _gathered(notes: Iterable[str]) -> tuple[str, ...]:
    """The notes, those on variants that lose most of their Dice as one."""
    found = [(note, _LOST.fullmatch(note)) for note in notes]
    lost = "; ".join(f"{m[1]} {m[2]}" for _, m in found if m)
    own = [note for note, m in found if not m]
    return (*own, *([f"Variants that lose more than half of their Dice: {lost}."] if lost else []))


def _common(notes: Sequence[tuple[str, ...]]) -> list[str]:
    """Notes that the tables of several models all have."""
    if len(notes) < 2:
        return []
    return [note for note in notes[0] if all(note in others for others in notes[1:])]


def _facts(summary: pl.DataFrame) -> Iterator[str]:
    """Models and datasets, and what fixes the meaning of the numbers."""
    models = summary.select("model", "model_id").unique().sort("model", "model_id")
    rows = [(escaped(name), code(model_id, in_table=True)) for name, model_id in models.iter_rows()]
    yield from table_lines(("model", "id"), rows, n_text=2)
    yield ""
    columns = ("dataset", "split", "prompts", "prompt_type", "cluster_kind")
    datasets = summary.select(columns).unique().sort(columns).iter_rows()
    yield from table_lines(
        ("dataset", "split", "prompts", "type", "clusters"),
        [tuple(map(escaped, row)) for row in datasets],
        n_text=5,
    )
    yield ""
    signed = summary.select("signature", "model").unique().sort("signature", "model")
    for (signature,), models in signed.group_by("signature", maintain_order=True):
        yield f"- {code(str(signature))} {escaped(', '.join(models['model']))}"


def _of_language(verdict: LanguageVerdict) -> Iterator[str]:
    """A verdict with what blocks and confounds it below it; the tables tell of steadiness."""
    yield from bullets([escaped(verdict.reason)])
    blocking = [text for text in verdict.blocking if not text.startswith("Steadiness: ")]
    if verdict.language == "cannot tell":
        blocking = blocking[1:]  # stands in the reason
    more = len(blocking) - MOST_BLOCKING
    told = [*blocking[:MOST_BLOCKING], *([f"{more} more: verdicts.json."] if more > 0 else [])]
    told += [text for text in verdict.confounds if not text.startswith(OF_THE_UNHEARD)]
    for text in told:
        yield from (f"  {line}" for line in bullets([escaped(text)], WIDTH - 2))


_STAGES = {
    "fusion": "The text tower tells words apart that change nothing, and the fusion ignores them",
    "text tower": "The text tower does not tell words apart that change nothing",
}


def _stages(spoken: Sequence[LanguageVerdict]) -> Iterator[str]:
    """Which stage ignores the words, once for all models."""
    for place, text in _STAGES.items():
        if models := dict.fromkeys(v.model for v in spoken if v.place == place):
            yield f"{text}: {', '.join(models)}."


def _caveats(summary: pl.DataFrame, *, has_curve: bool) -> Iterator[str]:
    yield from _READING
    if "changed" in set(summary["meaning"]):
        yield _UNHEARD
    if (summary["n_samples_refusal"] > 0).any():
        yield REFUSAL_LEAD
    if any(map(has_surface, summary.iter_rows(named=True))):
        yield SURFACE_LEAD
    if has_curve:
        yield CURVE_LEAD
    perturbations = set(summary["perturbation"])
    yield from (text for name, text in _CAVEATS.items() if name in perturbations)
    if "out_of_distribution" in set(summary["probe"]):
        yield _AWAY
    yield from assay_lines()

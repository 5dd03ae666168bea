"""What finetuning did to a model's language: tables, a page with the pictures that show it, JSON.

Conventions: differences are tuned less base. The pictures of an attribute are cases that the runs
kept: the one that moved most where the model hears the attribute, the steadiest where it does not.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from harness.files.writing import json_bytes, replace_together
from harness.report.comparison import coverage_sentences
from harness.report.gallery import Gallery, Shown, gallery
from harness.report.page import rendered
from harness.report.run_data import RunData
from harness.report.sheet import Sheet, figure_cell, number
from harness.runs.kept_masks import STEADY, WORST, Kept
from harness.stats.comparison.common import CHANGE, DECISIVE, STEADINESS, Subject
from harness.stats.comparison.tuning import REFUSAL, Aspect, Tuning
from harness.stats.language import WHOLE

LANGUAGE_COMPARISON_VERSION = 1
"""Raised whenever a key of the JSON changes its name or meaning."""

_LIMITS = ("base [95 %]", "tuned [95 %]", "difference [95 %]")
_HEADER = ("what", "outcome", "figure", *_LIMITS, "ratio", "clusters")
_FIGURES = {
    CHANGE: "change %",
    DECISIVE: "decisive %",
    STEADINESS: "agreement",
    REFUSAL: "refusal rate",
}
READING = (
    "Kept: both models hear the attribute. Lost: the base hears it, the tuned model is shown to "
    "ignore it. Gained: the reverse. Never: neither. Cannot tell: one of the two is not shown.",
    "The decisive change is the relative change of Dice where the exchanged word points to another "
    "target of the picture; a model that hears the word loses its old target there. Differences "
    "are tuned less base, over the same cases, both models' clusters resampled together; limits "
    "are 95 %, unadjusted.",
    "Each change is relative to the model's own Dice, and a model that segments better has more to "
    "lose: the ratio of the changes and the Dice of both stand beside the difference.",
)


def tuning_sheets(found: Tuning) -> Iterator[Sheet]:
    """A table of what became of the language on each data set, then one of Dice."""
    for key in dict.fromkeys((a.dataset, a.prompts, a.prompt_type) for a in found.aspects):
        own = [a for a in found.aspects if (a.dataset, a.prompts, a.prompt_type) == key]
        dataset, prompts, prompt_type = key
        words = "" if prompts == "released" else f", {prompts} prompts"
        yield Sheet(
            name="language",
            title=f"{found.tuned} compared with {found.base}, {dataset} ({prompt_type}{words})",
            header=_HEADER,
            rows=tuple(map(_row, own)),
            n_text=3,
            lead=" ".join(dict.fromkeys(f"{a.name}: {a.reason}" for a in own if a.reason)),
        )
    yield Sheet(
        name="dice",
        title="Dice of the original prompts, which differs for its own reasons",
        header=("data set", "base [95 %]", "tuned [95 %]", "difference [95 %]", "clusters"),
        rows=tuple(
            (
                f"{d.dataset} ({d.split}, {d.prompt_type})",
                *(figure_cell(v[0], 3, *v[1:]) for v in (d.base, d.tuned, d.difference)),
                str(d.n_clusters),
            )
            for d in found.dice
        ),
        n_text=1,
    )


def _row(aspect: Aspect) -> tuple[str, ...]:
    digits = 1 if aspect.figure in (CHANGE, DECISIVE) else 3
    figure = _FIGURES.get(aspect.figure, "-")
    return (
        aspect.name,
        aspect.outcome,
        f"{figure} ({aspect.probe})" if aspect.probe else figure,
        *(
            figure_cell(v[0], digits, *v[1:])
            for v in (aspect.value_base, aspect.value_tuned, aspect.difference)
        ),
        number(aspect.ratio, 2),
        str(aspect.n_clusters),
    )


class Pictured(NamedTuple):
    """One attribute with a case of each model; either may be None."""

    aspect: Aspect
    base: Shown | None
    tuned: Shown | None


def write_tuning(
    found: Tuning, subjects: Sequence[Subject], folder: Path, *, images: str | None = None
) -> list[Path]:
    """Write ``language.html`` and ``language.json``."""
    page, data = folder / "language.html", folder / "language.json"
    html = tuning_html(found, subjects, images=images)
    replace_together({page: html.encode(), data: json_bytes(tuning_content(found))})
    return [page, data]


def tuning_html(found: Tuning, subjects: Sequence[Subject], *, images: str | None = None) -> str:
    """The page: the sentence, the tables, and the pictures that show it best."""
    words = [a for a in found.aspects if a.name not in (STEADINESS, REFUSAL)]
    drawn = [
        _gallery(subject, words, state, prefix=state[0], images=images)
        for subject, state in zip(subjects, ("base", "tuned"), strict=True)
    ]
    cases = [dict(places) for places, _ in drawn]
    shown = [Pictured(a, cases[0].get(_place(a)), cases[1].get(_place(a))) for a in words]
    return rendered(
        "tuning.html.j2",
        title=f"{found.tuned} compared with {found.base}: what became of its language",
        found=found,
        sheets=list(tuning_sheets(found)),
        shown=[one for one in shown if one.base or one.tuned],
        images={**drawn[0][1].images, **drawn[1][1].images},
        why_none=list(dict.fromkeys(text for _, one in drawn for text in one.why_none)),
        coverage=list(coverage_sentences(found.coverage)),
        reading=READING,
    )


def _place(aspect: Aspect) -> tuple[str, str, str, str]:
    return aspect.dataset, aspect.prompts, aspect.prompt_type, aspect.name


def _gallery(
    subject: Subject, aspects: Sequence[Aspect], model: str, *, prefix: str, images: str | None
) -> tuple[Iterator[tuple[tuple[str, str, str, str], Shown]], Gallery]:
    """The case of each attribute of one model, and the pictures."""
    run, key = RunData(subject.store.folder), subject.facts.model_id
    kept = run.kept(key)
    picked = [(_place(a), _telling(a, kept, getattr(a, model))) for a in aspects]
    found = [(place, one) for place, one in picked if one is not None]
    drawn = gallery(run, images=images, picked={key: [one for _, one in found]}, prefix=prefix)
    places = [place for place, _ in found]
    return zip(places, drawn.cases[key], strict=True), drawn


def _telling(aspect: Aspect, kept: Sequence[Kept], state: str) -> Kept | None:
    """The case that moved most of a model that hears, else the one that moved least."""
    kind = WORST if state == "heard" else STEADY
    own = [one for one in kept if one.kind == kind and _shows(one, aspect)]
    return min(own, key=lambda one: one.rank, default=None)


def _shows(kept: Kept, aspect: Aspect) -> bool:
    dataset, _, prompts, prompt_type, probe, attribute = kept.group
    own = (dataset, prompts, prompt_type, attribute or WHOLE)
    return own == _place(aspect) and probe == aspect.probe


def tuning_content(found: Tuning) -> dict[str, Any]:
    """The same for programs: undefined figures are null."""
    content = {"version": LANGUAGE_COMPARISON_VERSION, **asdict(found)}
    content["coverage"] = [c._asdict() for c in found.coverage]
    plain: dict[str, Any] = _plain(content)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.10g}") if math.isfinite(value) else None
    return value

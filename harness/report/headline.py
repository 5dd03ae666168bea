"""The first screen: one sentence for each model, and the picture that shows it.

Conventions: the sentence is the language verdict of the data set that says most; the others are
listed below it. The picture is a case of that set that the run kept: the worst of a model that
is moved, the steadiest of one that is not; without pictures, the changes of Dice it rests on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from harness.report.figure import WIDTH, Panel
from harness.report.gallery import Shown
from harness.report.marks import dots, height_px, padded
from harness.report.run_data import RunData
from harness.runs.kept_masks import WORST
from harness.stats.language import LanguageVerdict

MOVED = ("listening", "moved here")
_ORDER = ("listening", "deaf", "moved here", "unmoved here", "cannot tell")
TONES = {
    "listening": "good",
    "moved here": "calm",
    "deaf": "bad",
    "unmoved here": "mute",
    "cannot tell": "mute",
    "steady": "good",
    "brittle": "bad",
    "refuses": "good",
    "hallucinates": "bad",
}


@dataclass(frozen=True)
class Headline:
    """What the first screen says of one model.

    Attributes:
        number: On the listening map.
        name: Of the model.
        is_control: Whether it is an image-only control.
        badges: (text, tone).
        sentence: The verdict.
        others: Verdicts on other data sets.
        case: The case that shows it, if there are pictures.
        panel: Without such a case, the changes it rests on.
    """

    number: int
    name: str
    is_control: bool
    badges: tuple[tuple[str, str], ...]
    sentence: str
    others: tuple[str, ...]
    case: Shown | None
    panel: Panel | None


def headlines(run: RunData, cases: Mapping[str, Sequence[Shown]]) -> list[Headline]:
    """One for each model, in the run's order."""
    return [_of_model(run, entry, cases.get(entry["model_id"], ())) for entry in run.models]


def _of_model(run: RunData, entry: Mapping[str, Any], cases: Sequence[Shown]) -> Headline:
    model_id = entry["model_id"]
    own = sorted((v for v in run.assessment.language if v.model_id == model_id), key=_telling)
    first = own[0] if own else None
    badges: list[tuple[str, str]] = []
    if first is not None:
        badges = [(first.language, TONES[first.language])]
        if first.steadiness != "cannot tell":
            badges.append((first.steadiness, TONES[first.steadiness]))
        if first.refusal in TONES and first.refusal != "cannot tell":
            badges.append((first.refusal, TONES[first.refusal]))
    case = _case(first, cases) if first is not None else None
    has_evidence = first is not None and bool(first.evidence)
    is_asked = first is not None and first.is_asked
    nothing = f"{entry['name']}: no probe of this run changes the meaning of a prompt."
    return Headline(
        number=run.numbers[model_id],
        name=run.names[model_id],
        is_control=bool(entry.get("control")),
        badges=tuple(badges) if is_asked else (("not asked", "mute"),),
        sentence=first.reason if first is not None and is_asked else nothing,
        others=tuple(v.reason for v in own[1:] if v.is_asked),
        case=case,
        panel=_panel(first) if first is not None and has_evidence and case is None else None,
    )


def most_telling(verdicts: Sequence[LanguageVerdict]) -> list[LanguageVerdict]:
    """Of each model the verdict that says most, in the order of the models."""
    first: dict[str, LanguageVerdict] = {}
    for verdict in verdicts:
        known = first.setdefault(verdict.model_id, verdict)
        if _telling(verdict) < _telling(known):
            first[verdict.model_id] = verdict
    return list(first.values())


def _telling(verdict: LanguageVerdict) -> tuple[Any, ...]:
    tested = sum(not e.blocked for e in verdict.evidence)
    counts = -tested, -len(verdict.evidence)
    return not verdict.evidence, not verdict.named_targets, *counts, _ORDER.index(verdict.language)


def _case(verdict: LanguageVerdict, cases: Sequence[Shown]) -> Shown | None:
    probes = {(e.probe, e.attribute) for e in verdict.evidence}
    fitting = [
        c
        for c in cases
        if c.masks and c.kept.group[0] == verdict.dataset and c.kept.group[4:] in probes
    ]
    worst = [c for c in fitting if c.kept.kind == WORST]
    steady = [c for c in fitting if c.kept.kind != WORST]
    order = (worst, steady) if verdict.language in MOVED else (steady, worst)
    return next((max(some, key=_clear) for some in order if some), None)


def _clear(case: Shown) -> tuple[float, int]:
    """Of several, a case that was right before the change and shows the effect best."""
    return case.kept.score * case.kept.dice_original, -case.kept.case_id


def _panel(verdict: LanguageVerdict) -> Panel:
    """The change of Dice of each piece of evidence."""
    rows = [
        {
            "row": " ".join(filter(None, (e.probe, e.attribute))),
            "series": e.split,
            "value": e.change[0],
            "low": e.change[1],
            "high": e.change[2],
            "hollow": e.state != "heard",
        }
        for e in verdict.evidence
    ]
    frame = pl.DataFrame(rows).filter(pl.col("value").is_finite())
    names = list(dict.fromkeys(frame["row"]))
    limits = frame.select("low", "value", "high").fill_nan(0).to_numpy().ravel().tolist()
    chart = dots(
        frame.with_columns(series=pl.lit(verdict.dataset)),
        rows=names,
        series=[verdict.dataset],
        domain=padded(limits, least=(-20.0, 5.0)),
        title="change of Dice, %; filled: heard",
    ).properties(width=WIDTH - 30, height=height_px(len(names), 1) + 60)
    told = "; ".join(e.reason for e in verdict.evidence)
    return Panel(f"{verdict.model} on {verdict.dataset}", told, chart)

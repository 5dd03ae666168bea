"""The first screen: one sentence for each model, and the picture that shows it.

Conventions: the sentence is the language verdict of the data set that says most; the others are
listed below it. The picture is a case of that set that the run kept: the worst of a model that
is moved, the steadiest of one that is not; without pictures, the changes of Dice it rests on.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from harness.report.figure import WIDTH, Panel
from harness.report.gallery import Shown
from harness.report.marks import dots, height_px, padded
from harness.report.run_data import RunData
from harness.runs.kept_masks import WORST
from harness.stats.language import STAYS, Evidence, LanguageVerdict, name_of
from harness.stats.power import clusters_to_decide
from harness.stats.verdicts import Verdict
from harness.suite.expectations import LEAST_REFUSAL, Margins

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
    "heard": "good",
    "moved": "calm",
    "unheard": "bad",
    "unmoved": "mute",
    "?": "mute",
}


@dataclass(frozen=True)
class Headline:
    """What the first screen says of one model."""

    number: int  # on the listening map
    name: str
    is_control: bool
    badges: tuple[tuple[str, str], ...]  # (text, tone)
    sentence: str
    others: tuple[str, ...]  # verdicts on other data sets
    case: Shown | None  # the case that shows it, if there are pictures
    panel: Panel | None  # without such a case, the changes it rests on


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


def _judged_at(verdict: LanguageVerdict, of: str, otherwise: float) -> float:
    return next((curve.judged_at for curve in verdict.flips if curve.of == of), otherwise)


def _needed(clusters: float, otherwise: str) -> str:
    if not clusters <= MOST_CLUSTERS:
        return otherwise
    return f"≈ {float(f'{clusters:.2g}'):,.0f} clusters"


def _least(reasons: Iterable[str]) -> str:
    """Of sentences that say how many clusters a verdict needs, the number."""
    for reason in reasons:
        if few := re.search(r"and (\d+) are needed", reason):
            return f"needs {few[1]} clusters"
    return "see why below"


def would_tell(verdict: LanguageVerdict, name: str) -> str:
    """What would decide whether an attribute is heard, in one clause."""
    margin = _judged_at(verdict, "language", Margins().changed)
    own = [e for e in verdict.evidence if name_of(e) == name]
    tested = [e for e in own if not e.blocked]
    if not tested:
        return _least(e.blocked for e in own)
    heard = min(_to_hear(e, margin, named=verdict.named_targets) for e in tested)
    unheard = max(_to_clear(e, margin) for e in tested)
    otherwise = "at the margin"
    moved = [e for e in tested if e.agreement[2] < STAYS]
    if moved and verdict.named_targets:
        known = any(math.isfinite(e.p_heard) for e in moved)
        otherwise = "moves elsewhere" if known else "names no target"
    return _needed(min(heard, unheard), otherwise)


MOST_CLUSTERS = 100_000
"""Above it no number of pictures would tell, in practice."""


def _to_hear(evidence: Evidence, margin: float, *, named: bool) -> float:
    """Clusters that would show that a word is heard, were the figures to stay."""
    n = evidence.n_clusters
    moved = math.inf
    if evidence.agreement[0] < STAYS:
        moved = clusters_to_decide(evidence.agreement, STAYS, n_clusters=n)
    if not named:
        change = evidence.change
        beyond = math.inf
        if abs(change[0]) > margin:
            beyond = clusters_to_decide(change, math.copysign(margin, change[0]), n_clusters=n)
        return min(moved, beyond)
    gain, loss = evidence.named_gain, evidence.decisive_change
    if not (math.isfinite(evidence.p_heard) and gain[0] > margin and loss[0] < -margin):
        return math.inf
    # Percent of the original Dice are at most as many points.
    follows = clusters_to_decide(gain, margin, n_clusters=evidence.n_clusters_named)
    return max(moved, follows, clusters_to_decide(loss, -margin, n_clusters=n))


def _to_clear(evidence: Evidence, margin: float) -> float:
    """Clusters that would show that a word changes nothing."""
    n, change = evidence.n_clusters, evidence.change
    if evidence.agreement[0] <= STAYS or not abs(change[0]) < margin:
        return math.inf
    ends = [clusters_to_decide(change, bound, n_clusters=n) for bound in (-margin, margin)]
    return max(*ends, clusters_to_decide(evidence.agreement, STAYS, n_clusters=n))


def would_steady(preserved: Iterable[Verdict]) -> str:
    """What would decide whether a model is steady, in one clause."""
    open_ones = [v for v in preserved if v.verdict == "inconclusive"]
    if not open_ones:
        return "no such probe"
    if any(not math.isfinite(v.p_value) for v in open_ones):
        return _least(v.reason for v in open_ones)
    return _needed(max(map(_to_settle, open_ones)), "at the margin")


def _to_settle(verdict: Verdict) -> float:
    found = verdict.estimate, verdict.low, verdict.high
    ends = [end for end in (verdict.accepted_low, verdict.accepted_high) if math.isfinite(end)]
    near = [clusters_to_decide(found, end, n_clusters=verdict.n_clusters) for end in ends]
    inside = verdict.accepted_low < verdict.estimate < verdict.accepted_high
    return max(near) if inside else min(near)


def would_refuse(verdict: LanguageVerdict) -> str:
    """What would decide whether a model refuses, in one clause."""
    if "are needed" in verdict.refusal_reason:
        return _least([verdict.refusal_reason])
    if "nothing is painted" in verdict.refusal_reason:
        return "paints too little"
    n = max((one.n_clusters for one in verdict.refusals), default=0)
    bound = _judged_at(verdict, "refusal", LEAST_REFUSAL)
    return _needed(clusters_to_decide(verdict.refusal_rate, bound, n_clusters=n), "at the bound")


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

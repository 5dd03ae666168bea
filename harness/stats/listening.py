"""Decides the language verdict of each model on each data set.

With named targets an attribute is *heard* when, after the change, Dice with the named mask is
shown to exceed Dice with the own mask by more than the margin (percent of the original Dice),
Dice with the own mask to fall by more than it, and the mask to have moved at all. The last two:
a model that always marks the same of two targets passes the first alone wherever the samples
are not balanced. The margin: one that was trained on single targets wavers between two, and
with enough scenes half of a point is shown to exceed 0. Without named targets it is heard when
the relative change is shown to lie beyond the margin, or the mask to have moved. It is *unheard*
when the change is shown to be equivalent and the mask to stay. Only changes into another
valid word count; a random word does not.

Conventions: tests are at 5 %, two-sided where the figure has 95 % limits. *Moved* and *stays*
mean a mean agreement below and from `STAYS` on. Being heard is Holm-adjusted over the verdict's
evidence, since one such attribute suffices; being unheard is asked of all, a conjunction.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from harness.records import ExpectedMask, Meaning
from harness.stats.flips import (
    Flip,
    beyond_to,
    holm_levels,
    holm_reach,
    lower,
    steadiness_flip,
    upper,
    within_from,
)
from harness.stats.inference import (
    Estimate,
    Floats,
    Inference,
    adjust_families,
    deciding_test,
    estimate_of,
    p_greater,
    p_less,
)
from harness.stats.judge import figure_of
from harness.stats.language import (
    BLIND,
    STAYS,
    WHOLE,
    Evidence,
    Language,
    LanguageVerdict,
    Stage,
    State,
    Steadiness,
    blocking_sentences,
    confound_sentences,
    evidence_sentence,
    name_of,
    verdict_sentence,
)
from harness.stats.refusal import Judged, judge_refusal
from harness.stats.verdicts import ALPHA, Verdict, blocked_because
from harness.suite.schema import Statistics

Row = Mapping[str, Any]
_GROUP = ("model_id", "dataset", "prompts", "prompt_type")


def language_verdicts(
    rows: pl.DataFrame,
    solved: Mapping[str, Inference],
    verdicts: Sequence[Verdict],
    *,
    settings: Statistics,
    units: pl.DataFrame | None = None,
    by_seed: pl.DataFrame | None = None,
) -> list[LanguageVerdict]:
    """One verdict for each (model, dataset, prompts, prompt type), in that order.

    Rows away from training are left out; without `units` nothing is said of refusal.
    """
    by_type = _changes_by_type(rows)
    found = []
    for _, group in rows.group_by(_GROUP, maintain_order=True):
        own = group.rows(named=True)
        first = own[0]
        kept = [v for v in verdicts if v.meaning == Meaning.PRESERVED and _same(v, first)]
        evidence, flips = _evidence(own, solved, settings)
        verdict = _verdict(first, evidence, kept, by_type, settings)
        judged = Judged()
        if units is not None:
            judged = judge_refusal(own, solved, units, settings, by_seed=by_seed)
        curves = (*flips, steadiness_flip(kept), judged.flip)
        verdict = replace(verdict, **judged.fields(), flips=tuple(filter(None, curves)))
        found.append(replace(verdict, reason=verdict_sentence(verdict)))
    return sorted(found, key=lambda v: (v.model, v.model_id, v.dataset, v.prompts, v.prompt_type))


def _same(verdict: Verdict, row: Row) -> bool:
    return all(getattr(verdict, key) == row[key] for key in _GROUP)


def _evidence(
    rows: Sequence[Row], solved: Mapping[str, Inference], settings: Statistics
) -> tuple[list[Evidence], list[Flip]]:
    """Of one verdict, and the margins at which what it says of language would be another."""
    changed = [r for r in rows if r["meaning"] == Meaning.CHANGED and r["n_cases"]]
    named = any(r["n_samples_named"] for r in changed)
    # Where targets are known, a prompt that names none is a question of refusal alone.
    changed = [r for r in changed if not (named and r["expected_mask"] == ExpectedMask.EMPTY)]
    random = {
        (r["split"], r["attribute"]): r["relative_change_percent"]
        for r in rows
        if r["meaning"] == Meaning.DESTROYED and r["attribute"]
    }
    bare = [
        _one(r, solved, settings, named=named, random=random.get((r["split"], r["attribute"])))
        for r in changed
    ]
    adjusted = adjust_families([(None, e.p_heard) for e in bare], "holm")
    final = [replace(e, p_heard=own.p_value) for e, own in zip(bare, adjusted, strict=True)]
    told = [_with_state(e, named=named, needed=settings.minimum_clusters) for e in final]
    return told, _language_flips(told, changed, solved, settings, named=named)


def _one(
    row: Row,
    solved: Mapping[str, Inference],
    settings: Statistics,
    *,
    named: bool,
    random: float | None,
) -> Evidence:
    """The figures and unadjusted p-values of one row."""
    cell = row["cell"]
    change = figure_of(solved, cell, "relative_change")
    agreement = figure_of(solved, cell, "agreement")
    gain = figure_of(solved, cell, "named_gain")
    decisive = estimate_of(solved["decisive"], cell).scaled(100, offset=1)
    blocked = _blocked(row, settings)
    margin = settings.margins.changed
    least_gain = margin * _number(row["reference_dice"])
    heard, unheard = math.nan, math.nan
    testable = not named or (row["n_clusters_named"] or 0) >= settings.minimum_clusters
    if not blocked:
        if testable:
            moved = min(1.0, 2 * p_less(agreement, STAYS))
            if named:
                follows = p_greater(gain, least_gain), p_less(decisive, -margin)
                heard = min(1.0, float(np.max([moved, *(2 * p for p in follows)])))
            else:
                heard = _p_moved(change, moved, margin)
        stays = min(1.0, 2 * p_greater(agreement, STAYS))
        equal = deciding_test(change, (-margin, margin), "invariance")
        unheard = max(stays, equal.p_value) if equal.name == "equivalence" else 1.0
    return Evidence(
        split=row["split"],
        probe=row["probe"],
        attribute=row["attribute"],
        state="unclear",
        reason="",
        change=_limits(change),
        agreement=_limits(agreement),
        named_gain=_limits(gain),
        decisive_change=_limits(decisive),
        random_word_change=math.nan if random is None else random,
        text_shift=_number(row["text_shift"]),
        blocked=blocked,
        p_heard=heard,
        p_unheard=unheard,
        n_clusters=row["n_clusters"] or 0,
        n_named=row["n_samples_named"] or 0,
        n_clusters_named=row["n_clusters_named"] or 0,
    )


def _language_flips(
    evidence: Sequence[Evidence],
    rows: Sequence[Row],
    solved: Mapping[str, Inference],
    settings: Statistics,
    *,
    named: bool,
) -> list[Flip]:
    """Of the language verdict and of each attribute, over margins of a changed meaning."""
    tested = [(e, r) for e, r in zip(evidence, rows, strict=True) if not e.blocked]
    family = [k for k, (e, _) in enumerate(tested) if math.isfinite(e.p_heard)]
    heard = [0.0] * len(tested)
    if family:
        levels = holm_levels(len(family))
        reach = [_heard_to(tested[k][1], solved, levels, named=named) for k in family]
        for k, end in zip(family, holm_reach(np.array(reach)), strict=True):
            heard[k] = float(end)
    ends: dict[str, list[tuple[float, float]]] = {}
    for (one, row), heard_to in zip(tested, heard, strict=True):
        end = heard_to, _unheard_from(row, solved)
        for name in ("language", name_of(one)):
            ends.setdefault(name, []).append(end)
    words = {"language": ("listening", "deaf") if named else ("moved here", "unmoved here")}
    margin, found = settings.margins.changed, []
    for name, own in ends.items():
        low, high = words.get(name, ("heard", "unheard"))
        low_to = max(end[0] for end in own)
        high_from = max(low_to, *(end[1] for end in own))
        found.append(Flip(name, "percent", margin, low, low_to, high, high_from))
    return found


def _heard_to(row: Row, solved: Mapping[str, Inference], levels: Floats, *, named: bool) -> Floats:
    """The margins up to which the p-value of being heard, `_one`'s, is at most each level."""
    cell = row["cell"]
    agreement = figure_of(solved, cell, "agreement")
    moved = min(1.0, 2 * p_less(agreement, STAYS))
    if not named:
        change = figure_of(solved, cell, "relative_change")
        beyond = beyond_to(change, levels / 4 if change.error > 0 else levels / 2)
        return np.where(moved <= levels / 2, np.inf, beyond)
    decisive = estimate_of(solved["decisive"], cell).scaled(100, offset=1)
    gain = lower(figure_of(solved, cell, "named_gain"), levels / 2) / row["reference_dice"]
    loss = -upper(decisive, levels / 2)
    ends = np.clip(np.minimum(gain, loss), 0.0, None)
    return np.where(moved <= levels, ends, 0.0)


def _unheard_from(row: Row, solved: Mapping[str, Inference]) -> float:
    """The margin from which on the p-value of being unheard, `_one`'s, is significant."""
    stays = min(1.0, 2 * p_greater(figure_of(solved, row["cell"], "agreement"), STAYS))
    if not stays <= ALPHA:
        return math.inf
    change = figure_of(solved, row["cell"], "relative_change")
    return float(within_from(change, np.array([ALPHA]))[0])


def _p_moved(change: Estimate, moved: float, margin: float) -> float:
    """Of the Dice or the mask being moved by a word whose target is not known."""
    beyond = deciding_test(change, (-margin, margin), "invariance")
    # Either sign of being heard will do, so each is tested at half the level.
    either = beyond.p_value if beyond.outcome == "fails" else 1.0
    return min(1.0, 2 * min(either, moved))


def _blocked(row: Row, settings: Statistics) -> str:
    return blocked_because(
        row["reason"] or "",
        n_clusters=row["n_clusters"],
        needed=settings.minimum_clusters,
        empty_share=row["originals_empty_share"],
    )


def _with_state(evidence: Evidence, *, named: bool, needed: int) -> Evidence:
    state: State = "unclear"
    if evidence.p_heard <= ALPHA:
        state = "heard"
    elif evidence.p_unheard <= ALPHA:
        state = "unheard"
    evidence = replace(evidence, state=state)
    return replace(evidence, reason=evidence_sentence(evidence, named=named, needed=needed))


def _verdict(
    first: Row,
    evidence: Sequence[Evidence],
    preserved: Sequence[Verdict],
    by_type: Mapping[tuple[Any, ...], Mapping[str, float]],
    settings: Statistics,
) -> LanguageVerdict:
    named = any(e.n_named for e in evidence)
    language = _language(evidence, named=named)
    steadiness = _steadiness(preserved)
    states: dict[State, tuple[str, ...]] = {}
    for attribute in dict.fromkeys(e.attribute for e in evidence):
        state = _state_of([e for e in evidence if e.attribute == attribute])
        states[state] = (*states.get(state, ()), attribute or WHOLE)
    keys = {key: first[key] for key in (*_GROUP, "model")}
    return LanguageVerdict(
        **keys,
        language=language,
        steadiness=steadiness,
        reason="",
        named_targets=named,
        heard=states.get("heard", ()),
        unheard=states.get("unheard", ()),
        unclear=states.get("unclear", ()),
        blocking=tuple(blocking_sentences(evidence, preserved, unclear=states.get("unclear", ()))),
        confounds=tuple(
            confound_sentences(
                evidence,
                _own_types(first, by_type),
                margin=settings.margins.changed,
                needed=settings.minimum_clusters,
            )
        ),
        place=stage_of(evidence),
        evidence=tuple(evidence),
    )


def _state_of(evidence: Sequence[Evidence]) -> State:
    """One attribute's state from all probes that change it; what was not tested says nothing."""
    found = {e.state for e in evidence if not e.blocked}
    if "heard" in found:
        return "heard"
    return "unheard" if found == {"unheard"} else "unclear"


def _language(evidence: Sequence[Evidence], *, named: bool) -> Language:
    tested = [e for e in evidence if not e.blocked]
    if any(e.state == "heard" for e in tested):
        return "listening" if named else "moved here"
    if tested and all(e.state == "unheard" for e in tested):
        return "deaf" if named else "unmoved here"
    return "cannot tell"


def _steadiness(preserved: Sequence[Verdict]) -> Steadiness:
    outcomes = {v.verdict for v in preserved}
    if "fails" in outcomes:
        return "brittle"
    return "steady" if outcomes == {"holds"} else "cannot tell"


def _changes_by_type(rows: pl.DataFrame) -> dict[tuple[Any, ...], dict[str, float]]:
    """Relative change of each (model, dataset, prompts, split, probe, attribute) by prompt type."""
    found: dict[tuple[Any, ...], dict[str, float]] = {}
    keys = ("model_id", "dataset", "prompts", "split", "probe", "attribute")
    for row in rows.filter(pl.col("meaning") == "changed").iter_rows(named=True):
        key = tuple(row[k] for k in keys)
        found.setdefault(key, {})[row["prompt_type"]] = row["relative_change_percent"]
    return found


def _own_types(
    first: Row, by_type: Mapping[tuple[Any, ...], Mapping[str, float]]
) -> Iterator[tuple[str, str, Mapping[str, float]]]:
    """(probe, attribute, change by prompt type) where a run has more than one type."""
    own = (first["model_id"], first["dataset"], first["prompts"])
    for key, changes in by_type.items():
        if key[:3] == own and len(changes) > 1:
            yield key[4], key[5] or WHOLE, changes


def _limits(found: Estimate) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def stage_of(evidence: Sequence[Evidence]) -> Stage:
    """Which stage ignores the word, by the typical shift of the embedding under what is unheard."""
    shifts = [
        e.text_shift for e in evidence if e.state == "unheard" and math.isfinite(e.text_shift)
    ]
    if not shifts:
        return "unknown"
    return "text tower" if float(np.median(shifts)) < BLIND else "fusion"

"""What finetuning did to a model's language: attribute by attribute kept, lost or gained.

A base model and the model that was tuned from it are judged on the same cases. *Kept* is an
attribute that both hear, *lost* one that the base hears and the tuned model is shown to ignore,
*gained* the reverse, *never heard* one that neither hears; all else *cannot tell*. Refusal and
steadiness are read in the same way from their verdicts.

Conventions: changes are relative changes of Dice in percent, taken where the changed word points
to another target if the data know one (the *decisive* change), else over all samples. Differences
are tuned less base, in percentage points, with 95 % limits of a bootstrap that resamples both
models' clusters together. Each model's change is relative to its own Dice: one that segments
better has more to lose, which is why the ratio of the two changes and both models' Dice stand
beside the difference.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from harness.errors import UsageError
from harness.records import Meaning
from harness.stats.assessment import assess
from harness.stats.columns import why_too_low
from harness.stats.comparison.common import (
    CHANGE,
    DECISIVE,
    ORIGINAL,
    STEADINESS,
    Common,
    Coverage,
    Figure,
    Subject,
    common_cases,
    figures_of,
)
from harness.stats.comparison.contrast import Solution, solutions
from harness.stats.comparison.diagnosis import diagnose
from harness.stats.intervals import recovered
from harness.stats.language import WHOLE, LanguageVerdict, listed
from harness.stats.refusal import NOTHING, Limits
from harness.stats.relative import reduce

Outcome = Literal["kept", "lost", "gained", "never", "cannot tell"]
REFUSAL = "refusal"
_SET = ("dataset", "prompts", "prompt_type")
_HAS = {"heard": True, "steady": True, "refuses": True}
_HAS_NOT = {"unheard": False, "brittle": False, "hallucinates": False}


@dataclass(frozen=True, slots=True)
class Aspect:
    """One attribute, steadiness or refusal of one data set, before and after tuning.

    Attributes:
        dataset: Its name.
        prompts: Source of the prompts.
        prompt_type: Rung of the originals.
        name: The attribute, ``steadiness`` or ``refusal``.
        outcome: What became of it.
        base: State of the base model: *heard*, *steady*, *refuses* and their opposites, or
            *unclear*.
        tuned: State of the tuned model.
        probe: Whose figure stands beside it: the one with the largest change of either model.
        figure: What the figures are: ``decisive_change`` or ``relative_change`` (percent),
            ``steadiness`` (mean agreement) or ``refusal`` (refusal rate).
        value_base: Of the base model, with 95 % limits.
        value_tuned: Of the tuned model, with 95 % limits.
        difference: Tuned less base, with 95 % limits: percentage points of a change, else a
            difference of fractions.
        ratio: Tuned over base, of changes; NaN where the base's change is not shown to be any.
        n_samples: Behind the figures.
        n_clusters: Behind the figures.
        reason: Why one of the two is not shown, where that is so.
    """

    dataset: str
    prompts: str
    prompt_type: str
    name: str
    outcome: Outcome
    base: str
    tuned: str
    probe: str = ""
    figure: str = ""
    value_base: Limits = NOTHING
    value_tuned: Limits = NOTHING
    difference: Limits = NOTHING
    ratio: float = math.nan
    n_samples: int = 0
    n_clusters: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SetDice:
    """Dice of the original prompts of one split, which differs for its own reasons."""

    dataset: str
    split: str
    prompt_type: str
    base: Limits
    tuned: Limits
    difference: Limits
    n_clusters: int


@dataclass(frozen=True, slots=True)
class Tuning:
    """What is said of a base and a tuned model.

    Attributes:
        base: Label of the base model.
        tuned: Label of the tuned model.
        aspects: One an attribute, then steadiness and refusal, of each data set.
        dice: One a split.
        sentence: All of it in one.
        diagnosis: What the evidence supports about the training, a sentence each.
        coverage: How much of each plan is compared.
    """

    base: str
    tuned: str
    aspects: tuple[Aspect, ...]
    dice: tuple[SetDice, ...]
    sentence: str
    diagnosis: tuple[str, ...]
    coverage: tuple[Coverage, ...]


def compare_language(base: Subject, tuned: Subject) -> Tuning:
    """Say what became of the base model's language in the tuned one.

    Args:
        base: Before finetuning; its suite sets the statistics.
        tuned: After it. Thresholds may differ, the cases and the metric may not.

    Raises:
        RunError: Metrics or true masks differ.
        NothingSelectedError: No case is common.
        UsageError: No attribute was exchanged for another valid value in the common cases.
    """
    common = common_cases([base, tuned])
    verdicts = [_verdicts(one, common, base) for one in (base, tuned)]
    solved = _solved(common, base)
    needed = base.suite.statistics.minimum_clusters
    aspects = [
        aspect
        for first, second in _matched(*verdicts)
        for aspect in _aspects(first, second, solved, needed)
    ]
    if not any(a.name not in (STEADINESS, REFUSAL) for a in aspects):
        raise UsageError(
            f"compare --language: the common cases of {base.label} and {tuned.label} exchange no "
            "word for another valid value. Only such probes tell what a model hears. Run a suite "
            "like `meaning_changed` or `antonym_swap` with both."
        )
    return Tuning(
        base=base.label,
        tuned=tuned.label,
        aspects=tuple(aspects),
        dice=tuple(_dice(solved)),
        sentence=_sentence(base.label, tuned.label, aspects),
        diagnosis=tuple(diagnose(base, tuned)),
        coverage=common.coverage,
    )


def _verdicts(subject: Subject, common: Common, rules: Subject) -> list[LanguageVerdict]:
    """The language verdicts of one model over the common cases."""
    store = subject.store
    chosen = pl.col("case_id").is_in(common.case_ids.implode())
    found = assess(
        store.plan_scan().filter(chosen),
        store.scores_scan().filter(chosen),
        models=[subject.facts],
        not_applicable=store.not_applicable().clear(),
        suite=rules.suite,
        cluster_kinds=store.manifest.get("cluster_kinds", {}),
        texts=store.texts(),
    )
    return [verdict for verdict in found.language if verdict.is_asked]


def _matched(
    base: Sequence[LanguageVerdict], tuned: Sequence[LanguageVerdict]
) -> Iterator[tuple[LanguageVerdict, LanguageVerdict]]:
    others = {tuple(getattr(v, k) for k in _SET): v for v in tuned}
    for verdict in base:
        other = others.get(tuple(getattr(verdict, k) for k in _SET))
        if other is not None:
            yield verdict, other


class _Solved(dict[tuple[str, str, str], list[tuple[Figure, Solution]]]):
    """Figures with their solutions, by set."""


def _solved(common: Common, base: Subject) -> _Solved:
    figures = list(figures_of(common.pairs, reduce(common.pairs), decisive=True))
    settings = base.suite.statistics
    # The tuned model, in place 1, is the first of the pair: differences are tuned less base.
    found = solutions(
        figures, common.pairs.plan.units, pairs=[(1, 0)], count=settings.draws, seed=settings.seed
    )
    by_set = _Solved()
    for figure, solution in zip(figures, found, strict=True):
        low = why_too_low(solution.references, slice(None), settings.dice_floor)
        if figure.name in (CHANGE, DECISIVE) and any(low):
            continue  # there is nothing to lose, and no change relative to it
        key = (str(figure.keys["dataset"]), str(figure.keys["prompts"]), _type_of(figure))
        by_set.setdefault(key, []).append((figure, solution))
    return by_set


def _type_of(figure: Figure) -> str:
    return str(figure.keys["prompt_type"])


def _aspects(
    base: LanguageVerdict, tuned: LanguageVerdict, solved: _Solved, needed: int
) -> Iterator[Aspect]:
    key = (base.dataset, base.prompts, base.prompt_type)
    figures = solved.get(key, [])
    states = [_states(verdict) for verdict in (base, tuned)]
    for name in states[0]:
        if name in states[1]:
            aspect = _aspect(key, name, states[0][name], states[1][name])
            aspect = replace(aspect, reason=_why_unclear(name, base, tuned))
            yield _with_change(aspect, figures, needed)
    steadiness = _with_agreement(
        _aspect(key, STEADINESS, base.steadiness, tuned.steadiness), figures
    )
    if steadiness.figure:  # else no probe keeps the meaning
        yield steadiness
    if "not asked" not in (base.refusal, tuned.refusal):
        yield _with_refusal(_aspect(key, REFUSAL, base.refusal, tuned.refusal), base, tuned)


def _states(verdict: LanguageVerdict) -> dict[str, str]:
    return {
        name: state for state in ("heard", "unheard", "unclear") for name in getattr(verdict, state)
    }


def _why_unclear(name: str, *verdicts: LanguageVerdict) -> str:
    reasons = (
        f"{verdict.model}: {evidence.reason}"
        for verdict in verdicts
        if name in verdict.unclear
        for evidence in verdict.evidence
        if (evidence.attribute or WHOLE) == name
    )
    return next(reasons, "")


def _aspect(key: tuple[str, str, str], name: str, base: str, tuned: str) -> Aspect:
    return Aspect(*key, name, outcome_of(base, tuned), base, tuned)


def outcome_of(base: str, tuned: str) -> Outcome:
    """What became of something that a model may have or not.

    Example:
        >>> outcome_of("heard", "unheard"), outcome_of("brittle", "steady")
        ('lost', 'gained')
        >>> outcome_of("heard", "unclear")
        'cannot tell'
    """
    known = _HAS | _HAS_NOT
    if base not in known or tuned not in known:
        return "cannot tell"
    both: dict[tuple[bool, bool], Outcome] = {
        (True, True): "kept",
        (True, False): "lost",
        (False, True): "gained",
        (False, False): "never",
    }
    return both[known[base], known[tuned]]


def _with_change(aspect: Aspect, figures: Sequence[tuple[Figure, Solution]], needed: int) -> Aspect:
    """With the largest change of either model, of enough clusters, decisive ones first."""
    own = [
        (figure, solution)
        for figure, solution in figures
        if figure.meaning == Meaning.CHANGED and (figure.keys["attribute"] or WHOLE) == aspect.name
    ]
    enough = [one for one in own if len(one[0].units) >= needed]
    kinds = [
        [one for one in some if one[0].name == name]
        for some in (enough, own)
        for name in (DECISIVE, CHANGE)
    ]
    chosen = next(filter(None, kinds), [])
    if not chosen:
        return aspect
    figure, solution = max(chosen, key=lambda one: float(abs(one[1].own.estimate - 1).max()))
    base, tuned = (_own(solution, k, scale=100, offset=1) for k in (0, 1))
    is_change = base[1] > 0 or base[2] < 0
    return replace(
        _with_figure(aspect, figure, base, tuned, _difference(solution, 100)),
        probe=str(figure.keys["probe"]),
        ratio=tuned[0] / base[0] if is_change else math.nan,
    )


def _with_agreement(aspect: Aspect, figures: Sequence[tuple[Figure, Solution]]) -> Aspect:
    for figure, solution in figures:
        if figure.name == STEADINESS:
            base, tuned = (_own(solution, k) for k in (0, 1))
            return _with_figure(aspect, figure, base, tuned, _difference(solution, 1))
    return aspect


def _with_refusal(aspect: Aspect, base: LanguageVerdict, tuned: LanguageVerdict) -> Aspect:
    """Rates are shares near 0 and 1: limits of the difference are recovered from their own."""
    difference = recovered(lambda b, t: t - b, [base.refusal_rate, tuned.refusal_rate], [-1, 1])
    return replace(
        aspect,
        figure=REFUSAL,
        value_base=base.refusal_rate,
        value_tuned=tuned.refusal_rate,
        difference=difference,
        n_samples=sum(one.n_samples for one in base.refusals),
        n_clusters=max((one.n_clusters for one in base.refusals), default=0),
    )


def _with_figure(
    aspect: Aspect, figure: Figure, base: Limits, tuned: Limits, difference: Limits
) -> Aspect:
    return replace(
        aspect,
        figure=figure.name,
        value_base=base,
        value_tuned=tuned,
        difference=difference,
        n_samples=figure.n_samples,
        n_clusters=len(figure.units),
    )


def _own(solution: Solution, model: int, *, scale: float = 1, offset: float = 0) -> Limits:
    own = solution.own
    value, low, high = (
        scale * (float(ends[model]) - offset) for ends in (own.estimate, own.low, own.high)
    )
    return value, low, high


def _difference(solution: Solution, scale: float) -> Limits:
    own = solution.differences.intervals
    value, low, high = (scale * float(ends[0]) for ends in (own.estimate, own.low, own.high))
    return value, low, high


def _dice(solved: _Solved) -> Iterator[SetDice]:
    for figures in solved.values():
        for figure, solution in figures:
            if figure.name == ORIGINAL:
                yield SetDice(
                    dataset=str(figure.keys["dataset"]),
                    split=str(figure.keys["split"]),
                    prompt_type=_type_of(figure),
                    base=_own(solution, 0),
                    tuned=_own(solution, 1),
                    difference=_difference(solution, 1),
                    n_clusters=len(figure.units),
                )


def _sentence(base: str, tuned: str, aspects: Sequence[Aspect]) -> str:
    """All data sets in one sentence."""
    parts = []
    for dataset in dict.fromkeys(a.dataset for a in aspects):
        own = [a for a in aspects if a.dataset == dataset]
        words = [a for a in own if a.name not in (STEADINESS, REFUSAL)]
        texts = [
            f"{outcome} {listed(_names(words, outcome))}"
            for outcome in ("lost", "kept", "gained")
            if _names(words, outcome)
        ]
        if nothing := _names(words, "never"):
            texts.append(f"never heard {listed(nothing)}")
        if unclear := _names(words, "cannot tell"):
            texts.append(f"left {listed(unclear)} undecided")
        texts += [
            f"{a.outcome} its {a.name}{_trivially(a, words)}"
            for a in own
            if a not in words and a.outcome in ("lost", "gained")
        ]
        parts.append(f"on {dataset} it {', '.join(texts) or 'was asked nothing'}")
    return f"{tuned} compared with {base}: {'; '.join(parts)}."


def _trivially(aspect: Aspect, words: Sequence[Aspect]) -> str:
    """A model that hears nothing is steady, which is no merit."""
    deaf = aspect.name == STEADINESS and all(a.tuned == "unheard" for a in words)
    return " (as whatever hears nothing has)" if deaf and aspect.outcome == "gained" else ""


def _names(aspects: Sequence[Aspect], outcome: str) -> list[str]:
    found = [a.name for a in aspects if a.outcome == outcome]
    return list(dict.fromkeys(found))
